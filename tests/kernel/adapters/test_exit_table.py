"""The second lock in the kernel: it judges frames as its oracle does, and is restated unharmed."""

import asyncio
import hashlib
import itertools
import os
import re
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ecluse.exit_devices import exit_devices
from ecluse.exit_ports import DroppedRow
from ecluse.kernel import exit_table as adapter
from ecluse.kernel.exit_learned import learned_here
from ecluse.kernel.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkSocket
from ecluse.kernel.read_links import read_links
from ecluse.policy import LinkProtocol, Policy, Preset
from ecluse.ruleset import exit_text
from ecluse.ruleset.exit_judge import judge
from ecluse.ruleset.exit_values import Ends, ExitDevice, ExitLock
from tests.kernel.adapters.conftest import do, ip, nft
from tests.unit.ruleset import policies as w
from tests.unit.ruleset.exit_frames import OURS, PEER, ethernet, ip4, ip6, ports

pytestmark = pytest.mark.kernel

WAN = ExitDevice(
    "wan0",
    (int.from_bytes(OURS, "big"),),
    zone_macs=(0x020000000009,),
    zone_tags=((0x8100, 10),),
    outside_tags=((0x8100, 20),),
)
END4, END6 = "203.0.113.9", "2001:db8:ff::1"
ENDS4 = Ends(
    frozenset({0xCB007109}),
    ((0xC6336400, 0xC633647F),),
    frozenset({0xCB00714D}),
    ((17, 500, 510), (6, 443, 443), (47, 0, 65535)),
)
ENDS6 = Ends(
    frozenset({0x20010DB800FF << 80 | 1}),
    ((0x20010DB800FE << 80, (0x20010DB800FF << 80) - 1),),
    frozenset(),
    ((6, 443, 443), (17, 500, 510)),
)
CUT = ExitLock(
    (WAN,),
    ENDS4,
    ENDS6,
    frozenset(Preset),
    frozenset({LinkProtocol.LACP, LinkProtocol.STP}),
    learns=True,
)
ISOLATE = ExitLock((WAN,), Ends(), Ends())

ARP = bytes.fromhex("0001080006040001") + bytes(20)
LSRR = bytes.fromhex("8307047f00000100")
DATA = ports(40000, 443)


def udp(source, to):
    return ports(source, to)


