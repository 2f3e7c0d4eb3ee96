"""The port `Conntrack`: reads and deletes entries of the connection table, by our netlink socket.

pyroute2 takes 37 s for a dump of 50,000 entries; this takes 10 µs of processor time for an entry.
Source: linux/netfilter/nfnetlink_conntrack.h.
"""

import asyncio
import errno
import gc
import os
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TypeVar

from ecluse.errors import KernelError
from ecluse.flow_judge import ConntrackEntry, Tuple
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NESTED,
    NetlinkSocket,
    attribute,
    attribute_map,
    kernel_errors,
    netfilter_header,
    netfilter_kind,
    number,
)
from ecluse.lenient_rows import parse_rows
from ecluse.ruleset.table_names import SPOOFED

NFNL_SUBSYS_CTNETLINK = 1
CT_GET, CT_DELETE = 1, 2
CTA_STATUS, IPS_SEEN_REPLY = 3, 1 << 1
IPS_OFFLOADED = 1 << 14 | 1 << 15
"""IPS_OFFLOAD, IPS_HW_OFFLOAD: a flowtable forwards it (linux/netfilter/nf_conntrack_common.h)."""
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_COUNTERS_ORIG, CTA_COUNTERS_REPLY, CTA_ID, CTA_ZONE = (
    1,
    2,
    9,
    10,
    12,
    18,
)
CTA_LABELS = 22
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_COUNTERS_PACKETS, CTA_COUNTERS_BYTES = 1, 2
HANDLE = (CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID)  # what a delete has to send back

# TCP, UDP, DCCP, SCTP, UDP-Lite (IANA). GRE's keys come in the same attributes and are no ports.
WITH_PORTS = frozenset({6, 17, 33, 132, 136})
ACCOUNTING = Path("/proc/sys/net/netfilter/nf_conntrack_acct")
# Deletes a datagram: about 50 KiB, and the worst case (an error for each) fits the receive buffer.
BATCH = 400

T = TypeVar("T")
Addresses = dict[bytes, IPv4Address | IPv6Address]
Fields = tuple[int, bytes, bytes, int, int]


def _layout(width: int, source: int, destination: int) -> tuple[struct.Struct, tuple[bytes, ...]]:
    """Describe the bytes of a tuple with ports, as ctnetlink_dump_tuples writes it.

    Gives the layout, and the attributes' headers that stand in it.

    Args:
        width: bytes of an address.
        source, destination: the attributes that hold the addresses.
    """
    header = struct.Struct("=HH").pack
    return struct.Struct(f"!8s{width}s4s{width}s8sB3x4sH2x4sH2x"), (
        header(12 + 2 * width, NLA_F_NESTED | CTA_TUPLE_IP) + header(4 + width, source),
        header(4 + width, destination),
        header(28, NLA_F_NESTED | CTA_TUPLE_PROTO) + header(5, CTA_PROTO_NUM),
        header(6, CTA_PROTO_SRC_PORT),
        header(6, CTA_PROTO_DST_PORT),
    )


LAYOUTS = (_layout(4, CTA_IP_V4_SRC, CTA_IP_V4_DST), _layout(16, CTA_IP_V6_SRC, CTA_IP_V6_DST))


class NfConntrack:
    """The connection table of the network namespace that the process lives in.

    Works on one thread of its own, in small steps, so that the event loop stays alive beside it.
    """

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="conntrack")
        self.unread = 0

    def close(self) -> None:
        """End the thread; waits for a running dump or purge."""
        self._worker.shutdown()

    async def connections(self) -> Sequence[ConntrackEntry]:
        """Read the whole table, both families. KernelError when the kernel refuses."""
        with kernel_errors("read the connection table", hint="modprobe nf_conntrack_netlink"):
            found, self.unread = await self._run(read_entries)
        return found

    async def end(self, connections: Iterable[ConntrackEntry]) -> int:
        """Delete these entries; give how many were still there. One that is gone is no error.

        Raises:
            KernelError: some could not be deleted; all were tried.
        """
        handles = [connection.handle for connection in connections]
        with kernel_errors("end connections"):
            ended, failed = await self._run(lambda: _delete_entries(handles))
        if failed:
            reasons = ", ".join(
                f"{count}: {os.strerror(code)}" for code, count in failed.most_common(3)
            )
            raise KernelError(
                f"{failed.total()} of {len(handles)} connections could not be ended ({reasons}); "
                f"{ended} were ended. Their packets are judged by the rules all the same",
                retry=True,
            )
        return ended

    async def enable_accounting(self) -> bool:
        """Let connections made from now on count packets and bytes; False: not possible."""
        return await self._run(_enable_accounting)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def _enable_accounting() -> bool:
    """Under systemd it is on already (ecluse.service), and /proc/sys is read-only to us."""
    try:
        if ACCOUNTING.read_text(encoding="ascii").strip() != "1":
            ACCOUNTING.write_text("1\n", encoding="ascii")
        return ACCOUNTING.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False


def read_entries() -> tuple[list[ConntrackEntry], int]:
    """Give the entries, and how many could not be read: an unknown one hides no other."""
    kind = netfilter_kind(NFNL_SUBSYS_CTNETLINK, CT_GET)
    addresses: Addresses = {}
    with NetlinkSocket(NETLINK_NETFILTER) as netlink, _no_full_collection():
        # Each read of the socket (about 100 entries) releases the interpreter, so that the event
        # loop gets its turn.
        return parse_rows(
            netlink.dump(kind, netfilter_header(0)), lambda body: parse_entry(body, addresses)
        )


