"""An nftables program as text: the syntax of nft(8), without its names and look-ups."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from socket import inet_ntoa

from ecluse.ruleset.program import (
    CT_STATUS,
    TABLE,
    AddToSet,
    Chain,
    CountByMap,
    Counter,
    Field,
    InSet,
    Interval,
    Key,
    Match,
    NamedSet,
    Part,
    Program,
    RateLimit,
    RateOver,
    Redirect,
    RefreshInSet,
    Reject,
    ReversePathOk,
    SetConntrack,
    ToThisMachine,
    Value,
    Verdict,
    VerdictMap,
    ifname_pattern,
)


def _ifname_text(interval: Interval) -> str:
    return f'"{ifname_pattern(interval)}"'


def _range_text(low: str, high: str) -> str:
    return low if low == high else f"{low}-{high}"


def interval_text(kind: str, interval: Interval) -> str:
    """Write an interval of an nft type.

    Numbers and addresses only: nothing that nft would look up.
    """
    low, high = interval
    match kind:
        case "ifname":
            return _ifname_text(interval)
        case "ipv4_addr" if low == high:
            return inet_ntoa(low.to_bytes(4, "big"))
        case "ipv4_addr":
            return _range_text(str(IPv4Address(low)), str(IPv4Address(high)))
        case "ipv6_addr":
            return _range_text(str(IPv6Address(low)), str(IPv6Address(high)))
        case _:
            return _range_text(str(low), str(high))


def _prefix_text(kind: str, interval: Interval) -> str:
    """Write an interval of addresses as a prefix; empty when it is none.

    The kernel compares a prefix faster than a range.
    """
    low, size = interval[0], interval[1] - interval[0] + 1
    bits = {"ipv4_addr": 32, "ipv6_addr": 128}.get(kind, 0)
    if not bits or size == 1 or size & (size - 1) or low % size:
        return ""
    return f"{interval_text(kind, (low, low))}/{bits - size.bit_length() + 1}"


def _value_text(field: Field, value: Value) -> str:
    if isinstance(value, tuple):
        return _prefix_text(field.type, value) or interval_text(field.type, value)
    if field.type == "ifname":
        return f'"{value}"'
    return str(value)


def _join(fields: Iterable[Field]) -> str:
    return " . ".join(field.text for field in fields)


def part_text(part: Part) -> str:  # noqa: C901, PLR0911, PLR0912 - a line a construct
    """Write one part of a rule as nft does."""
    match part:
        case Match(field, values, negate):
            text_pieces = [_value_text(field, value) for value in values]
            right = (
                text_pieces[0] if len(text_pieces) == 1 else "{ " + ", ".join(text_pieces) + " }"
            )
            # Of flags, `!=` would compare the whole number; `!` says that this one is not set.
            unlike = "! " if field is CT_STATUS else "!= "
            return f"{field.text} {unlike if negate else ''}{right}"
        case InSet(fields, name, negate):
            return f"{_join(fields)} {'!= ' if negate else ''}@{name}"
        case CountByMap(fields, name):
            return f"counter name {_join(fields)} map @{name}"
        case Counter(counter):
            return f'counter name "{counter}"'
        case AddToSet(text_pieces, name, lasts):
            return f"update @{name} {{ {' . '.join(text_pieces)} timeout {lasts} counter }}"
        case RateLimit(rate):
            return f"limit rate {rate}/second"
        case Verdict(kind, chain):
            return f"{kind} {chain}" if chain else kind
        case Reject(reply):
            return f"reject with {reply}"
        case RefreshInSet(field, name):
            return f"update @{name} {{ {field.text} }}"
        case RateOver(field, name, rate):
            limit = f"limit rate over {rate}/second burst {2 * rate} packets"
            return f"update @{name} {{ {field.text} {limit} }}"
        case ToThisMachine():
            return "fib daddr type local"
        case SetConntrack(what):
            return what
        case ReversePathOk():
            return "fib saddr . iif oif exists"
        case Redirect(port):
            return f"redirect to :{port}"
        case VerdictMap(fields, name):
            return f"{_join(fields)} vmap @{name}"


def element_text(named: NamedSet, key: Key) -> str:
    """Write one element of a set or map, with its value."""
    text = " . ".join(
        interval_text(kind, part) for kind, part in zip(named.types, key, strict=True)
    )
    return text + _value(named, named.elements[key])


def _value(named: NamedSet, value: str) -> str:
    match named.value:
        case "counter":
            return f' : "{value}"'
        case "verdict":
            return f" : jump {value}"
        case _:
            return ""


def elements_text(named: NamedSet) -> str:
    """Write all elements of a set or map, a line each.

    What follows the first field is written once for all that share it.
    """
    first, others = named.types[0], named.types[1:]
    tails: dict[tuple[Key, str], str] = {}
    lines = []
    for key, value in named.elements.items():
        tail = tails.get((key[1:], value))
        if tail is None:
            rest = (
                f" . {interval_text(kind, part)}"
                for kind, part in zip(others, key[1:], strict=True)
            )
            tail = tails[key[1:], value] = "".join(rest) + _value(named, value)
        lines.append(interval_text(first, key[0]) + tail)
    return ",\n\t\t\t".join(lines)


def _set_head(named: NamedSet) -> str:
    kind = "map" if named.value else "set"
    value = f" : {named.value}" if named.value else ""
    lines = [f"\t{kind} {named.name} {{", f"\t\ttype {' . '.join(named.types)}{value}"]
    if named.interval:
        lines.append("\t\tflags interval")
    return "\n".join([*lines, ""])


def _chain_text(chain: Chain) -> str:
    rules = [f"\t\t{' '.join(part_text(part) for part in rule)}" for rule in chain.rules]
    return "\n".join([f"\tchain {chain.name} {{", *rules, "\t}"])


def text_pieces(program: Program, *, bulk: bool = True) -> Iterator[tuple[str, bool]]:
    """Write a program piece by piece, as a text that adds it to table `inet ecluse`.

    The same program gives the same bytes. With each piece: whether it is elements of a map that may
    be large (no name of a slot stands in it). bulk: whether these are written; else the maps are
    empty. Elements from host names are not among it (`host_name_elements_text`).
    """
    yield f"table {TABLE} {{\n", False
    yield "".join(f"\tcounter {name} {{\n\t}}\n" for name in program.counters), False
    for named in program.sets:
        yield _set_head(named), False
        if named.elements and not named.from_host_names and (bulk or not named.is_bulk):
            yield "\t\telements = {\n\t\t\t", False
            yield elements_text(named), named.is_bulk
            yield "\n\t\t}\n", False
        yield "\t}\n", False
    yield "".join(_chain_text(chain) + "\n" for chain in program.chains) + "}\n", False


def host_name_elements_text(program: Program) -> str:
    """Write the elements of the maps that are filled by host names."""
    return "".join(
        f"add element {TABLE} {named.name} {{\n\t\t\t{elements_text(named)}\n}}\n"
        for named in program.sets
        if named.from_host_names and named.elements
    )


def render(program: Program) -> str:
    """Write a whole program as one text."""
    return "".join(text for text, _ in text_pieces(program)) + host_name_elements_text(program)


def structure_text(program: Program) -> str:
    """Write a program without the elements of maps that may be large."""
    return "".join(text for text, _ in text_pieces(program, bulk=False))