def frames():
    """Each road of a frame, by name: the frame."""
    to4 = {"single": END4, "range": "198.51.100.5", "learned": "203.0.113.77", "other": "192.0.2.9"}
    for name, to in to4.items():
        yield f"tcp4 {name}", ethernet(0x0800, ip4(to, 6, DATA))
        yield f"gre4 {name}", ethernet(0x0800, ip4(to, 47, DATA))
        yield f"icmp4 {name}", ethernet(0x0800, ip4(to, 1, b"\x08" + bytes(15)))
        yield f"error4 {name}", ethernet(0x0800, ip4(to, 1, b"\x03" + bytes(15)))
        yield f"fragment4 {name}", ethernet(0x0800, ip4(to, 17, DATA, offset=5))
        yield f"first fragment4 {name}", ethernet(0x0800, ip4(to, 17, DATA, offset=0x2000))
        yield f"source route4 {name}", ethernet(0x0800, ip4(to, 6, DATA, options=LSRR))
        yield f"foreign mac4 {name}", ethernet(0x0800, ip4(to, 6, DATA), source=PEER)
        yield f"ipip {name}", ethernet(0x0800, ip4(to, 4, ip4(END4, 6, DATA)))
        yield f"vxlan {name}", ethernet(0x0800, ip4(to, 17, udp(40000, 4789)))
        yield f"truncated4 {name}", ethernet(0x0800, ip4(to, 6, DATA)[:30])
        yield f"sctp4 {name}", ethernet(0x0800, ip4(to, 132, DATA))
        inner = b"\x00\x14\x08\x00" + ip4(to, 6, DATA)
        yield f"tag of outside {name}", ethernet(0x8100, inner)
        yield f"unknown tag {name}", ethernet(0x8100, b"\x00\x1e" + inner[2:])
        yield f"tag of a zone {name}", ethernet(0x8100, b"\x00\x0a" + inner[2:])
        yield f"802.1ad {name}", ethernet(0x88A8, inner)
        yield f"answer udp4 {name}", ethernet(0x0800, ip4(to, 17, udp(505, 9)))
        yield f"answer tcp4 {name}", ethernet(0x0800, ip4(to, 6, ports(443, 9, flags=0x12)))
        yield f"opens from 443 {name}", ethernet(0x0800, ip4(to, 6, ports(443, 9, flags=0x02)))
    to6 = {"single": END6, "range": "2001:db8:fe::7", "other": "2001:db8:aa::1"}
    for name, to in to6.items():
        yield f"tcp6 {name}", ethernet(0x86DD, ip6(to, 6, DATA))
        options = b"\x06\0\1\4\0\0\0\0" + DATA
        yield f"hop options6 {name}", ethernet(0x86DD, ip6(to, 0, options))
        yield f"destination options6 {name}", ethernet(0x86DD, ip6(to, 60, options))
        yield f"routing6 {name}", ethernet(0x86DD, ip6(to, 43, b"\x06\0\0\0\0\0\0\0" + DATA))
        for offset in (0, 8):
            head = b"\x11\0" + (offset | 1).to_bytes(2, "big") + bytes(4)
            yield f"fragment6 {offset} {name}", ethernet(0x86DD, ip6(to, 44, head + DATA))
        yield f"foreign mac6 {name}", ethernet(0x86DD, ip6(to, 6, DATA), source=PEER)
        yield f"error6 {name}", ethernet(0x86DD, ip6(to, 58, b"\x02" + bytes(15)))
        for kind, hops, length in (
            (135, 255, 32),
            (136, 255, 40),
            (136, 255, 48),
            (135, 64, 32),
            (133, 255, 16),
            (134, 255, 16),
            (143, 1, 20),
        ):
            body = bytes([kind]) + bytes(length - 1)
            yield (
                f"nd {kind} {hops} {length} {name}",
                ethernet(0x86DD, ip6(to, 58, body, hops=hops)),
            )
    for to in ("ff02::2", "ff02::16", "ff05::2"):
        yield f"solicit {to}", ethernet(0x86DD, ip6(to, 58, b"\x85" + bytes(15), hops=255))
        yield f"listen {to}", ethernet(0x86DD, ip6(to, 58, b"\x8f" + bytes(19), hops=1))
    yield "dhcp4", ethernet(0x0800, ip4("255.255.255.255", 17, udp(68, 67), source="0.0.0.0"))
    yield "dhcp4 to 68", ethernet(0x0800, ip4("255.255.255.255", 17, udp(67, 68)))
    yield "dhcp6", ethernet(0x86DD, ip6("ff02::1:2", 17, udp(546, 547), source="fe80::1"))
    yield "dhcp6 unicast", ethernet(0x86DD, ip6("2001:db8:aa::1", 17, udp(546, 547)))
    yield "vrrp4", ethernet(0x0800, ip4("224.0.0.18", 112, DATA, hops=255))
    virtual = bytes.fromhex("00005e000133")
    yield "vrrp4 virtual", ethernet(0x0800, ip4("224.0.0.18", 112, DATA, hops=255), source=virtual)
    yield "ospf4", ethernet(0x0800, ip4("192.0.2.9", 89, DATA, hops=1))
    yield "ospf4 far", ethernet(0x0800, ip4("192.0.2.9", 89, DATA, hops=2))
    yield "ospf6", ethernet(0x86DD, ip6("ff02::5", 89, DATA, source="fe80::1", hops=1))
    yield "ospf6 far", ethernet(0x86DD, ip6("2001:db8:aa::1", 89, DATA, hops=1))
    yield "vrrp4 far", ethernet(0x0800, ip4("224.0.0.18", 112, DATA, hops=64))
    yield "vrrp6", ethernet(0x86DD, ip6("ff02::12", 112, DATA, hops=255))
    yield "igmp", ethernet(0x0800, ip4("224.0.0.22", 2, bytes(8), hops=1))
    yield "arp", ethernet(0x0806, ARP)
    yield "arp padded", ethernet(0x0806, ARP + bytes(18))
    yield "arp long", ethernet(0x0806, ARP + bytes(60))
    yield "arp malformed", ethernet(0x0806, b"\0\1\x08\0\x06\x10" + ARP[6:])
    yield "arp reverse", ethernet(0x0806, ARP[:7] + b"\3" + ARP[8:])
    yield "arp foreign", ethernet(0x0806, ARP, source=PEER)
    yield "zone's mac", ethernet(0x0800, ip4("192.0.2.9", 6, DATA), bytes.fromhex("020000000009"))
    lldp = bytes(40)
    for name, kind in (
        ("pppoe discovery", 0x8863),
        ("pppoe session", 0x8864),
        ("mpls", 0x8847),
        ("lldp", 0x88CC),
        ("eapol", 0x888E),
        ("lacp", 0x8809),
        ("unknown", 0x1234),
    ):
        yield name, ethernet(kind, lldp)
    stp = bytes.fromhex("424203") + bytes(40)
    yield "stp", ethernet(38, stp, to=bytes.fromhex("0180c2000000"))
    yield "stp elsewhere", ethernet(38, stp)


