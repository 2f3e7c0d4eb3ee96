"""NfConntrack: what is in the table is what is read, and what is ended is gone."""

import contextlib
import socket
import struct
import time
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.errors import KernelError
from ecluse.flow_judge import ConntrackEntry, Tuple
from ecluse.kernel import conntrack as adapter
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    attribute,
    netfilter_header,
    netfilter_kind,
)
from ecluse.lenient_rows import parse_rows
from tests.kernel.adapters.conftest import Heart, nft, run

pytestmark = pytest.mark.kernel

TRACKING = (
    "table inet other { chain o { type filter hook output priority 0; \n ct state new accept\n }\n}"
)
CT_NEW, NLM_F_CREATE = 0, 0x400


def synthetic(number, protocol=17, zone=None):
    """Build the body of a message that makes an entry; its source address tells its number."""
    layer4 = attribute(1, bytes([protocol]))
    there = layer4 + attribute(2, struct.pack("!H", 40000)) + attribute(3, struct.pack("!H", 443))
    back = layer4 + attribute(2, struct.pack("!H", 443)) + attribute(3, struct.pack("!H", 40000))
    if number % 2:
        family, inner, outer = 2, IPv4Address("10.0.0.0") + number, IPv4Address("203.0.113.10")
        kinds = 1, 2
    else:
        family, inner, outer = 10, IPv6Address("2001:db8::") + number, IPv6Address("2001:db8:f::10")
        kinds = 3, 4

    def one(kind, source, destination, ports):
        addresses = attribute(kinds[0], source.packed) + attribute(kinds[1], destination.packed)
        return attribute(kind | 0x8000, attribute(0x8001, addresses) + attribute(0x8002, ports))

    return (
        netfilter_header(family)
        + one(1, inner, outer, there)
        + one(2, outer, inner, back)
        + attribute(7, struct.pack("!I", 3600))
        + (attribute(18, struct.pack("!H", zone)) if zone is not None else b"")
    )


def fill(numbers, zone=None):
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        bodies = [synthetic(number, zone=zone) for number in numbers]
        for start in range(0, len(bodies), 300):
            kind = netfilter_kind(1, CT_NEW)
            assert netlink.batch(kind, NLM_F_CREATE, bodies[start : start + 300]) == []


