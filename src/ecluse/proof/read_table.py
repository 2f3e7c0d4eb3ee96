"""A table from the kernel's messages: chains, and rules as steps of the kernel's interpreter.

A step is one expression (linux/netfilter/nf_tables.h). What is not known here is an error: then
nothing is proved. No names of chains or sets mean anything.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ecluse.proof.dump import Attributes, Dump
from ecluse.proof.regions import Box

Key = tuple[bytes, bytes]
"""First and last key of an element, both included; of the fields of a concatenation each for itself
(nft_set_pipapo)."""

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


class UnknownError(Exception):
    """Something that is not understood: nothing can be proved."""


@dataclass(frozen=True, slots=True)
class Load:
    """Put a field into a register. host: it is in host byte order there."""

    dest: int
    length: int
    field: str
    host: bool = False
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    """Put a constant into a register."""

    dest: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Mask:
    """Keep some bits of a register."""

    source: int
    dest: int
    mask: bytes


@dataclass(frozen=True, slots=True)
class Swap:
    """Turn a number of a register round, from host to network byte order."""

    source: int
    dest: int
    length: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Go on where a register is in a range; last None: equal to `first`, over as many bytes."""

    source: int
    first: bytes
    last: bytes | None = None
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """Go on where the registers are in a set. verdict: the element says what happens."""

    set: str
    source: int
    negate: bool = False
    verdict: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """Put the registers into a set; the rule ends where it is full (nft_dynset_eval).

    over: go on only beyond a rate.
    """

    set: str
    source: int
    over: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """Go on within a rate; over: beyond it."""

    over: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """accept, drop, return, or jump and goto to a chain."""

    word: str
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """Do something beside a verdict: notrack, label, redirect, answer. source: by what."""

    word: str
    source: int = -1


Step = Load | Put | Mask | Swap | Compare | Lookup | Update | Limit | Verdict | Effect


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. number: its place in its chain, from 1."""

    chain: str
    number: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class BaseChain:
    """Where packets enter. kind: filter or nat."""

    name: str
    kind: str
    hook: str
    priority: int
    policy: str


@dataclass(frozen=True, slots=True, eq=False)
class Set:
    """A set or map, known by itself and not by its contents.

    length: bytes of a key. moving: packets fill it. elements: each key, and its verdict if it has
    one.
    """

    name: str
    length: int
    moving: bool
    elements: tuple[tuple[Key, Verdict | None], ...]
    cut: dict[tuple[tuple[int, int], ...], list[Box]] = field(default_factory=dict)
    """Its keys as numbers, by where their fields lie: cut once."""


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table."""

    bases: tuple[BaseChain, ...]
    rules: dict[str, tuple[Rule, ...]]
    sets: dict[str, Set]
    asked: frozenset[str] = field(init=False)
    """The sets that some rule asks."""

    def __post_init__(self) -> None:
        rules = (rule for chain in self.rules.values() for rule in chain)
        asked = {step.set for rule in rules for step in rule.steps if isinstance(step, Lookup)}
        object.__setattr__(self, "asked", frozenset(asked))


_HEADER = struct.Struct("=HH")
_COUNTER = 1
"""NFT_OBJECT_COUNTER."""


def parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk netlink attributes (linux/netlink.h, struct nlattr)."""
    at = 0
    while at + 4 <= len(data):
        length, kind = _HEADER.unpack_from(data, at)
        if length < 4:
            raise UnknownError("an attribute shorter than its header")
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode()


def read_table(dump: Dump) -> Table:
    """Read a table.

    Raises:
        UnknownError: It has something that is not known here.
    """
    if dump.flags & 1:  # NFT_TABLE_F_DORMANT: no chain has a hook
        raise UnknownError("the table is dormant: it judges nothing")
    try:
        return _table(dump)
    except (LookupError, ValueError, struct.error) as error:
        raise UnknownError(f"a message that is not understood: {error!r}") from error


def _table(dump: Dump) -> Table:
    rules: dict[str, list[Rule]] = {_text(chain[3]): [] for chain in dump.chains}
    for rule in dump.rules:
        chain = rules[_text(rule[2])]
        where = f"rule {len(chain) + 1} of chain {_text(rule[2])}"
        chain.append(Rule(_text(rule[2]), len(chain) + 1, tuple(_steps(rule, where))))
    bases = tuple(_base(chain) for chain in dump.chains if 4 in chain)
    bare = Table(bases, {name: tuple(found) for name, found in rules.items()}, {})
    names = [_text(one[2]) for one in dump.sets]
    sets = [
        _set(one, dump.elements[name], asked=name in bare.asked)
        for name, one in zip(names, dump.sets, strict=True)
    ]
    return Table(bases, bare.rules, dict(zip(names, sets, strict=True)))


def _base(chain: Attributes) -> BaseChain:
    hook = dict(parts(chain[4]))
    (priority,) = struct.unpack("!i", hook[2])
    policy = {0: "drop", 1: "accept"}[_number(chain[5])]
    if _number(chain.get(10, b"")) & ~1:  # NFT_CHAIN_BASE; others: offloaded to a card
        raise UnknownError(f"chain {_text(chain[3])} has flags that are not known")
    return BaseChain(_text(chain[3]), _text(chain[7]), HOOKS[_number(hook[1])], priority, policy)


def _steps(rule: Attributes, where: str) -> Iterator[Step]:
    for _, expression in parts(rule.get(4, b"")):
        found = dict(parts(expression))
        name, data = _text(found[1]), dict(parts(found.get(2, b"")))
        if name in {"counter", "log"}:  # they judge nothing
            continue
        reader = _READERS.get(name)
        step = reader(data) if reader else None
        if step is None:
            raise UnknownError(f"{where}: a statement `{name}` that is not known")
        yield from step


def _value(data: bytes) -> bytes:
    return dict(parts(data))[1]


def _register(data: bytes) -> int:
    """Give where a register begins, in words of 4 bytes (nft_parse_register)."""
    number = _number(data)
    return number * 4 if number < 8 else number - 4


_META = {4: ("iif", 4), 6: ("iifname", 16), 7: ("oifname", 16), 10: ("skuid", 4),
         15: ("nfproto", 1), 16: ("l4proto", 1), 26: ("iifkind", 16), 33: ("sdif", 4),
         34: ("sdifname", 16)}  # fmt: skip
_CT = {0: ("ct.state", 4), 1: ("ct.direction", 1), 2: ("ct.status", 4), 10: ("ct.protocol", 1),
       13: ("ct.label", 16)}  # fmt: skip
_TUPLE = {11: ("proto-src", 2), 12: ("proto-dst", 2), 19: ("saddr", 4), 20: ("daddr", 4),
          21: ("saddr", 16), 22: ("daddr", 16)}  # fmt: skip
_HOST = {"iif", "sdif", "skuid", "ct.state", "ct.status", "ct.label", "local"}


def _load(dest: bytes, known: tuple[str, int] | None) -> list[Step] | None:
    return [Load(_register(dest), known[1], known[0], known[0] in _HOST)] if known else None


def _meta(data: Attributes) -> list[Step] | None:
    return _load(data[1], _META.get(_number(data[2]))) if 1 in data else None


def _ct(data: Attributes) -> list[Step] | None:
    key = _number(data[2])
    if 1 not in data:  # it sets: the label alone is known
        return [Effect("label", _register(data[4]))] if key == 13 else None
    if key in _TUPLE and 3 in data:
        way = ("original", "reply")[_number(data[3])]
        # An address of the other family breaks (nft_ct_get_eval): "4.saddr".
        family = {19: "4.", 20: "4.", 21: "6.", 22: "6."}.get(key, "")
        return _load(data[1], (f"{family}ct.{way}.{_TUPLE[key][0]}", _TUPLE[key][1]))
    return _load(data[1], _CT.get(key))


def _payload(data: Attributes) -> list[Step] | None:
    base = {1: "network", 2: "transport"}.get(_number(data[2]))
    if base is None or 1 not in data:
        return None
    return [Load(_register(data[1]), _number(data[4]), base, offset=_number(data[3]))]


def _fib(data: Attributes) -> list[Step] | None:
    """Read by result (NFT_FIB_RESULT_*) and flags: saddr 1, daddr 2, iif 8, present 32."""
    known = {(2, 1): ("srcroute", 16), (1, 1 | 8 | 32): ("fromhere", 1), (3, 2): ("local", 4)}
    return _load(data[1], known.get((_number(data[2]), _number(data[3]))))


def _cmp(data: Attributes) -> list[Step] | None:
    source, operator, value = _register(data[1]), _number(data[2]), _value(data[3])
    low, high = bytes(len(value)), b"\xff" * len(value)
    if operator < 2:  # NFT_CMP_EQ, NFT_CMP_NEQ
        return [Compare(source, value, None, operator == 1)]
    below, negate = {2: (False, True), 3: (True, False), 4: (True, True), 5: (False, False)}[
        operator
    ]
    # Less than it is not from it on; more than it is not up to it.
    return [Compare(source, low, value, negate) if below else Compare(source, value, high, negate)]


def _range(data: Attributes) -> list[Step] | None:
    return [Compare(_register(data[1]), _value(data[3]), _value(data[4]), _number(data[2]) == 1)]


def _bitwise(data: Attributes) -> list[Step] | None:
    if _number(data.get(6, b"")) or any(_value(data[5])):  # a shift, or an xor
        return None
    return [Mask(_register(data[1]), _register(data[2]), _value(data[4]))]


def _byteorder(data: Attributes) -> list[Step] | None:
    size, length = _number(data[5]), _number(data[4])
    return [Swap(_register(data[1]), _register(data[2]), length)] if size == length else None


def _immediate(data: Attributes) -> list[Step] | None:
    content = dict(parts(data[2]))
    if 2 not in content:
        return [Put(_register(data[1]), content[1])]
    # `continue` does nothing, and the rule goes on behind it; of a map it is not known.
    goes_on = struct.unpack("!i", dict(parts(content[2]))[1]) == (-1,)
    return [] if goes_on else [_verdict(content[2])]


def _verdict(data: bytes) -> Verdict:
    found = dict(parts(data))
    (code,) = struct.unpack("!i", found[1])
    words = {
        0: "drop",
        1: "accept",
        -3: "jump",
        -4: "goto",
        -5: "return",
    }
    if code not in words:
        raise UnknownError(f"a verdict {code} that is not known")
    return Verdict(words[code], _text(found.get(2, b"")))


def _lookup(data: Attributes) -> list[Step] | None:
    if 3 in data and _number(data[3]):  # a map to data
        return None
    negate = bool(_number(data.get(5, b"")))
    return [Lookup(_text(data[1]), _register(data[2]), negate, 3 in data)]


def _objref(data: Attributes) -> list[Step] | None:
    # A counter by name (NFT_OBJECT_COUNTER) judges nothing; a quota or a limit does. By a map, a
    # packet that is not in it ends the rule (nft_objref_map_eval).
    if 4 in data:
        return [Lookup(_text(data[4]), _register(data[3]))]
    return [] if _number(data[1]) == _COUNTER else None


def _dynset(data: Attributes) -> list[Step] | None:
    # Operations add and update alone (NFT_DYNSET_OP_*), not turned round.
    if _number(data[3]) > 1 or _number(data.get(9, b"")) & 1 or 5 in data:
        return None
    inner = [data[7]] if 7 in data else [d for _, d in parts(data.get(10, b""))]
    over = False
    for each in inner:
        found = dict(parts(each))
        name = _text(found[1])
        if name == "limit" and _number(dict(parts(found[2])).get(5, b"")) & 1:
            over = True
        elif name != "counter":
            return None
    return [Update(_text(data[1]), _register(data[4]), over)]


def _limit(data: Attributes) -> list[Step]:
    return [Limit(bool(_number(data.get(5, b"")) & 1))]  # NFT_LIMIT_F_INV


_READERS: dict[str, Callable[[Attributes], list[Step] | None]] = {
    "meta": _meta, "ct": _ct, "payload": _payload, "fib": _fib, "cmp": _cmp, "range": _range,
    "bitwise": _bitwise, "byteorder": _byteorder, "immediate": _immediate, "lookup": _lookup,
    "objref": _objref, "dynset": _dynset, "limit": _limit,
    "notrack": lambda _: [Effect("notrack")],
    "reject": lambda _: [Effect("answer"), Verdict("drop")],
    # The register of the port; then the packet is accepted (nft_redir_eval).
    "redir": lambda data: (
        [Effect("redirect", _register(data[1])), Verdict("accept")]
        if data.get(2, data.get(1)) == data.get(1) and 1 in data  # one port
        else None
    ),
}  # fmt: skip


def _set(one: Attributes, lists: tuple[bytes, ...], *, asked: bool) -> Set:
    name, flags, length = _text(one[2]), _number(one.get(3, b"")), _number(one[5])
    _judges_not(one, 17, 18, name)  # NFTA_SET_EXPR, NFTA_SET_EXPRESSIONS: for each element
    if _number(one.get(15, b"\1")) != _COUNTER or flags & ~0x1FF:
        raise UnknownError(f"set {name} is of a kind that is not known")
    found = []
    for listed in lists:
        for _, element in parts(listed):
            content = dict(parts(element))
            kind = _number(content.get(3, b""))
            if kind & ~1 or 1 not in content:  # NFT_SET_ELEM_CATCHALL
                raise UnknownError(f"set {name} has an element for everything else")
            if asked:
                _judges_not(content, 7, 11, name)  # NFTA_SET_ELEM_EXPR, NFTA_SET_ELEM_EXPRESSIONS
            key = _value(content[1])
            last = _value(content[10]) if 10 in content else key
            data = dict(parts(content[2])) if 2 in content else {}
            found.append((key, last, kind & 1, _verdict(data[2]) if 2 in data else None))
    if flags & 0x84 == 4:  # NFT_SET_INTERVAL; with NFT_SET_CONCAT each has both its ends
        found = list(_intervals(found, length))
    elements = tuple(((key, last), verdict) for key, last, _, verdict in found)
    return Set(name, length, bool(flags & 0x20), elements)


def _judges_not(data: Attributes, single: int, several: int, name: str) -> None:
    """A limit or quota of an element ends the rule that finds it (nft_set_elem_update_expr)."""
    inner = [data[single]] if single in data else [d for _, d in parts(data.get(several, b""))]
    if any(_text(dict(parts(each))[1]) != "counter" for each in inner):
        raise UnknownError(f"set {name} has elements that judge")


_Element = tuple[bytes, bytes, int, Verdict | None]


def _intervals(found: list[_Element], length: int) -> Iterator[_Element]:
    """Join where an interval begins and where the next gap does (nft_set_rbtree)."""
    ordered = sorted(found, key=lambda e: (e[0], -e[2]))
    for one, after in zip(ordered, [*ordered[1:], None], strict=False):
        if not one[2]:
            end = int.from_bytes(after[0], "big") if after else 1 << 8 * length
            yield one[0], (end - 1).to_bytes(length, "big"), 0, one[3]
