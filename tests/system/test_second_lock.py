"""The second lock, with the real daemon and real packets: what leaves past table `inet ecluse`."""

import re
import time

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.system.test_tamper import wait_until

pytestmark = pytest.mark.system

OFF, CUT = policy.site(second_lock="off"), policy.site(second_lock="cut")
MACVLAN = (
    "ip link add mv0 link wan0 type macvlan mode bridge; ip link set mv0 netns {guests}",
    (
        "ip addr add 192.0.2.9/28 dev mv0; ip link set mv0 up; "
        "ip route add 198.51.100.0/24 via 192.0.2.1 dev mv0 src 192.0.2.9"
    ),
)


def stands(hospital: Hospital) -> bool:
    return "netdev ecluse_exit" in hospital.shell("gw", "nft list tables")


def lock(daemon: Daemon) -> dict:
    return daemon.status()["second_lock"]


def has_lock(daemon: Daemon) -> bool:
    return lock(daemon)["stands"]


def reload(daemon: Daemon) -> None:
    reply = daemon.api("POST", "/v1/reload", {})
    assert reply.status == 200, reply.body


def put_macvlan(hospital: Hospital) -> None:
    hospital.shell("gw", MACVLAN[0].format(guests=hospital.namespace("guests")))
    hospital.shell("guests", MACVLAN[1])


def pinged(hospital: Hospital) -> int:
    """Send three pings by the macvlan; give how many the outside saw."""
    with hospital.sniff() as outside:
        hospital.run("guests", ["ping", "-c", "3", "-i", "0.2", "-W", "1", places.WEB.v4])
        return outside.count(destination=places.WEB.v4, protocol="icmp")


def test_it_stands_at_isolate_alone_as_shipped_and_goes_before_an_opening(hospital: Hospital):
    daemon = hospital.daemon().start()
    assert not stands(hospital)
    daemon.level("cut")
    assert not stands(hospital)
    assert "keeps nothing" in lock(daemon)["why"]
    daemon.level("isolate")
    assert wait_until(lambda: has_lock(daemon), 5)
    boot = daemon.state / "boot-lock.nft"
    assert wait_until(lambda: boot.exists() and "egress device" in boot.read_text(), 5)
    daemon.level("cut")
    assert not stands(hospital), "before the gate opens, not after it"
    assert not boot.exists()
    assert hospital.care.tcp(places.LABORATORY.v4)
    assert daemon.status()["in_step"]
    daemon.level("open", zones=["guests"])
    daemon.level("isolate")
    assert wait_until(lambda: has_lock(daemon), 5)
    daemon.level("open")
    assert not stands(hospital)
    assert hospital.care.udp(places.WEB.v4)


def test_a_cut_prints_what_left_since_and_never_that_the_lock_is_missing(hospital: Hospital):
    daemon = hospital.daemon(site=CUT).start()
    kept = hospital.care.stream(places.LABORATORY.v4, 5000, "udp", rate=500)
    for words in (["cut"], ["isolate"], ["cut"]):
        done = daemon.cli(*words)
        assert done.returncode == 0, done.stderr
        assert "2nd lock  stands, since" in done.stdout, done.stdout
        assert "MISSING" not in daemon.cli("status").stdout
    found = re.search(r"wan0: ([\d,]+) packets to what is kept, 0 to others", done.stdout)
    assert found, done.stdout
    report = kept.stop()
    last = lock(daemon)["devices"]
    (wan,) = (one for one in last if one["device"] == "wan0")
    assert 0 < int(found[1].replace(",", "")) <= wan["kept"]
    assert wan["kept"] <= report.sent + 10


def test_a_macvlan_of_the_outside_is_held_and_proves_a_way_past_the_gate(hospital: Hospital):
    daemon = hospital.daemon(site=OFF).start()
    daemon.level("isolate")
    put_macvlan(hospital)
    assert pinged(hospital), "positive control: it leaves at isolate without the second lock"
    daemon.write_config(policy.site())
    reload(daemon)
    assert wait_until(lambda: has_lock(daemon), 5)
    assert pinged(hospital) == 0
    assert wait_until(lambda: lock(daemon)["devices"][0]["lost"], 15)
    found = daemon.status()
    (wan,) = (one for one in found["second_lock"]["devices"] if one["device"] == "wan0")
    assert wan["kept"] == 0
    alert = next(one for one in found["alerts"] if one["code"] == "way-past-gate")
    assert alert["severity"] == "critical"
    rows = found["second_lock"]["dropped"]
    # Its ARP is not ours, so the ping itself never gets that far.
    mac = hospital.shell("guests", "cat /sys/class/net/mv0/address").strip()
    assert any(mac in row["source"] or row["source"] == "192.0.2.9" for row in rows)
    assert wait_until(lambda: "second lock" in (daemon.state / "audit.log").read_text(), 5)