FRAMES = dict(frames())


class Wire:
    """A device and its far end: what is sent here, and what came out there."""

    def __init__(self):
        ip(f"link add wan0 address {OURS.hex(':')} type veth peer name far0")
        for one in ("wan0", "far0"):
            do(f"sysctl -qw net.ipv6.conf.{one}.disable_ipv6=1")
            ip(f"link set {one} arp off up")
        self.near = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.near.bind(("wan0", 0))
        self.far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.far.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.far.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: a VLAN's tag is beside
        self.far.bind(("far0", 3))

    def close(self):
        self.near.close()
        self.far.close()

    def passes(self, frame, *, bypass=False):
        """Say whether this frame came out at the far end; a last one ends the wait."""
        end = ethernet(0x0800, ip4("192.0.2.255", 6, DATA), bytes.fromhex("020000000009"))
        sender = self.near
        if bypass:
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sender.setsockopt(263, 20, 1)  # PACKET_QDISC_BYPASS
            sender.bind(("wan0", 0))
        for one in (frame, end):
            try:
                sender.send(one) if one is frame else self.near.send(one)
            except OSError:
                if one is end:
                    raise
        if bypass:
            sender.close()
        seen = 0
        self.far.settimeout(10)
        while True:
            data, control, _, _ = self.far.recvmsg(65536, 64)
            got = _untagged(data, control)
            if got == end:
                return seen == 1
            seen += got[: len(frame)] == frame


def _untagged(frame, control):
    """Put a tag that the kernel took off back into the frame (struct tpacket_auxdata)."""
    for level, kind, data in control:
        status = int.from_bytes(data[:4], "little")
        if (level, kind) == (263, 8) and status & 0x10:
            tci = int.from_bytes(data[16:18], "little")
            tpid = int.from_bytes(data[18:20], "little") if status & 0x40 else 0x8100
            return frame[:12] + tpid.to_bytes(2, "big") + tci.to_bytes(2, "big") + frame[12:]
    return frame


@pytest.fixture
def wire(namespace):
    made = Wire()
    yield made
    made.close()


@pytest.fixture
def table(namespace):
    made = adapter.NftExitTable()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def gate(namespace):
    """What the DNS gate learned stands in its own table."""
    nft(
        "table inet ecluse { set dns_all_4 { type ipv4_addr; flags timeout; timeout 1h; "
        "elements = { 203.0.113.77 }\n}\n"
        "set dns_all_6 { type ipv6_addr; flags timeout; timeout 1h; }\n}"
    )


def run(awaitable):
    return asyncio.run(awaitable)


@pytest.mark.parametrize("lock", [CUT, ISOLATE], ids=["cut", "isolate"])
def test_the_kernel_judges_frames_as_the_oracle_does(wire, table, lock):
    without = [name for name, frame in FRAMES.items() if not wire.passes(frame)]
    assert not without, "each is a road without the lock"
    run(table.apply(lock))
    wrong = {
        name: judge(lock, WAN, frame)
        for name, frame in FRAMES.items()
        if wire.passes(frame) != (judge(lock, WAN, frame) != "lost")
    }
    assert not wrong
    held = [name for name, frame in FRAMES.items() if judge(lock, WAN, frame) == "lost"]
    assert not [name for name in held if wire.passes(FRAMES[name], bypass=True)]
    assert len(held) > 50


def test_what_a_socket_says_counts_as_well_as_what_the_frame_has(wire, table):
    """PF_PACKET lets its user say one ethertype and write another."""
    frame = ethernet(0x0800, ip4(END4, 6, DATA))
    lie = ethernet(0x1234, ip4(END4, 6, DATA))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as liar:
        liar.bind(("wan0", 0x0800))
        wire.near.close()
        wire.near = liar
        assert wire.passes(frame)
        assert wire.passes(lie)
        run(table.apply(CUT))
        assert wire.passes(frame)
        assert not wire.passes(lie)
        assert judge(CUT, WAN, lie, 0x0800) == "lost"


