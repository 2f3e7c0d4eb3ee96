"""Builds elements of large maps as netlink messages.

At 100,000 entries libnftables takes longer for them than all the rest of a start takes. Only maps
to counters go this way, whose keys are joined addresses, ports and protocols. Tables, chains, rules
and all other sets stay libnftables' (docs/datapath.md), but for the switch (`switch_commit`).
"""

import errno
import struct
from collections.abc import Iterable, Iterator, Mapping

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import NLA_F_NESTED, NLM_F_CREATE, Request, text_attribute
from ecluse.kernel.nft_messages import elements_request
from ecluse.ruleset.program import Interval, Key, NamedSet

WIDTHS: Mapping[str, int] = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_service": 2, "inet_proto": 1}
"""Bytes of a field; a joined key fills each up to a multiple of four (nft(8), concatenations)."""

LARGEST_LIST = 60_000
"""Bytes of elements in one message: an attribute's length has 16 bits."""

_LENGTH = struct.Struct("=HH")


def element_requests(gone: Iterable[NamedSet], come: Iterable[NamedSet]) -> list[Request]:
    """Give the messages that take the elements of `gone` out and put those of `come` in."""
    deleted = [request for named in gone for request in _requests(named, nf.NFT_MSG_DELSETELEM, 0)]
    return deleted + [
        request
        for named in come
        for request in _requests(named, nf.NFT_MSG_NEWSETELEM, NLM_F_CREATE)
    ]


def _requests(named: NamedSet, message: int, flags: int) -> Iterator[Request]:
    """Put the elements into as few messages as they fit."""
    waiting: list[bytes] = []
    size = 0
    for element in _elements(named, with_value=message == nf.NFT_MSG_NEWSETELEM):
        waiting.append(element)
        size += len(element)
        if size > LARGEST_LIST:
            yield elements_request(message, flags, named.name, b"".join(waiting))
            waiting, size = [], 0
    if waiting:
        yield elements_request(message, flags, named.name, b"".join(waiting))


def _elements(named: NamedSet, *, with_value: bool) -> Iterator[bytes]:
    """Encode each element as NFTA_LIST_ELEM.

    The hot loop of a load, so it packs by hand. Keys differ mostly in the address: all that stands
    behind it (ports, protocol, the counter's name) is made once for many elements, and so is the
    header for each length.
    """
    widths = [WIDTHS[kind] for kind in named.types]
    first = widths[0]  # the address, a multiple of four bytes
    tails: dict[tuple[Key, str], tuple[bytes, bytes]] = {}
    length = 4 + 4 + sum((width + 3) & ~3 for width in widths)
    begin = _LENGTH.pack(length, nf.NFTA_SET_ELEM_KEY | NLA_F_NESTED) + _LENGTH.pack(
        length - 4, nf.NFTA_DATA_VALUE
    )
    end = _LENGTH.pack(length, nf.NFTA_SET_ELEM_KEY_END | NLA_F_NESTED) + _LENGTH.pack(
        length - 4, nf.NFTA_DATA_VALUE
    )
    heads: dict[int, bytes] = {}
    for key, value in named.elements.items():
        (low, high), rest = key[0], key[1:]
        tail = tails.get((rest, value))
        if tail is None:
            reference = text_attribute(nf.NFTA_SET_ELEM_OBJREF, value) if with_value else b""
            low_rest, high_rest = (_joined(rest, widths[1:], side) for side in (0, 1))
            tail = (
                (low_rest, high_rest + reference) if named.interval else (low_rest + reference, b"")
            )
            tails[rest, value] = tail
        body = begin + low.to_bytes(first, "big") + tail[0]
        if named.interval:
            body += end + high.to_bytes(first, "big") + tail[1]
        size = len(body) + 4
        head = heads.get(size)
        if head is None:
            head = heads[size] = _LENGTH.pack(size, nf.NFTA_LIST_ELEM | NLA_F_NESTED)
        yield head + body


def _joined(parts: tuple[Interval, ...], widths: list[int], side: int) -> bytes:
    return b"".join(
        part[side].to_bytes(width, "big") + bytes(-width % 4)
        for part, width in zip(parts, widths, strict=True)
    )


def refusal_reason(error: OSError) -> str:
    """Say why the kernel did not take elements, or the switch."""
    if error.errno == errno.ENOENT:
        return "what it names is not there: somebody else changed the table"
    return error.strerror or str(error)
