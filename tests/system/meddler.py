"""Somebody else on the gateway who changes nf_tables by raw netlink.

Run it in the gateway's namespace (`python -m`).

It calls itself `meddler`, as the kernel then tells. What it does: the first argument, with its own
arguments.
"""

import contextlib
import sys
import time
from pathlib import Path

from ecluse.kernel import bulk_elements
from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    netfilter_header,
    netfilter_kind,
    text_attribute,
)
from ecluse.kernel.nft_messages import TABLE
from ecluse.ruleset.program import NamedSet

DELTABLE, NEWCHAIN, CREATE = 2, 3, 0x400


def inet(message: int, flags: int, body: bytes) -> tuple[int, int, bytes]:
    kind = netfilter_kind(nf.NFNL_SUBSYS_NFTABLES, message)
    return kind, flags, netfilter_header(nf.NFPROTO_INET) + body


def element(netlink: NetlinkSocket, name: str, address: str, port: str, counter: str) -> None:
    """Put an address, TCP port into a map of exact IPv4 addresses."""
    number = int.from_bytes(bytes(map(int, address.split("."))), "big")
    key = ((number, number), (int(port), int(port)), (6, 6))
    types = ("ipv4_addr", "inet_service", "inet_proto")
    named = NamedSet(name, types, interval=False, value="counter", elements={key: counter})
    netlink.transaction(nf.NFNL_SUBSYS_NFTABLES, bulk_elements.element_requests([], [named]))


def name(netlink: NetlinkSocket) -> None:
    """Make a chain whose name no text of nft can hold."""
    body = text_attribute(1, TABLE) + text_attribute(3, "x { } ; flush ruleset\n")
    netlink.transaction(nf.NFNL_SUBSYS_NFTABLES, [inet(NEWCHAIN, CREATE, body)])


def fight(netlink: NetlinkSocket, seconds: str, period: str) -> None:
    """Delete the table over and over; print how often it was there."""
    found = 0
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            netlink.transaction(
                nf.NFNL_SUBSYS_NFTABLES,
                [inet(DELTABLE, 0, text_attribute(1, TABLE))],
            )
            found += 1
        time.sleep(float(period))
    print(found, flush=True)


if __name__ == "__main__":
    Path("/proc/self/comm").write_text("meddler")
    with NetlinkSocket(NETLINK_NETFILTER) as opened:
        globals()[sys.argv[1]](opened, *sys.argv[2:])
