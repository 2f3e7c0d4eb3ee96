"""Roads past the gate that end at the second lock, each open without it; and what a link needs."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from ecluse.kernel.exit_table import NftExitTable
from ecluse.policy import Preset
from ecluse.ruleset.exit_values import Ends, ExitDevice, ExitLock
from tests.kernel.adapters.conftest import do, ip, nft
from tests.kernel.adapters.test_exit_table import CUT, END4, Wire
from tests.unit.ruleset.exit_frames import OURS, PEER, ethernet, ip4, ports

pytestmark = pytest.mark.kernel

FRAME = ethernet(0x0800, ip4("192.0.2.9", 17, ports(9, 9)), source=PEER, to=b"\x02\0\0\0\0\xfd")
TO_KEPT = ethernet(0x0800, ip4(END4, 17, ports(9, 9)), source=PEER, to=b"\x02\0\0\0\0\xfd")
SEND = (
    "import socket,sys\n"
    "s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,0)\n"
    "s.bind((sys.argv[1],0))\n"
    "[s.send(bytes.fromhex(one)) for one in sys.argv[2:]]"
)


class Apart:
    """A network namespace that ends with its one process."""

    def __enter__(self):
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "600"])
        until = time.monotonic() + 30
        while os.readlink(f"/proc/{self.process.pid}/ns/net") == os.readlink(
            "/proc/thread-self/ns/net"
        ):
            assert time.monotonic() < until
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def run(self, *argv, check=True):
        inside = ["nsenter", "-t", str(self.process.pid), "-n", *argv]
        return subprocess.run(inside, check=check, capture_output=True, text=True)


@pytest.fixture
def apart(namespace):
    with Apart() as made:
        yield made


@pytest.fixture
def wire(namespace):
    made = Wire()
    yield made
    made.close()


@pytest.fixture
def table(namespace):
    made = NftExitTable()
    yield made
    made.close()


def inside():
    """Make a link of the inside: what goes in at in0 comes in by in1."""
    ip("link add in0 type veth peer name in1")
    for one in ("in0", "in1"):
        do(f"sysctl -qw net.ipv6.conf.{one}.disable_ipv6=1")
        ip(f"link set {one} arp off up")


def from_here(link):
    return lambda *frames: subprocess.run(
        [sys.executable, "-c", SEND, link, *(one.hex() for one in frames)], check=False
    )


def macvlan(apart):
    ip("link add mv0 link wan0 type macvlan mode bridge")
    ip(f"link set mv0 netns {apart.process.pid}")
    apart.run("ip", "link", "set", "mv0", "address", PEER.hex(":"), "up")
    return lambda *frames: apart.run(
        sys.executable, "-c", SEND, "mv0", *(one.hex() for one in frames), check=False
    )


def bridge(_):
    inside()
    ip("link add br0 type bridge forward_delay 0")
    do(
        "sysctl -qw net.ipv6.conf.br0.disable_ipv6=1",
        "sysctl -qew net.bridge.bridge-nf-call-iptables=0",  # it drops our empty checksums
    )
    for words in ("in1 master br0", "wan0 master br0", "br0 up"):
        ip(f"link set {words}")
    time.sleep(0.1)
    return from_here("in0")


def forwarded(statement):
    def road(_):
        inside()
        nft(
            'table netdev other { chain c { type filter hook ingress device "in1" priority 0\n'
            f'{statement} to "wan0"\n }}\n}}'
        )
        return from_here("in0")

    return road


def packet_socket(_):
    return from_here("wan0")


ROADS = {
    "macvlan": macvlan,
    "bridge": bridge,
    "fwd": forwarded("fwd"),
    "dup": forwarded("dup"),
    "packet socket": packet_socket,
}


@pytest.mark.parametrize("road", ROADS)
def test_a_road_is_open_without_the_lock_and_held_with_it(wire, table, apart, road):
    send = ROADS[road](apart)

    def came_out():
        send(FRAME, TO_KEPT)
        wire.far.settimeout(0.5)
        seen = set()
        while True:
            try:
                seen.add(wire.far.recv(4096)[: len(FRAME)])
            except TimeoutError:
                return {FRAME, TO_KEPT} & seen

    assert came_out() == {FRAME, TO_KEPT}
    asyncio.run(table.apply(replace(CUT, learns=False)))
    assert not came_out(), "nor to a kept address, by another's link-layer address"
    asyncio.run(table.remove())
    assert came_out() == {FRAME, TO_KEPT}


def test_a_kept_partner_is_talked_to_with_neighbours_forgotten(table, apart):
    """Real ARP, neighbour discovery, TCP, and datagrams of 4 kB in fragments; others get none."""
    ip(f"link add wan0 address {OURS.hex(':')} type veth peer name far0")
    ip(f"link set far0 netns {apart.process.pid}")
    ip("link set wan0 up")
    for one in ("192.0.2.1/24", "2001:db8:1::1/64"):
        ip(f"addr add {one} dev wan0{' nodad' if ':' in one else ''}")
    far = ("192.0.2.9/24", "192.0.2.10/24", "2001:db8:1::9/64", "2001:db8:1::10/64")
    for one in far:
        apart.run("ip", "addr", "add", one, "dev", "far0", *(["nodad"] if ":" in one else []))
    apart.run("ip", "link", "set", "far0", "up")
    lock = ExitLock(
        (ExitDevice("wan0", (int.from_bytes(OURS, "big"),)),),
        Ends(frozenset({0xC0000209})),
        Ends(frozenset({(0x20010DB80001 << 80) | 9})),
        frozenset({Preset.ND}),
    )

    def pings(to, size):
        ip("neigh flush dev wan0")
        words = ["ping", "-c", "1", "-W", "3", "-s", str(size), to]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    kept, others = ("192.0.2.9", "2001:db8:1::9"), ("192.0.2.10", "2001:db8:1::10")
    assert all(pings(to, 4000) for to in (*kept, *others))
    asyncio.run(table.apply(lock))
    assert all(pings(to, size) for to in kept for size in (56, 4000))
    assert not any(pings(to, 56) for to in others)
    for to in kept:
        with socket.create_server(("", 0)) as _, pytest.raises(ConnectionRefusedError):
            ip("neigh flush dev wan0")
            socket.create_connection((to, 9), timeout=10)
    asyncio.run(table.remove())
    assert all(pings(to, 56) for to in others)