def test_restated_under_load_it_loses_nothing_kept_and_lets_nothing_else_out(wire, table):
    kept, refused = (ethernet(0x0800, ip4(to, 6, DATA)) for to in (END4, "192.0.2.9"))
    assert wire.passes(refused)
    run(table.apply(CUT))
    wider = replace(CUT, ends4=CUT.ends4 | Ends(frozenset({0xCB007155})))
    sent, over = [0], threading.Event()
    got = {kept: 0, refused: 0}

    def send():
        while not over.is_set():
            for one in (kept, refused):
                try:
                    wire.near.send(one)
                except OSError:  # ENOBUFS: what the lock drops
                    assert one == refused
            sent[0] += 1
            time.sleep(0.0001)

    def receive():
        wire.far.settimeout(0.5)
        while True:
            try:
                data = wire.far.recv(4096)
            except TimeoutError:
                if over.is_set() and not sender.is_alive():
                    return
                continue
            got[data[:66]] = got.get(data[:66], 0) + 1

    sender, receiver = threading.Thread(target=send), threading.Thread(target=receive)
    sender.start()
    receiver.start()
    try:
        for turn in range(40):
            run(table.apply((CUT, wider)[turn % 2]))
    finally:
        over.set()
        sender.join()
        receiver.join()
    assert sent[0] > 100
    assert got[refused] == 0
    assert got[kept] == sent[0]
    counts = run(table.read_table(CUT)).counts[0]
    # They survive a restatement. A packet in its very moment may be counted by both hooks.
    assert sent[0] <= counts.kept4.packets <= sent[0] + 40
    assert sent[0] <= counts.lost.packets <= sent[0] + 40


def test_coming_and_going_under_load_loses_nothing_kept(wire, table):
    kept = ethernet(0x0800, ip4(END4, 6, DATA))
    sent, over = [0], threading.Event()

    def send():
        while not over.is_set():
            wire.near.send(kept)
            sent[0] += 1
            time.sleep(0.0001)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(20):
            run(table.apply(CUT))
            run(table.remove())
    finally:
        over.set()
        sender.join()
    wire.far.settimeout(0.5)
    got = 0
    with pytest.raises(TimeoutError):
        while True:
            got += wire.far.recv(4096)[: len(kept)] == kept
    assert got == sent[0] > 100


def test_what_it_dropped_is_told_with_addresses_or_ethertype(wire, table):
    run(table.apply(ISOLATE))
    for name in ("tcp4 other", "gre4 other", "tcp6 other", "mpls"):
        assert not wire.passes(FRAMES[name])
        assert not wire.passes(FRAMES[name])
    read = run(table.read_table(ISOLATE))
    assert set(read.dropped) == {
        DroppedRow("192.0.2.1", "192.0.2.9", 6, 443, packets=2),
        DroppedRow("192.0.2.1", "192.0.2.9", 47, 0, packets=2),
        DroppedRow("2001:db8:1::1", "2001:db8:aa::1", 6, 443, packets=2),
        DroppedRow(OURS.hex(":"), ethertype=0x8847, packets=2),
    }
    assert not read.full
    assert read.counts[0].lost.packets == 8
    now = run(table.read_counts(ISOLATE))
    assert (now.stands, now.counts, set(now.dropped)) == (True, read.counts, set(read.dropped))
    run(table.remove())
    assert not run(table.read_counts(ISOLATE)).stands


def test_a_full_set_hides_no_drop(wire, table):
    run(table.apply(ISOLATE))
    for port in range(exit_text.MOST_DROPPED + 20):
        with pytest.raises(OSError, match="No buffer space"):
            wire.near.send(ethernet(0x0800, ip4("192.0.2.9", 17, ports(9, port))))
    assert not wire.passes(FRAMES["tcp4 other"])
    read = run(table.read_table(ISOLATE))
    assert read.full
    assert len(read.dropped) == exit_text.MOST_DROPPED
    assert read.counts[0].lost.packets == exit_text.MOST_DROPPED + 21


