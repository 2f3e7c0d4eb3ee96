"""Meaning and kernel, compared: equal, or the smallest packet on which they differ."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from ecluse.policy import network_interval
from ecluse.proof.formula import Words
from ecluse.proof.meaning import Meaning
from ecluse.proof.packet import NAME_BITS, NOBODY, Kind, View, kinds
from ecluse.proof.read_table import BaseChain, Rule, Table, UnknownError
from ecluse.proof.regions import Interval, Region, Space
from ecluse.proof.walk import Walk

PLACES = {
    # place: hook, type, and the priorities between which its base chains hang. At -200 conntrack
    # comes, at -100 and 100 translation (enum nf_ip_hook_priorities).
    "raw": ("prerouting", "filter", -400, -200),
    "prerouting": ("prerouting", "filter", -200, -100),
    "dns": ("prerouting", "nat", -200, -100),
    "forward": ("forward", "filter", -400, 400),
    "input": ("input", "filter", -200, 100),
    "output": ("output", "filter", -100, 400),
    "postrouting": ("postrouting", "filter", -400, 100),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A packet on which meaning and kernel differ.

    what: `pass`, or what is done to it (`notrack`, `label 127`, `redirect 5300`, `answer`). kernel:
    the kernel does it, and the files do not say so; else the other way round. path: each rule that
    decided on the way, in order.
    """

    place: str
    what: str
    kernel: bool
    packet: tuple[str, ...]
    path: tuple[Rule, ...]

    def __str__(self) -> str:
        """Say it in words, the packet and its path last."""
        does = "passes" if self.what == "pass" else f"is given `{self.what}`"
        does_not = "does not pass" if self.what == "pass" else f"is not given `{self.what}`"
        said = ("but not by the files", "by the files")
        words = f"{does}, {said[0]}" if self.kernel else f"{does_not}, but does {said[1]}"
        path = ", ".join(f"{rule.chain} rule {rule.number}" for rule in self.path)
        return (
            f"at {self.place} a packet {words}: {', '.join(self.packet)}; way: {path or 'no rule'}"
        )


class Prover:
    """Compares tables with one meaning. What it worked out for one serves the next."""

    def __init__(self, meaning: Meaning) -> None:
        self._meaning = meaning
        self._spaces: dict[tuple[int, str], Space] = {}
        self._wanted: dict[tuple[str, int, Kind, int], tuple[View, dict[str, Region]]] = {}

    def differences(self, table: Table, places: Iterable[str] = PLACES) -> Iterator[Difference]:
        """Give the differences: for each place, family and kind of packet one of each effect.

        None means: equal, for every packet.

        Raises:
            UnknownError: The table has something that is not understood: nothing is proved.
        """
        for base in table.bases:
            if not any(_belongs(base, place) for place in PLACES):
                raise UnknownError(f"base chain {base.name} at a place that is not known")
        for place in places:
            hook, kind, low, _ = PLACES[place]
            bases = sorted((b for b in table.bases if _belongs(b, place)), key=lambda b: b.priority)
            priority = bases[0].priority if bases else low + 1
            for version, one in product((4, 6), kinds(hook, priority)):
                # A nat chain sees the first packet of a connection alone (nf_nat_inet_fn).
                if kind != "nat" or (one.track in {"flow", "plain"} and not one.direction):
                    yield from self._compare(table, bases, place, (version, one, priority))

    def _view(self, place: str, packets: tuple[int, Kind, int]) -> tuple[View, dict[str, Region]]:
        """Give the view of some packets, and what is to become of them."""
        key = (place, *packets)
        if key not in self._wanted:
            version, kind, priority = packets
            hook = PLACES[place][0]
            view = View(version, hook, priority, kind, self._spaces, self._homes(version))
            passes, effects = self._meaning.at(place, Words(view))
            wanted = {"pass": passes, **effects}
            both = view.space.both
            self._wanted[key] = (
                view,
                {name: both(each.region, view.possible) for name, each in wanted.items()},
            )
        return self._wanted[key]

    def _homes(self, version: int) -> list[list[Interval]]:
        """Give each zone's subnets: rules speak of them again and again."""
        zones = self._meaning.policy.site.zones
        found = [[network_interval(n) for n in z.subnets if n.version == version] for z in zones]
        return [home for home in found if home]

    def _compare(
        self, table: Table, bases: list[BaseChain], place: str, packets: tuple[int, Kind, int]
    ) -> Iterator[Difference]:
        view, wanted = self._view(place, packets)
        s, walk = view.space, Walk(table, view)
        passes = view.possible
        for base in bases:
            passes = walk.enter(base, passes)
        for name, does in {**dict.fromkeys(wanted, s.none), **walk.effects, "pass": passes}.items():
            # Without an entry there is nothing to label (nft_ct_set_eval).
            should = wanted.get(name, s.none)
            if does is should or (name.startswith("label") and view.kind.track == "none"):
                continue
            more, less = s.without(does, should), s.without(should, does)
            for kernel, region in ((True, more), (False, less)):
                real = s.both(view.consistent(), region)
                if real is not s.none:
                    yield _difference(table, bases, place, view, name, kernel=kernel, region=real)
                    break


