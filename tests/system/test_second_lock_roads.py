"""The second lock against roads past the gate and a spoilt table, with the real daemon.

Each road is first seen open at isolate with `second_lock: off`; the witness stands outside.
"""

import contextlib
import random
import re
import sys
import threading
import time

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import Host
from tests.system.test_second_lock import CUT, OFF, has_lock, lock, reload, stands
from tests.system.test_tamper import wait_until

pytestmark = pytest.mark.system

RAW = """
import contextlib, socket, sys
name, bypass, destination = sys.argv[1:]
made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
made.setsockopt(263, 20, int(bypass))  # SOL_PACKET, PACKET_QDISC_BYPASS
made.bind((name, 0))
own = made.getsockname()[4]
ip = bytes.fromhex("4500001c00010000401100000a0a0a0a") + socket.inet_aton(destination)
total = sum(int.from_bytes(ip[n : n + 2], "big") for n in range(0, 20, 2))
total = (total & 0xFFFF) + (total >> 16)
ip = ip[:10] + (0xFFFF - total).to_bytes(2, "big") + ip[12:]
for _ in range(5):
    with contextlib.suppress(OSError):  # it is told of a drop
        made.send(b"\\xff" * 6 + own + b"\\x08\\x00" + ip + bytes.fromhex("0009000900080000"))
"""
TAP = """
import fcntl, os, struct, subprocess, sys
made = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(made, 0x400454CA, struct.pack("16sH22x", b"vm0", 0x1002))
subprocess.run(
    "ip link add vmbr0 type bridge forward_delay 0; ip link set vmbr0 up; ip link set vm0 up;"
    "sysctl -qew net.bridge.bridge-nf-call-iptables=0;"
    "ip link set vm0 master vmbr0; ip link set wan0 master vmbr0; sleep 0.5",
    shell=True, check=True)
frame = b"\\xff" * 6 + bytes.fromhex("0200000000ee") + bytes.fromhex(sys.argv[1])
for _ in range(5):
    os.write(made, frame)
subprocess.run("sleep 0.3; ip link set wan0 nomaster; ip link del vmbr0", shell=True, check=True)
"""


def udp_packet(destination: str) -> str:
    """Give ethertype and packet, in hexadecimal, from an address of nobody here."""
    octets = "".join(f"{int(part):02x}" for part in destination.split("."))
    head = bytes.fromhex("4500001c00010000401100000a0a0a0a" + octets)
    total = sum(int.from_bytes(head[n : n + 2], "big") for n in range(0, 20, 2))
    total = 0xFFFF - ((total & 0xFFFF) + (total >> 16))
    return "0800" + (head[:10] + total.to_bytes(2, "big") + head[12:]).hex() + "0009000900080000"


def isolated(hospital: Hospital, *, off: bool) -> Daemon:
    daemon = hospital.daemon(site=OFF if off else policy.site()).start()
    daemon.level("isolate")
    if not off:
        assert wait_until(lambda: has_lock(daemon), 5)
    return daemon


def turn_on(hospital: Hospital, daemon: Daemon) -> None:
    daemon.write_config(policy.site())
    reload(daemon)
    assert wait_until(lambda: has_lock(daemon), 5)


def python(hospital: Hospital, script: str, *argv: str) -> None:
    done = hospital.run("gw", [sys.executable, "-c", script, *argv])
    assert done.returncode == 0, done.stderr


def base_chains(hospital: Hospital) -> list[str]:
    listed = hospital.shell("gw", "nft -t list table inet ecluse")
    return re.findall(r"chain (\S+) \{\n\t\ttype filter hook", listed)


def leaked_by(hospital: Hospital, chains: list[str], sender: Host) -> int:
    """Turn chains to accept, send, turn them back; give what the outside saw."""
    for chain in chains:
        hospital.shell("gw", f"nft insert rule inet ecluse {chain} accept")
    with hospital.sniff() as outside:
        stream = sender.stream(places.WEB.v4, 5000, "udp", rate=100)
        time.sleep(0.4)
        stream.stop(grace=0)
        seen = outside.count(destination=places.WEB.v4)
    for chain in chains:
        find = (
            f"nft -a list chain inet ecluse {chain} | sed -n 's/^[[:space:]]*accept # handle //p'"
        )
        hospital.shell("gw", f"nft delete rule inet ecluse {chain} handle $({find})")
    return seen


@pytest.mark.parametrize("off", [True, False], ids=["control", "held"])
def test_each_base_chain_turned_to_accept_by_root_leaks_nothing(hospital: Hospital, off: bool):
    # Dead: alive, it would take the rule out within milliseconds.
    isolated(hospital, off=off).kill9()
    chains = base_chains(hospital)
    assert {"forward", "output", "postrouting"} <= set(chains)
    seen = {one: leaked_by(hospital, [one], hospital.guest) for one in chains}
    seen["all, from a zone"] = leaked_by(hospital, chains, hospital.guest)
    seen["all, from the gateway"] = leaked_by(hospital, chains, hospital.gateway)
    hospital.nft("delete table inet ecluse")
    seen["none"] = leaked_by(hospital, [], hospital.guest)
    if off:
        assert min(seen[one] for one in ("forward", *list(seen)[-3:])) > 0, seen
    else:
        assert not any(seen.values()), seen