def test_reading_says_what_is_not_as_meant(wire, table):
    assert run(table.read_table(None)) == adapter.ExitReading(stands=False)
    assert "no table" in run(table.read_table(CUT)).faults[0]
    run(table.apply(CUT))
    assert run(table.read_table(CUT)).faults == ()
    assert "none is meant" in run(table.read_table(None)).faults[0]
    assert "not known" in run(table.read_table(ISOLATE)).faults[-1]
    others = adapter.NftExitTable()
    assert "not known" in run(others.read_table(CUT)).faults[0]
    others.close()
    name = next(iter(exit_text.end_sets(CUT.ends4, "4")))
    for change in (
        f"add element netdev ecluse_exit {name} {{ 192.0.2.77 }}",
        "insert rule netdev ecluse_exit on.wan0 accept",
        "flush chain netdev ecluse_exit on.wan0",
        "flush chain netdev ecluse_exit lost.wan0",
    ):
        nft(change)
        assert run(table.read_table(CUT)).faults == ("somebody changed its rules or sets",)
        run(table.remove())
        run(table.apply(CUT))
        assert run(table.read_table(CUT)).faults == ()
    nft("add element netdev ecluse_exit learned4 { 192.0.2.77 }")
    assert run(table.read_table(CUT)).faults == (), "the DNS gate adds what it learns"
    nft("add chain netdev ecluse_exit more")
    assert run(table.read_table(CUT)).faults[0] == "chain more is not ours"
    run(table.remove())
    run(table.remove())
    assert not run(table.read_table(None)).stands


