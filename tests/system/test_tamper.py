"""Somebody else changes or deletes the table while cut: put back within 100 ms, said who, leaked packets counted."""

import json
import time

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital

pytestmark = pytest.mark.system

TAMPERING = {
    "flush ruleset": "flush ruleset",
    "delete table": "delete table inet ecluse",
    "flush table": "flush table inet ecluse",
    "flush base chain": "flush chain inet ecluse forward",
    "accept first": "insert rule inet ecluse forward accept",
    "accept in a gate": "insert rule inet ecluse k1_gate.guests accept",
    "element added": 'add element inet ecluse k1_keep1.out_exact4 { 198.51.100.80 . 443 . 6 : "svc_laboratory" }',
    "interface called inside": 'add element inet ecluse k1_inside { "wan0" }',
    "table asleep": "add table inet ecluse { flags dormant; }",
}


def wait_until(condition, seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("how", TAMPERING)
def test_put_back_and_said(hospital: Hospital, daemon: Daemon, how: str):
    daemon.level("cut")
    # In IPv6, which the site does not translate: flushing its NAT rules ends translated connections by itself.
    line = hospital.care.open(places.LABORATORY.v6)
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    hospital.nft(TAMPERING[how])
    assert wait_until(lambda: daemon.status()["last_tamper"]), "it was noticed"
    status = daemon.status()
    assert status["last_tamper"]["process"] == "nft"
    assert status["last_tamper"]["pid"] > 0
    assert status["in_step"]
    assert status["levels"]["guests"] == "cut"
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    assert line.talk(), "a kept connection goes on"
    assert hospital.admin.tcp(places.TREASURY.v6)
    assert "nft (pid" in (daemon.state / "audit.log").read_text()
    line.close()


@pytest.mark.parametrize("how", ["flush ruleset", "delete table inet ecluse"])
def test_over_within_100_ms_and_what_leaked_is_counted(hospital: Hospital, daemon: Daemon, how: str):
    daemon.level("cut")
    lost = places.STRANGER.v4
    with hospital.sniff() as outside:
        stream = hospital.care.stream(lost, 5000, "udp", rate=5000)
        time.sleep(0.3)
        assert outside.count(destination=lost) == 0
        before = time.time_ns()
        hospital.nft(how)
        assert wait_until(lambda: daemon.status()["last_leak"]), (
            "positive control: packets got through meanwhile"
        )
        time.sleep(0.2)
        stream.stop(grace=0)
        seen = outside.seen(before, destination=lost, protocol="udp", from_gateway=True)
        leaked = sum(flow.packets for flow in seen)
        assert leaked > 0
        last = max(flow.last for flow in seen)
        first = min(flow.first for flow in seen)
        # About 20 ms on a quiet machine; a clock in a test that shares its cores only tells soon from never.
        assert (last - first) / 1e6 < 1000, "from the first packet that leaked to the last"
        status = daemon.status()
        assert status["last_tamper"]["restored_ms"] < 1000
        assert status["last_leak"]["connections"] == 1
        counted = status["last_leak"]["packets"]
        # Echoes are counted with them, and what knocked in vain until the connection was ended.
        assert counted <= 2 * leaked + 1500
        # A flush takes the last rule that needs conntrack: the kernel stops tracking until our rules are back, and the
        # figure is then a lower bound, as status says.
        assert counted >= (1 if how == "flush ruleset" else leaked)
        assert lost in json.dumps(status["last_leak"]["examples"])


def test_foreign_rules_elsewhere_are_nobodys_business(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    for number in range(5):
        hospital.nft(f"table ip colleague{number} {{ chain c {{\n }}\n }}")
    time.sleep(0.3)
    status = daemon.status()
    assert status["last_tamper"] is None
    assert status["in_step"]


def test_over_and_over_while_cut(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    for _ in range(20):
        hospital.nft(
            "delete table inet ecluse"
            if hospital.run("gw", ["nft", "list", "table", "inet", "ecluse"]).returncode == 0
            else "flush ruleset"
        )
        time.sleep(0.02)
    assert wait_until(lambda: daemon.status()["in_step"])
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    assert (daemon.state / "audit.log").read_text().count('"tamper"') >= 2


def test_a_large_allowlist_leaks_no_longer_than_a_small_one(hospital: Hospital):
    """20,000 entries take a while to load; a small table holds the line meanwhile, and what is kept goes on after."""
    many = [
        policy.service(
            f"many-{n}",
            "vital",
            ["care"],
            [{"to": [f"198.18.{n}.{i}" for i in range(200)], "ports": ["tcp/443"]}],
        )
        for n in range(100)
    ]
    daemon = hospital.daemon(allowlist=policy.ALLOWLIST | {"50-many.yaml": many}).start(60)
    daemon.level("cut")
    line = hospital.care.open(places.LABORATORY.v6)
    lost = places.STRANGER.v6
    with hospital.sniff() as outside:
        stream = hospital.guest.stream(lost, 5000, "udp", rate=5000)
        time.sleep(0.2)
        assert outside.count(destination=lost) == 0
        hospital.nft("delete table inet ecluse")
        assert wait_until(lambda: daemon.status()["last_tamper"], 20)
        stream.stop(grace=0)
        seen = outside.seen(destination=lost, protocol="udp", from_gateway=True)
        assert seen, "positive control: packets got through in between"
        leaked_ms = (max(f.last for f in seen) - min(f.first for f in seen)) / 1e6
        restored_ms = daemon.status()["last_tamper"]["restored_ms"]
        assert leaked_ms < restored_ms / 3, (leaked_ms, restored_ms)
        print(f"leaked for {leaked_ms:.1f} ms, whole after {restored_ms:.0f} ms")
    assert line.talk(timeout=3)
    assert hospital.care.tcp(places.LABORATORY.v4)
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    line.close()
    daemon.stop()