@pytest.mark.parametrize("bypass", ["0", "1"])
def test_a_packet_socket_on_the_gateway_is_held(hospital: Hospital, bypass: str):
    def seen() -> int:
        with hospital.sniff() as outside:
            python(hospital, RAW, "wan0", bypass, places.WEB.v4)
            time.sleep(0.3)
            return outside.count(destination=places.WEB.v4)

    daemon = isolated(hospital, off=True)
    assert seen() == 5, "positive control"
    turn_on(hospital, daemon)
    assert seen() == 0
    assert wait_until(lambda: lock(daemon)["devices"][0]["lost"] >= 5, 15)


def test_a_virtual_machine_that_is_bridged_to_the_outside_is_held(hospital: Hospital):
    def seen() -> int:
        with hospital.sniff() as outside:
            python(hospital, TAP, udp_packet(places.WEB.v4))
            time.sleep(0.3)
            return outside.count(destination=places.WEB.v4)

    daemon = isolated(hospital, off=True)
    assert seen(), "positive control"
    turn_on(hospital, daemon)
    assert seen() == 0


def test_a_renamed_and_a_new_outside_device_are_held(hospital: Hospital):
    def seen(name: str, peer: str) -> int:
        with hospital.sniff("inet", peer) as outside:
            python(hospital, RAW, name, "0", places.WEB.v4)
            time.sleep(0.3)
            return outside.count(destination=places.WEB.v4)

    def rename(before: str, after: str) -> None:
        hospital.shell("gw", f"ip link set {before} down; ip link set {before} name {after}")
        hospital.shell("gw", f"ip link set {after} up")

    def hooked(name: str) -> bool:
        listed = hospital.shell("gw", "nft list table netdev ecluse_exit")
        return f'"{name}"' in listed and has_lock(daemon)

    daemon = isolated(hospital, off=True)
    rename("wan0", "wan8")
    inet = hospital.namespace("inet")
    hospital.shell("gw", f"ip link add late0 type veth peer name late1 netns {inet}")
    hospital.shell("gw", "ip link set late0 up")
    hospital.shell("inet", "ip link set late1 up")
    assert seen("wan8", "uplink") == seen("late0", "late1") == 5, "positive control"
    hospital.shell("gw", "ip link del late0")
    turn_on(hospital, daemon)
    rename("wan8", "wan9")
    assert wait_until(lambda: hooked("wan9"), 15)
    assert seen("wan9", "uplink") == 0
    hospital.shell("gw", f"ip link add late0 type veth peer name late1 netns {inet}")
    hospital.shell("gw", "ip link set late0 up")
    hospital.shell("inet", "ip link set late1 up")
    assert wait_until(lambda: hooked("late0"), 15)
    assert seen("late0", "late1") == 0
    hospital.shell("gw", "ip link add 'odd\"0' type veth peer name odd1")
    assert wait_until(lambda: "odd" in lock(daemon)["why"], 15), "named"
    assert seen("wan9", "uplink") == 0


def command(daemon: Daemon, level: str) -> None:
    with contextlib.suppress(Exception):  # it is killed meanwhile
        daemon.level(level)


def test_killed_at_any_moment_of_a_change_lock_and_gate_agree_afterwards(hospital: Hospital):
    daemon = hospital.daemon(site=CUT).start()
    for number in range(10):
        level = ("isolate", "open", "cut", "open")[number % 4]
        worker = threading.Thread(target=command, args=(daemon, level))
        worker.start()
        time.sleep(random.uniform(0, 0.15))
        daemon.kill9()
        worker.join(10)
        daemon.start()
        now = set(daemon.status()["levels"].values())
        if now == {"open"}:
            assert wait_until(lambda: not stands(hospital), 10)
            assert hospital.care.udp(places.WEB.v4)
        else:
            assert wait_until(lambda: has_lock(daemon), 10), (now, lock(daemon))
            if now == {"cut"}:
                assert hospital.care.tcp(places.LABORATORY.v4)


def test_twenty_reloads_and_new_addresses_lose_no_kept_packet(hospital: Hospital):
    daemon = hospital.daemon(site=CUT).start()
    daemon.level("cut")
    assert wait_until(lambda: has_lock(daemon), 5)
    kept = hospital.care.stream(places.LABORATORY.v4, 5000, "udp", rate=500)
    for number in range(20):
        more = policy.service(
            "more", "vital", ["care"], [{"to": [f"203.0.113.{100 + number}"], "ports": ["tcp/443"]}]
        )
        daemon.write_config(CUT, policy.ALLOWLIST | {"more.yaml": [more]})
        reload(daemon)
        hospital.shell("gw", f"ip link add churn{number} type veth peer name churnp{number}")
    assert wait_until(lambda: has_lock(daemon), 10)
    report = kept.stop()
    assert report.received > 500
    assert report.lost == 0