def conversation(address, kind):
    """Say something and have it answered, over the loopback."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(family, kind))
        server.bind((address, 0))
        client = stack.enter_context(socket.socket(family, kind))
        client.bind(("2001:db8::5" if ":" in address else "10.10.0.5", 0))
        if kind == socket.SOCK_STREAM:
            server.listen()
            client.connect(server.getsockname())
            peer = stack.enter_context(server.accept()[0])
            client.sendall(b"hello")
            peer.sendall(peer.recv(9))
            client.recv(9)
        else:
            client.sendto(b"hello", server.getsockname())
            server.sendto(*server.recvfrom(9))
            client.recv(9)
        return client.getsockname()[1], server.getsockname()[1]


async def test_real_flows_are_read_in_both_families(conntrack):
    assert await conntrack.enable_accounting()
    nft(TRACKING)
    expected = set()
    for address, inner in (("203.0.113.10", "10.10.0.5"), ("2001:db8::10", "2001:db8::5")):
        for protocol, kind in ((6, socket.SOCK_STREAM), (17, socket.SOCK_DGRAM)):
            ports = conversation(address, kind)
            expected.add((protocol, inner, address, *ports))
    found = {
        (
            c.protocol,
            str(c.original.source),
            str(c.original.destination),
            c.original.source_port,
            c.original.destination_port,
        ): c
        for c in await conntrack.connections()
    }
    assert set(found) >= expected
    for key in expected:
        one = found[key]
        assert one.reply == Tuple(
            one.original.destination,
            one.original.source,
            one.original.destination_port,
            one.original.source_port,
        )
        assert one.packets >= 2
        if key[0] == 17:
            assert (one.packets, one.bytes) == (2, 2 * (5 + 8 + (40 if ":" in key[1] else 20)))


async def test_whether_the_other_end_has_answered_is_read(conntrack):
    nft(TRACKING)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        server.bind(("203.0.113.10", 0))
        client.connect(server.getsockname())
        client.send(b"hello")
        port = server.getsockname()[1]

        async def answered():
            found = await conntrack.connections()
            return [one.answered for one in found if one.original.destination_port == port]

        assert await answered() == [False]
        server.sendto(*server.recvfrom(9))
        assert await answered() == [True]


async def test_without_accounting_entries_count_nothing(conntrack):
    run("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=0")
    nft(TRACKING)
    conversation("203.0.113.10", socket.SOCK_DGRAM)
    assert {(c.packets, c.bytes) for c in await conntrack.connections()} == {(0, 0)}


async def test_a_protocol_without_ports_has_ports_zero(conntrack):
    nft(TRACKING)
    run("ping", "-c1", "-W2", "-I", "10.10.0.5", "203.0.113.10")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 47) as raw:
        raw.bind(("10.10.0.5", 0))
        raw.sendto(
            b"\x20\x00\x08\x00\x00\x00\x00\x07", ("203.0.113.10", 0)
        )  # GRE with a key, RFC 2890
    found = {c.protocol: c for c in await conntrack.connections() if c.protocol in {1, 47}}
    assert set(found) == {1, 47}
    expected = Tuple(ip_address("10.10.0.5"), ip_address("203.0.113.10"), 0, 0)
    assert {c.original for c in found.values()} == {expected}
    assert await conntrack.end(found.values()) == 2


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("protocol", "ports"), [(6, (40000, 443)), (132, (40000, 443)), (47, (0, 0)), (50, (0, 0))]
)
def test_the_short_way_through_a_tuple_reads_what_the_long_way_reads(
    number, protocol, ports, monkeypatch
):
    body = synthetic(number, protocol)  # GRE's keys stand where others have ports
    short = adapter.parse_entry(body, {})
    assert (short.protocol, short.original.source_port, short.original.destination_port) == (
        protocol,
        *ports,
    )
    assert (short.reply.source, short.reply.destination) == (
        short.original.destination,
        short.original.source,
    )
    assert (adapter._tuple_by_layout(adapter.attribute_map(body, 4)[1]) is not None) == (
        protocol in {6, 132}
    )
    monkeypatch.setattr(adapter, "_tuple_by_layout", lambda _: None)
    assert adapter.parse_entry(body, {}) == short


async def test_nat_shows_in_the_reply(conntrack):
    nft(
        "table inet other { chain n { type nat hook output priority -100; \n"
        " ip daddr 192.0.2.1 dnat ip to 203.0.113.10\n }\n}"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("192.0.2.1", 53)) if run(
            "ip", "route", "add", "192.0.2.0/24", "dev", "lo"
        ) else None
    (one,) = [
        c for c in await conntrack.connections() if str(c.original.destination) == "192.0.2.1"
    ]
    assert str(one.reply.source) == "203.0.113.10"


async def test_ending_ends_just_those(conntrack):
    fill(range(1, 21))
    found = await conntrack.connections()
    assert len(found) == 20
    ended = found[:7]
    assert await conntrack.end(ended) == 7
    left = await conntrack.connections()
    assert {c.handle for c in left} == {c.handle for c in found[7:]}
    assert await conntrack.end(ended) == 0  # already gone is no error
    assert await conntrack.end(found) == 13
    assert await conntrack.end([]) == 0


async def test_what_a_flowtable_forwards_is_ended_by_its_status_alone(conntrack, monkeypatch):
    """The kernel lets nobody set that bit, so one of another meaning stands for it
    (tests/vm/test_flowtable.py has the flows).
    """
    fill(range(1, 6))
    assert adapter.end_offloaded() == 0
    assert len(await conntrack.connections()) == 5
    monkeypatch.setattr(adapter, "IPS_OFFLOADED", 1 << 3)  # IPS_CONFIRMED
    with monkeypatch.context() as refused:
        refused.setattr(adapter, "CT_DELETE", 200)  # no message that the kernel knows
        with pytest.raises(OSError, match="Invalid argument"):
            adapter.end_offloaded()
    assert len(await conntrack.connections()) == 5
    assert adapter.end_offloaded() == 5
    assert not await conntrack.connections()


async def test_a_new_connection_with_the_same_addresses_is_left_alone(conntrack):
    fill([1])
    old = await conntrack.connections()
    assert await conntrack.end(old) == 1
    fill([3])  # takes the old entry's place in memory, of which the kernel makes the id
    fill([1])
    new = await conntrack.connections()
    assert old[0].original in {c.original for c in new}
    assert await conntrack.end(old) == 0
    assert {c.handle for c in await conntrack.connections()} == {c.handle for c in new}


async def test_zones_are_told_apart(conntrack):
    fill([1], zone=7)
    fill([1])
    found = await conntrack.connections()
    assert len(found) == 2
    assert len({c.handle for c in found}) == 2
    in_zone = next(c for c in found if attribute(18, struct.pack("!H", 7)) in c.handle)
    assert await conntrack.end([in_zone]) == 1
    assert [c.handle for c in await conntrack.connections()] == [
        c.handle for c in found if c != in_zone
    ]


async def test_twenty_thousand_are_read_and_ended_while_the_loop_lives(conntrack):
    fill(range(20_000))
    async with Heart(time.monotonic) as heart:
        found = await conntrack.connections()
        odd = [c for c in found if c.original.source.version == 4]
        assert await conntrack.end(odd) == 10_000
        assert await conntrack.end(found) == 10_000
    assert {int(c.original.source) & 0xFFFFFF for c in odd} == set(range(1, 20_000, 2))
    assert len({c.original.source for c in found}) == len(found) == 20_000
    assert await conntrack.connections() == []
    assert heart.beats > 20
    assert heart.longest < 0.5


async def test_a_refused_delete_is_said_and_the_others_are_done(conntrack):
    fill(range(10))
    found = list(await conntrack.connections())
    nonsense = ConntrackEntry(
        17, found[0].original, found[0].reply, handle=netfilter_header(2) + attribute(1, b"junk")
    )
    with pytest.raises(
        KernelError, match=r"1 of 11 connections could not be ended \(1: .*10 were ended"
    ):
        await conntrack.end([nonsense, *found])
    assert await conntrack.connections() == []


async def test_accounting_that_cannot_be_turned_on_is_no_error(conntrack, monkeypatch, tmp_path):
    monkeypatch.setattr("ecluse.kernel.conntrack.ACCOUNTING", tmp_path / "nowhere" / "acct")
    assert await conntrack.enable_accounting() is False


async def test_an_entry_that_cannot_be_read_hides_no_other(conntrack, monkeypatch):
    """RED before: one entry of another kind made the whole reading fail, and with it the end of
    what is not kept.
    """
    fill(range(1, 5))
    strange = netfilter_header(2) + attribute(adapter.CTA_TUPLE_ORIG, b"")
    dump = NetlinkSocket.dump

    def with_a_strange_one(self, kind, body):
        yield strange
        yield from dump(self, kind, body)
        yield netfilter_header(10)

    monkeypatch.setattr(NetlinkSocket, "dump", with_a_strange_one)
    found = await conntrack.connections()
    assert len([one for one in found if one.original.destination_port == 443]) == 4
    assert conntrack.unread == 2
    monkeypatch.undo()
    await conntrack.connections()
    assert conntrack.unread == 0


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=60) | st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=5
    )
)
def test_an_entry_of_any_bytes_is_a_connection_or_is_counted(rows):
    sound = synthetic(3)

    def altered(at, value):
        return sound[: at % len(sound)] + bytes([value]) + sound[at % len(sound) + 1 :]

    every = [one if isinstance(one, bytes) else altered(*one) for one in rows]
    known = {}
    found, bad = parse_rows([*every, sound], lambda body: adapter.parse_entry(body, known))
    assert len(found) + bad == len(rows) + 1
    assert found[-1].original.source == ip_address("10.0.0.3")