def handles(name):
    """Give the handles of a device's base chain and of its rules."""
    listed = subprocess.run(
        ["nft", "-a", "list", "chain", "netdev", "ecluse_exit", f"on.{name}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return re.findall(r"# handle (\d+)", listed.stdout)


def test_a_device_that_comes_or_goes_leaves_the_chains_of_others_alone(wire, table):
    late = ExitDevice("far0", (int.from_bytes(PEER, "big"),))
    two = replace(CUT, devices=(WAN, late))
    run(table.apply(CUT))
    before = handles("wan0")
    run(table.apply(two))
    assert handles("wan0") == before
    assert handles("far0")
    assert run(table.read_table(two)).faults == ()
    assert not wire.passes(FRAMES["tcp4 other"])
    other = replace(CUT, devices=(WAN, replace(late, macs=(9,))))
    was = handles("far0")
    run(table.apply(other))
    assert handles("wan0") == before
    assert handles("far0") != was, "another link-layer address: other rules"
    run(table.apply(CUT))
    assert handles("wan0") == before
    assert run(table.read_table(CUT)).faults == ()
    assert wire.passes(FRAMES["tcp4 single"])
    run(table.apply(CUT, whole=True))
    assert handles("wan0") != before
    nft("delete chain netdev ecluse_exit on.wan0")
    run(table.apply(CUT))
    assert handles("wan0"), "what is not there is no sound device"
    run(table.apply(ISOLATE))
    assert run(table.read_table(ISOLATE)).faults == ()
    assert not wire.passes(FRAMES["tcp4 single"]), "other ends: every device"


def test_what_somebody_changed_is_neither_taken_for_ours_nor_left(wire, table):
    refused = FRAMES["tcp4 other"]
    name = next(iter(exit_text.end_sets(CUT.ends4, "4")))
    late = ExitDevice("far0", (int.from_bytes(PEER, "big"),))
    two = replace(CUT, devices=(WAN, late))
    series = itertools.count(1)
    for change in (
        f"add element netdev ecluse_exit {name} {{ 192.0.2.9 }}",
        "insert rule netdev ecluse_exit on.wan0 accept",
        "flush chain netdev ecluse_exit lost.wan0",
    ):
        run(table.apply(CUT, whole=True))
        nft(change)
        assert wire.passes(refused)
        for lock in (two, CUT):  # a device comes and goes meanwhile
            run(table.apply(lock))
            assert run(table.read_table(lock)).faults == ("somebody changed its rules or sets",)
        number = next(series)
        anew = replace(
            CUT,
            ends4=replace(ENDS4, series=number),
            ends6=replace(ENDS6, series=number),
        )
        run(table.apply(anew, whole=True))
        assert run(table.read_table(anew)).faults == ()
        assert not wire.passes(refused)
        assert wire.passes(FRAMES["tcp4 single"])


def hangs_by_name():
    """Say whether a chain leaves its device when that is renamed (seen on 6.18)."""
    return tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 18)


def test_a_renamed_device_is_locked_again_by_a_restatement(wire, table):
    refused = FRAMES["tcp4 other"]
    run(table.apply(CUT))
    do("ip link set wan0 down", "ip link set wan0 name wan9")
    ip("link set wan9 up")
    assert handles("wan0"), "its chain is listed as before"
    passed = wire.passes(refused)
    do("ip link set wan9 down", "ip link set wan9 name wan0")
    ip("link set wan0 up")
    run(table.apply(CUT, whole=True))
    assert passed or not hangs_by_name(), "positive control"
    assert not wire.passes(refused)
    for before, name in (("wan0", "wan9"), ("wan9", "wan0")):
        do(f"ip link set {before} down", f"ip link set {before} name {name}")
        ip(f"link set {name} up")
        run(table.apply(replace(CUT, devices=(replace(WAN, name=name),))))
        assert not wire.passes(refused)
        assert wire.passes(FRAMES["tcp4 single"])
    assert "on.wan9" not in str(exit_text.names(CUT).chains)


def test_devices_are_read_with_what_their_frames_carry(namespace):
    ip("link add wan0 address 02:00:00:00:00:01 type veth peer name care0")
    ip("link add br0 address 02:00:00:00:00:02 type bridge")
    ip("link set wan0 master br0")
    ip("link add mac0 link care0 address 02:00:00:00:00:03 type macvlan")
    with NetlinkSocket(NETLINK_ROUTE) as route:
        host = read_links(route)
    found = {one.name: one for one in exit_devices(Policy(w.SITE, ()), host)}
    assert {"wan0", "br0", "mac0"} <= set(found)
    assert not {"lo", "care0"} & set(found)
    assert found["wan0"].macs == (0x020000000001, 0x020000000002)
    assert found["mac0"].macs == (0x020000000003,)


@pytest.fixture
def boot(namespace, tmp_path):
    """systemd/boot.sh over a state directory with a whole `boot.nft`; give what it says."""
    text = (Path(__file__).parents[3] / "systemd" / "boot.sh").read_text()
    assert text.count("/dev/kmsg") == 1
    (tmp_path / "boot.sh").write_text(text.replace("/dev/kmsg", "/dev/null"))
    gate = "table inet ecluse {\n\tchain forward {\n\t}\n}\n"
    durable(tmp_path / "boot.nft", gate)

    def run(lock):
        if lock is not None:
            (tmp_path / "boot-lock.nft").write_text(lock)
        nft("flush ruleset")
        done = subprocess.run(
            ["/bin/sh", tmp_path / "boot.sh"],
            env={
                "PATH": "/usr/sbin:/usr/bin",
                "ECLUSE_STATE_DIR": str(tmp_path),
                "ECLUSE_DNS_STATE_DIR": str(tmp_path),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        tables = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=True
        ).stdout
        assert "table inet ecluse" in tables, "whatever the second lock meets, the gate stands"
        return "netdev ecluse_exit" in tables, done.stderr

    return run


def durable(path, text):
    """Write a file as `state/store.py` does: the last line is the checksum of all before it."""
    path.write_text(sealed(text))


def sealed(text):
    return f"{text}# sha256: {hashlib.sha256(text.encode()).hexdigest()}\n"


def test_at_boot_it_is_loaded_whole_or_not_at_all_and_the_gate_stands_in_any_case(boot):
    text = sealed(exit_text.boot_text(ISOLATE))
    assert boot(None) == (False, "")
    assert boot(text) == (True, "")
    stands, said = boot(text[: len(text) // 2])
    assert not stands
    assert "is not what was written" in said
    stands, said = boot(sealed(exit_text.boot_text(ISOLATE) + "add chain netdev nowhere c\n"))
    assert not stands
    assert "refused by the kernel" in said
    assert "the recorded gate stands" in said


def test_at_boot_it_lets_out_what_the_dns_gate_had_learned(boot, tmp_path):
    line = "add element inet ecluse dns_all_{} {{ {} expires 1800s }}\n".format
    wrong = "add element netdev ecluse_exit learned4 { 192.0.2.66 }\n"
    (tmp_path / "learned.nft").write_text(
        line(4, "203.0.113.9") * 2 + line(6, "2001:db8::9") + line(4, "192.0.2.67;") + wrong
    )
    stands, _ = boot(sealed(exit_text.boot_text(replace(CUT, ends4=Ends(), ends6=Ends()))))
    assert stands
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        there = {str(one) for one in learned_here(netlink)}
    assert there == {"203.0.113.9", "2001:db8::9"}