def end_offloaded() -> int:
    """Delete every entry that a flowtable forwards, kept or not; give how many went.

    The kernel drops such a flow within a second. What is kept begins again by the chains. OSError
    when the kernel refuses, if only for one.
    """
    kind = netfilter_kind(NFNL_SUBSYS_CTNETLINK, CT_GET)
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        handles = [
            _handle(body, found)
            for body in netlink.dump(kind, netfilter_header(0))
            for found in (attribute_map(body, 4),)
            if number(found.get(CTA_STATUS, b"")) & IPS_OFFLOADED
        ]
    ended, failed = _delete_entries(handles)
    if failed:
        code = failed.most_common(1)[0][0]
        raise OSError(code, os.strerror(code))
    return ended


def _handle(body: bytes, found: dict[int, bytes]) -> bytes:
    """Give what a delete of this entry has to send back."""
    return body[:4] + b"".join([attribute(kind, found[kind]) for kind in HANDLE if kind in found])


@contextmanager
def _no_full_collection() -> Iterator[None]:
    """Keep the garbage collector from walking all entries while their list grows.

    They have no cycles. At 200,000 entries that was half of the time, in pauses of 0.3 s that
    stopped the event loop, too.
    """
    before = gc.get_threshold()
    gc.set_threshold(before[0], before[1], 1 << 30)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def parse_entry(body: bytes, known: Addresses) -> ConntrackEntry:
    """Read one entry.

    Args:
        body: struct nfgenmsg (its first byte the family), then CTA_* attributes.
        known: address objects made before, by their bytes; entries share them.
    """
    found = attribute_map(body, 4)
    protocol, original = _tuple(found[CTA_TUPLE_ORIG], known)
    _, reply = _tuple(found[CTA_TUPLE_REPLY], known)
    packets = octets = 0
    for direction in (CTA_COUNTERS_ORIG, CTA_COUNTERS_REPLY):
        if direction in found:
            counted = attribute_map(found[direction])
            packets += number(counted[CTA_COUNTERS_PACKETS])
            octets += number(counted[CTA_COUNTERS_BYTES])
    answered = CTA_STATUS not in found or bool(number(found[CTA_STATUS]) & IPS_SEEN_REPLY)
    return ConntrackEntry(
        protocol,
        original,
        reply,
        packets=packets,
        bytes=octets,
        handle=_handle(body, found),
        answered=answered,
        spoofed=CTA_LABELS in found and _has_label(found[CTA_LABELS], SPOOFED),
    )


def _has_label(labels: bytes, bit: int) -> bool:
    """Say whether a connection has a label.

    labels: 128 bits as `unsigned long`s in host byte order (struct nf_conn_labels).
    """
    return bool(int.from_bytes(labels, sys.byteorder) >> bit & 1)


def _tuple(data: bytes, known: Addresses) -> tuple[int, Tuple]:
    """Read one direction: its protocol, its addresses and ports."""
    protocol, source, destination, source_port, destination_port = _tuple_by_layout(
        data
    ) or _tuple_by_attributes(data)
    if source not in known:
        known[source] = _address(source)
    if destination not in known:
        known[destination] = _address(destination)
    return protocol, Tuple(known[source], known[destination], source_port, destination_port)


def _tuple_by_layout(data: bytes) -> Fields | None:
    """Read a tuple with ports by its layout, in a third of the time that its attributes take.

    None where anything in it is unusual.
    """
    for layout, headers in LAYOUTS:
        if layout.size == len(data):
            # Each value stands behind the header of its attribute.
            found = layout.unpack(data)
            source, destination, protocol, source_port, destination_port = found[1::2]
            if found[::2] == headers and protocol in WITH_PORTS:
                return protocol, source, destination, source_port, destination_port
    return None


def _tuple_by_attributes(data: bytes) -> Fields:
    """Read any tuple."""
    parts = attribute_map(data)
    addresses, layer4 = attribute_map(parts[CTA_TUPLE_IP]), attribute_map(parts[CTA_TUPLE_PROTO])
    protocol = layer4[CTA_PROTO_NUM][0]
    source_port = destination_port = 0
    if protocol in WITH_PORTS:
        source_port = number(layer4[CTA_PROTO_SRC_PORT])
        destination_port = number(layer4[CTA_PROTO_DST_PORT])
    return (
        protocol,
        addresses.get(CTA_IP_V4_SRC) or addresses[CTA_IP_V6_SRC],
        addresses.get(CTA_IP_V4_DST) or addresses[CTA_IP_V6_DST],
        source_port,
        destination_port,
    )


def _address(packed: bytes) -> IPv4Address | IPv6Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _delete_entries(handles: Sequence[bytes]) -> tuple[int, Counter[int]]:
    """Delete by handle, in batches; give how many went, and the errors by errno.

    An entry that is already gone is no error.
    """
    kind = netfilter_kind(NFNL_SUBSYS_CTNETLINK, CT_DELETE)
    failed: Counter[int] = Counter()
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        for some in _batches(handles, BATCH):
            failed.update(netlink.batch(kind, 0, some))
    ended = len(handles) - failed.total()
    del failed[errno.ENOENT]
    return ended, failed


def _batches(handles: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(handles), size):
        yield handles[start : start + size]