def test_at_cut_where_the_site_asks_it_holds_and_keeps(hospital: Hospital):
    daemon = hospital.daemon(site=CUT).start()
    put_macvlan(hospital)
    kept = hospital.care.stream(places.LABORATORY.v4, 5000, "udp", rate=200)
    time.sleep(0.2)
    assert pinged(hospital), "positive control"
    for level in ("cut", "open", "cut"):
        daemon.level(level)
        if level != "open":
            assert wait_until(lambda: has_lock(daemon), 5)
            assert pinged(hospital) == 0
    assert hospital.care.tcp(places.LABORATORY.v4)
    assert hospital.care.tcp(places.LABORATORY.v6)
    for _ in range(5):
        reload(daemon)
    assert wait_until(lambda: has_lock(daemon), 5)
    assert daemon.api("POST", "/v1/rollback", {}).status == 200
    report = kept.stop()
    assert report.received > 200
    assert report.lost == 0
    assert hospital.care.tcp(places.LABORATORY.v4)


def test_a_deleted_table_leaks_nothing_at_isolate(hospital: Hospital):
    def leaked(times: int) -> int:
        with hospital.sniff() as outside:
            stream = hospital.guest.stream(places.WEB.v4, 5000, "udp", rate=2000)
            for _ in range(times):
                time.sleep(0.1)
                hospital.shell("gw", "nft delete table inet ecluse")
                assert wait_until(lambda: "k" in hospital.shell("gw", "nft list chains inet"), 5)
            stream.stop(grace=0)
            return outside.count(destination=places.WEB.v4)

    daemon = hospital.daemon(site=OFF).start()
    daemon.level("isolate")
    assert leaked(10), "positive control: the moment is there"
    daemon.write_config(policy.site())
    reload(daemon)
    assert wait_until(lambda: has_lock(daemon), 5)
    assert leaked(10) == 0


def test_it_is_put_back_and_follows_devices(hospital: Hospital):
    daemon = hospital.daemon().start()
    daemon.level("isolate")
    assert wait_until(lambda: has_lock(daemon), 5)
    hospital.shell("gw", "nft delete table netdev ecluse_exit")
    assert wait_until(lambda: stands(hospital), 5)
    told = "the second lock was put back: nft (pid "
    assert wait_until(lambda: told in (daemon.state / "audit.log").read_text(), 5)
    hospital.shell("gw", "ip link add late0 type veth peer name late1")
    assert wait_until(
        lambda: "late0" in hospital.shell("gw", "nft list table netdev ecluse_exit"), 5
    )
    assert wait_until(lambda: has_lock(daemon), 15)
    hospital.shell("gw", "nft flush ruleset")
    assert wait_until(lambda: stands(hospital), 15)


def test_an_address_that_root_lets_out_goes_again(hospital: Hospital):
    def lets_out() -> bool:
        return "192.0.2.77" in hospital.shell("gw", "nft list table netdev ecluse_exit")

    def let_out() -> None:
        name = re.search(r"set (to4_\w+)", hospital.shell("gw", "nft list sets netdev"))
        assert name
        hospital.nft(f"add element netdev ecluse_exit {name[1]} {{ 192.0.2.77 }}")

    daemon = hospital.daemon(site=CUT).start()
    daemon.level("cut")
    assert wait_until(lambda: has_lock(daemon), 5)
    let_out()
    assert wait_until(lambda: not lets_out(), 10)
    assert wait_until(lambda: "was put back" in (daemon.state / "audit.log").read_text(), 5)
    daemon.kill9()
    let_out()
    assert lets_out(), "positive control"
    daemon.start()
    assert wait_until(lambda: has_lock(daemon) and not lets_out(), 10)
    assert hospital.care.tcp(places.LABORATORY.v4)


def test_killed_it_holds_and_the_next_daemon_takes_it_over(hospital: Hospital):
    daemon = hospital.daemon().start()
    daemon.level("isolate")
    assert wait_until(lambda: has_lock(daemon), 5)
    daemon.kill9()
    put_macvlan(hospital)
    assert pinged(hospital) == 0
    daemon.start()
    assert wait_until(lambda: has_lock(daemon), 10)
    daemon.level("cut")
    assert not stands(hospital)
    assert hospital.care.tcp(places.LABORATORY.v4)