def _belongs(base: BaseChain, place: str) -> bool:
    hook, kind, low, high = PLACES[place]
    return (base.hook, base.kind) == (hook, kind) and low < base.priority < high


def _difference(
    table: Table,
    bases: list[BaseChain],
    place: str,
    view: View,
    what: str,
    *,
    kernel: bool,
    region: Region,
) -> Difference:
    """Find the smallest packet of a region, and the way that it takes."""
    s = view.space
    point = s.smallest(region) or {}
    whole = {level: point.get(level, 0) for level in range(len(view.names))}
    packets = s.boxes(tuple(whole), [tuple((value, value) for value in whole.values())])
    walk = Walk(table, view, trace=[])
    for base in bases:
        packets = walk.enter(base, packets)
    words = (_words(view.names[level], value, view) for level, value in point.items())
    packet = (f"IPv{view.version}", *_kind_words(view.kind), *(one for one in words if one))
    return Difference(place, what, kernel, packet, tuple(walk.trace or ()))


_WORDS = {
    "oifname": "leaves by",
    "iifname": "came by",
    "sdifname": "came in a VRF by",
    "srcroute": "its source is reached by",
    "iifkind": "by a link of kind",
    "opener": "opened by",
    "target": "towards",
    "server": "translated to",
    "proto": "protocol",
    "tport": "port",
    "sport": "port after translation",
    "oport": "opener's port",
    "from": "sent by",
    "to": "sent to",
    "ttl": "hop limit",
    "uid": "of user",
    "th0": "bytes 0 and 1 of its header",
    "th2": "bytes 2 and 3 of its header",
    "len": "bytes after its header",
    "spoofed": "label 127",
    "ours": "label 126",
    "local": "to the gateway itself",
    "within": "within its rate",
}
_STATES = {0: "invalid", 1: "established", 2: "related", 3: "new", 6: "untracked"}


def _kind_words(kind: Kind) -> tuple[str, ...]:
    way = "the opener" if kind.direction == 0 else "the other end"
    said = {
        "none": ("of no connection",),
        "error": ("an ICMP error about a connection",),
        "flow": ("of a connection", f"from {way}"),
        "plain": ("of a connection without ports", f"from {way}"),
    }[kind.track]
    return (*said, "its destination was translated") if kind.dnat else said


def _words(name: str, value: int, view: View) -> str:
    """Put a variable's value into words; nothing for what a reader need not know."""
    if name == "state":
        return _STATES[value]
    if name not in _WORDS or (name == "uid" and "skuid" not in view.fields):
        return ""
    word = _WORDS[name]
    if name in {"opener", "target", "server", "from", "to"}:
        return f"{word} {IPv4Address(value) if view.version == 4 else IPv6Address(value)}"
    if name in {"iifname", "oifname", "sdifname", "srcroute", "iifkind"}:
        text = value.to_bytes(NAME_BITS // 8, "big").rstrip(b"\0").decode(errors="replace")
        return f"{word} {(text if text.isprintable() else 'any other') or 'none'}"
    if view.widths[view.level[name]] == 1:
        return word if value else f"not {word}"
    return f"{word} {'nobody' if name == 'uid' and value == NOBODY else value}"
