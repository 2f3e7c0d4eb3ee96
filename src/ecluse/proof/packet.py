"""What a packet is, where a hook of the kernel sees it: the fields that rules can ask for.

Which fields are the same value depends on what conntrack knows of the packet. So packets are parted
into kinds, and in each kind a field of the kernel is one of the variables, a constant, or missing
(then the expression breaks, and the rule ends: NFT_BREAK). Sources: nf_conntrack_core.c,
nf_nat_core.c (`nf_nat_packet`), nft_ct.c, nft_meta.c, nft_payload.c, nft_fib.c.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from ecluse.proof.regions import Box, Interval, Region, Space

NAME_BITS = 128
"""An interface name is 16 bytes, filled with zeros (IFNAMSIZ), read as one number."""

PORTED = (6, 17, 33, 132, 136)
"""Protocols whose tuple has the ports of the packet: TCP, UDP, DCCP, SCTP, UDP-Lite. Others' tuples
hold zeros or identifiers (ICMP, GRE: nf_conntrack_proto_*.c). DCCP is one of them up to Linux 6.16,
and UDP-Lite may go too: both are also packets without ports."""
_ALWAYS_PORTED = (6, 17, 132)

_EVERY = ((0, 255),)
_PROTOCOLS: dict[str, tuple[Interval, ...]] = {
    "flow": tuple((n, n) for n in PORTED),
    "plain": ((0, 5), (7, 16), (18, 131), (133, 255)),
    "none": _EVERY,
    "error": _EVERY,
}

ICMP = {4: 1, 6: 58}
ERRORS = {4: (3, 4, 5, 11, 12), 6: tuple(range(128))}
"""ICMP types that conntrack takes for errors about a flow (nf_conntrack_proto_icmp.c,
nf_conntrack_proto_icmpv6.c: every type below 128)."""

INVALID, ESTABLISHED, RELATED, NEW, UNTRACKED = 0, 1, 2, 3, 6
"""Bits of `ct state` (NF_CT_STATE_BIT in nf_conntrack_common.h)."""
CONFIRMED, DNAT = 3, 5
"""Bits of `ct status` (enum ip_conntrack_status)."""

NO_HEADER, LATER_FRAGMENT, WHOLE = 0, 1, 2
"""How much of a packet `payload` finds: no known transport protocol (a broken chain of IPv6
headers), no transport header (a later fragment), all."""

_NAMES = {"iifname", "oifname", "sdifname", "iifkind", "srcroute"}
_WIDTHS = {
    **dict.fromkeys(_NAMES, NAME_BITS),
    **dict.fromkeys(("iif", "sdif"), 32),
    **dict.fromkeys(("tport", "oport", "sport", "th0", "th2", "len"), 16),
    **dict.fromkeys(("proto", "ttl"), 8),
    "state": 3,
    "uid": 33,
    "th": 2,
    "home": 10,
}
_ADDRESSES = {"opener", "target", "server", "from", "to"}
_FEW = (
    "oifname iifname sdif sdifname iif iifkind srcroute fromhere local state confirmed uid spoofed"
    " ours th ttl len th0 th2 from to oport within room home"
)
_MANY = {
    # What 100,000 entries name stands last, the outside end before the inside: then thousands of
    # values lead to a few regions, and nothing is copied for each inside machine.
    "target": "target tport proto server sport opener",
    "opener": "opener tport proto server sport target",
}
NOBODY = 1 << 32
"""The user of a packet that no living socket sent: `meta skuid` breaks
(nft_meta_get_eval_skugid).
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What conntrack knows of a packet.

    track: `none` (untracked, or invalid); `flow` of a protocol with ports; `plain`, of another
    protocol; `error`, an ICMP error about a flow. direction: 0 original, 1 reply. dnat: the
    destination of the flow was translated.
    """

    track: str
    direction: int = 0
    dnat: bool = False


def kinds(hook: str, priority: int) -> Iterator[Kind]:
    """Give every kind of packet that a base chain can meet."""
    yield Kind("none")
    if hook == "prerouting" and priority < -200:  # NF_IP_PRI_CONNTRACK: it comes after
        return
    for track, direction, dnat in product(("flow", "plain", "error"), (0, 1), (False, True)):
        yield Kind(track, direction, dnat)


class View:
    """Packets of one kind at one hook: their fields, as regions of a space.

    Args:
        version: 4 or 6.
        hook: where the base chain hangs; priority: and when.
        spaces: one for each order and family, made here and shared by all views.
        homes: sets of addresses that often decide on the opener, disjoint. Which of them it lies in
            is a variable of its own (`home`): only so do rules about whole zones not touch what
            stands for single machines. It changes no answer (`consistent`).
    """

    def __init__(
        self, version: int, hook: str, priority: int, kind: Kind,
        spaces: dict[tuple[int, str], Space], homes: Sequence[Sequence[Interval]] = (),
    ) -> None:  # fmt: skip
        self.version, self.hook, self.priority, self.kind = version, hook, priority, kind
        self.bits = 32 if version == 4 else 128
        # The outside end of what is opened from outside is the opener.
        inbound = hook != "forward" and (hook == "input") == (kind.direction == 0)
        inbound = inbound and kind.track in {"flow", "plain"}
        order = "opener" if inbound else "target"
        self.homes = homes if order == "target" else ()
        names = f"{_FEW} {_MANY[order]}".split()
        self.names = names
        self.level = {name: at for at, name in enumerate(names)}
        self.widths = [self.bits if n in _ADDRESSES else _WIDTHS.get(n, 1) for n in names]
        self.space = spaces.setdefault((version, order), Space(self.widths))
        self.protocols = _PROTOCOLS[kind.track]
        self.fields = self._fields()
        self.possible = self._possible()

    def _fields(self) -> dict[str, str | int]:
        """Say which variable, or constant, each field is. One that is not here breaks."""
        hook, kind = self.hook, self.kind
        found: dict[str, str | int] = {n: n for n in ("ttl", "len", "th0", "th2")}
        # A name that a hook has no device for is empty (nft_meta_store_ifname).
        found |= (
            {"iifname": "iifname", "iif": "iif"} if hook != "output" else {"iifname": 0, "iif": 0}
        )
        found["oifname"] = "oifname" if hook in {"forward", "output", "postrouting"} else 0
        if hook in {"forward", "input"}:  # nft_meta_get_validate
            found |= {"sdif": "sdif", "sdifname": "sdifname"}
        if hook in {"output", "postrouting"}:
            found["skuid"] = "uid"
        if hook in {"prerouting", "forward", "input"}:  # nft_fib_validate
            found |= {"srcroute": "srcroute", "fromhere": "fromhere"}
        if hook == "prerouting":
            found |= {"iifkind": "iifkind", "local": "local"}
        found |= {"nfproto": 2 if self.version == 4 else 10, "l4proto": "proto"}
        if kind.track == "none":
            return found | {"saddr": "opener", "daddr": "target", "sport": "th0", "dport": "th2"}
        server = "server" if kind.dnat else "target"
        # What stands for ports in ICMP's tuples (type, identifier) is not turned round.
        sport = "tport" if kind.track == "flow" and not kind.dnat else "sport"
        found |= {
            "ct.direction": kind.direction, "ct.protocol": "proto",
            "ct.original.saddr": "opener", "ct.original.daddr": "target",
            "ct.original.proto-src": "oport", "ct.original.proto-dst": "tport",
            "ct.reply.saddr": server, "ct.reply.proto-src": sport,
        }  # fmt: skip
        if kind.track == "error":
            # Whichever router sends it, by whichever address.
            found |= {"l4proto": ICMP[self.version], "saddr": "from", "daddr": "to"}
        else:
            # A destination is translated before, and a source after, these hooks; answers the other
            # way round (nf_nat_packet, HOOK2MANIP). At prerouting, before -100, nothing is yet.
            translated = hook != "prerouting" or self.priority >= -100
            ends = ("opener", server if translated else "target")
            ports = ("oport", sport if translated else "tport")
            if kind.direction:
                # Before, it is towards the address that the opener was translated to.
                ends = (server, "opener" if translated else "to")
                ports = (sport, "oport" if translated else "th2")
            found |= {"saddr": ends[0], "daddr": ends[1]}
            if kind.track == "flow":
                return found | {"sport": ports[0], "dport": ports[1]}
        return found | {"sport": "th0", "dport": "th2"}

    def _possible(self) -> Region:
        """Say which packets there can be: what some variables tell of others."""
        s, kind = self.space, self.kind
        there = s.all

        def also(*choices: Region) -> None:
            nonlocal there
            one = s.none
            for choice in choices:
                one = s.either(one, choice)
            there = s.both(there, one)

        def at(name: str, low: int, high: int | None = None) -> Region:
            return self.variable(name, low, low if high is None else high)

        top = (1 << NAME_BITS) - 1
        for index, name in (("sdif", "sdifname"), ("iif", "iifname")):
            # A link has an index and a name, or there is none.
            if index in self.fields and name in self.fields and self.fields[index] != 0:
                linked = s.both(at(index, 1, (1 << 32) - 1), at(name, 1, top))
                none = s.both(at(index, 0), at(name, 0))
                always = index == "iif" and self.hook != "postrouting"
                also(linked, *([] if always else [none]))
        if "skuid" in self.fields:
            also(at("uid", 0, NOBODY))
        states = {"none": (INVALID, UNTRACKED), "error": (RELATED,)}
        also(*(at("state", n) for n in states.get(kind.track, (ESTABLISHED, RELATED, NEW))))
        also(at("th", NO_HEADER if kind.track == "none" else LATER_FRAGMENT, WHOLE))
        if kind.track == "error":
            also(at("th", WHOLE))
            also(*(at("th0", t << 8, t << 8 | 255) for t in ERRORS[self.version]))
        return there

    def variable(self, name: str, low: int, high: int) -> Region:
        """Give where a variable lies between two values, both included."""
        return self.space.boxes((self.level[name],), [((low, high),)])

    def loads(self, field: str) -> Region:
        """Give where a field can be read at all; elsewhere the expression breaks."""
        if field not in self.fields:
            return self.space.none
        if field in {"sport", "dport", "th0", "th2"}:
            return self.variable("th", WHOLE, WHOLE)
        if field == "l4proto":
            return self.variable("th", LATER_FRAGMENT, WHOLE)
        if field == "skuid":
            return self.variable("uid", 0, NOBODY - 1)
        if field == "iifkind":
            return self.variable("iifkind", 1, (1 << NAME_BITS) - 1)
        return self.space.all

    def any_of(self, field: str, intervals: Iterable[Interval]) -> Region:
        """Give where a field can be read and lies in one of these intervals."""
        return self.in_boxes((field,), lambda: [(interval,) for interval in intervals])

    def in_boxes(
        self, fields: Sequence[str], boxes: Callable[[], Iterable[Box]], name: Hashable = None
    ) -> Region:
        """Give where the fields can be read and lie, together, in one of these boxes.

        name: of what the boxes are, so that they are put together once for all views of a space.
        """
        s, readable = self.space, self.space.all
        for field in fields:
            readable = s.both(readable, self.loads(field))
        if readable is s.none:
            return readable
        places = [self.fields[field] for field in fields]
        if self.homes and places.count("opener") == 1:
            return s.both(readable, self._by_home(places, boxes, name))
        return s.both(readable, self._in_boxes(places, boxes, name))

    def _by_home(
        self, places: list[str | int], boxes: Callable[[], Iterable[Box]], name: Hashable
    ) -> Region:
        """Ask for the opener by its home where that says enough."""
        at = places.index("opener")
        every = (0, (1 << self.bits) - 1)

        def parted() -> Iterator[Box]:
            for box in boxes():
                for home, rest in self._homes_of(box[at]) if box[at] != every else [(None, every)]:
                    yield (*box[:at], rest, *box[at + 1 :], home or (0, 1023))

        return self._in_boxes([*places, "home"], parted, name)

    def _homes_of(self, asked: Interval) -> Iterator[tuple[Interval, Interval]]:
        """Give the homes that an interval meets, and what is still to be asked there."""
        low, high = asked
        for number, home in enumerate(self.homes):
            if all(low <= a and b <= high for a, b in home):
                yield (number, number), (0, (1 << self.bits) - 1)
            elif any(a <= high and low <= b for a, b in home):
                yield (number, number), asked
        if not any(a <= low and high <= b for home in self.homes for a, b in home):
            yield (len(self.homes), 1023), asked

    def consistent(self) -> Region:
        """Give where `home` is what the opener says, and the protocol one of the kind.

        The rest are no packets. It is asked at the end alone, of what differs.
        """
        s, level = self.space, [self.level["home"], self.level["opener"]]
        protocol = s.all
        if self.kind.track in {"flow", "plain"}:
            protocol = s.boxes((self.level["proto"],), [(each,) for each in self.protocols])
        if not self.homes:
            return protocol
        boxes = [((n, n), each) for n, home in enumerate(self.homes) for each in home]
        inside = s.boxes(level, boxes)
        anywhere = s.boxes(level[1:], [(each,) for home in self.homes for each in home])
        nowhere = s.without(self.variable("home", len(self.homes), len(self.homes)), anywhere)
        return s.both(protocol, s.either(inside, nowhere))

    def _in_boxes(
        self, places: list[str | int], boxes: Callable[[], Iterable[Box]], name: Hashable
    ) -> Region:
        s = self.space
        # Constants, and one variable that is asked twice, are settled first; the rest is a region.
        free = sorted({self.level[p] for p in places if isinstance(p, str)})
        # Of protocols with ports there are no packets of the kind `plain`: most entries fall away.
        apart = self.kind.track == "plain" and "proto" in places
        key = (name, apart, tuple(self.level[p] if isinstance(p, str) else -1 - p for p in places))
        if name is None or key not in s.named:
            found = s.boxes(free, self._arranged(places, free, boxes()))
            if name is None:
                return found
            s.named[key] = found
        return s.named[key]

    def _arranged(
        self, places: list[str | int], free: list[int], boxes: Iterable[Box]
    ) -> list[Box]:
        """Give boxes over the levels `free`: constants settled, what is asked twice joined."""
        whole = [(0, (1 << self.widths[level]) - 1) for level in free]
        spot = {level: at for at, level in enumerate(free)}
        where = [spot[self.level[p]] if isinstance(p, str) else -1 - p for p in places]
        if self.kind.track == "plain" and "proto" in places:
            at = places.index("proto")
            boxes = (b for b in boxes if b[at][0] != b[at][1] or b[at][0] not in _ALWAYS_PORTED)
        if sorted(where) == list(range(len(free))):
            order = sorted(range(len(where)), key=where.__getitem__)
            return [tuple([box[n] for n in order]) for box in boxes]
        found: list[Box] = []
        for box in boxes:
            mine = list(whole)
            for to, (low, high) in zip(where, box, strict=True):
                if to < 0 and not low <= -1 - to <= high:
                    break
                if to >= 0:
                    mine[to] = (max(low, mine[to][0]), min(high, mine[to][1]))
                    if mine[to][0] > mine[to][1]:
                        break
            else:
                found.append(tuple(mine))
        return found

    def bit(self, field: str, number: int) -> Region | None:
        """Give where a flag of a field of flags is set; None for one that nothing is known of."""
        if field == "ct.state":
            known = {INVALID, ESTABLISHED, RELATED, NEW, UNTRACKED}
            return self.variable("state", number, number) if number in known else None
        if self.kind.track == "none":
            return self.space.none
        if field == "ct.status" and number == DNAT:
            return self.space.all if self.kind.dnat else self.space.none
        flags: Mapping[tuple[str, int], str] = {
            ("ct.status", CONFIRMED): "confirmed",
            ("ct.label", SPOOFED): "spoofed",
            ("ct.label", OURS): "ours",
        }
        name = flags.get((field, number))
        return self.variable(name, 1, 1) if name else None


SPOOFED, OURS = 127, 126
"""The connection's labels: its opener wrote an address that does not live where it came from; our
own programs asked a resolver by it.
"""
