"""Compilers that are wrong, one way each: the comparison has to see every one of them."""

from collections.abc import Callable
from dataclasses import replace

from ecluse.ruleset import program as p
from ecluse.ruleset.program import CountByMap, InSet, Key, Match, NamedSet, Part, Program, Rule
from tests.kernel.simulator_play import Spoil

_SWAP = {
    p.CT_SADDR4: p.CT_DADDR4,
    p.CT_DADDR4: p.CT_SADDR4,
    p.CT_SADDR6: p.CT_DADDR6,
    p.CT_DADDR6: p.CT_SADDR6,
}


def _rules(change: Callable[[Rule], Rule | None], chains: str = "_at.") -> Spoil:
    """Change (None: leave out) every rule of the chains with this in their names."""

    def spoil(program: Program) -> Program:
        return replace(
            program,
            chains=tuple(
                replace(
                    chain, rules=tuple(r for rule in chain.rules if (r := change(rule)) is not None)
                )
                if chains in chain.name
                else chain
                for chain in program.chains
            ),
        )

    return Spoil(program=spoil)


def _without(gone: Callable[[Part], bool], chains: str = "_at.") -> Spoil:
    return _rules(lambda rule: tuple(part for part in rule if not gone(part)), chains)


def _fields(change: Callable[[p.Field], p.Field]) -> Spoil:
    def one(part: Part) -> Part:
        if isinstance(part, Match):
            return replace(part, field=change(part.field))
        return (
            replace(part, fields=tuple(map(change, part.fields)))
            if isinstance(part, CountByMap | InSet)
            else part
        )

    return _rules(lambda rule: tuple(map(one, rule)))


def _elements(change: Callable[[NamedSet, Key], Key]) -> Spoil:
    """Change the keys of every range map of services."""

    def one(named: NamedSet) -> NamedSet:
        if "_ranges" not in named.name:
            return named
        return replace(
            named, elements={change(named, key): value for key, value in named.elements.items()}
        )

    return Spoil(program=lambda program: replace(program, sets=tuple(map(one, program.sets))))


def _text(old: str, new: str) -> Spoil:
    return Spoil(text=lambda text: text.replace(old, new))


def _lower(part: int) -> Callable[[NamedSet, Key], Key]:
    """Take one from the upper end of a field's ranges, so that nothing new overlaps."""
    return lambda _, key: tuple(
        (low, high - 1) if n == part and low < high else (low, high)
        for n, (low, high) in enumerate(key)
    )


_ENDS = {
    *(p.CT_SADDR4, p.CT_SADDR6, p.CT_REPLY_SADDR4, p.CT_REPLY_SADDR6),
    *(p.SADDR4, p.SADDR6, p.DADDR4, p.DADDR6),
}


def _is_subnets(part: Part) -> bool:
    """Say whether a part compares an end with a zone's subnets: a set, or the single one."""
    return (isinstance(part, InSet) and "subnets" in part.set) or (
        isinstance(part, Match) and part.field in _ENDS
    )


MUTANTS: dict[str, Spoil] = {
    # The compiler is wrong; simulator and kernel agree on it, and the allowlist's meaning does not.
    "no subnet guard": _without(_is_subnets),
    "shared interface not told apart": _without(_is_subnets, "_shared"),
    "source and destination swapped": _fields(lambda f: _SWAP.get(f, f)),
    "inbound by the address before the port forward": _fields(
        lambda f: {p.CT_REPLY_SADDR4: p.CT_DADDR4, p.CT_REPLY_SADDR6: p.CT_DADDR6}.get(f, f)
    ),
    "last port of a range forgotten": _elements(_lower(1)),
    "last address of a prefix forgotten": _elements(_lower(0)),
    "IPv6 forgotten": _rules(lambda rule: None if Match(p.NFPROTO, ("ipv6",)) in rule else rule),
    "IPv4 forgotten": _rules(lambda rule: None if Match(p.NFPROTO, ("ipv4",)) in rule else rule),
    "gateway's directions not told apart": _without(
        lambda part: isinstance(part, Match) and part.field == p.CT_DIRECTION
    ),
    "groups are not heard": _rules(
        lambda rule: (
            None
            if any(isinstance(x, Match) and x.field in {p.DADDR4, p.DADDR6} for x in rule)
            else rule
        )
    ),
    "anybody's look-ups are lifeline": _without(
        lambda part: isinstance(part, Match) and part.field == p.SKUID, "_lifeline"
    ),
    "management from anywhere": _without(
        lambda part: isinstance(part, InSet) and "management" in part.set, "_lifeline"
    ),
    "hop limit of housekeeping not asked": _without(
        lambda part: isinstance(part, Match) and part.field in {p.HOPLIMIT6, p.TTL4}, "_lifeline"
    ),
    "wildcard interface forgotten": Spoil(
        program=lambda program: replace(
            program,
            sets=tuple(
                replace(s, elements={k: v for k, v in s.elements.items() if k[0][0] == k[0][1]})
                if s.types == ("ifname",)
                else s
                for s in program.sets
            ),
        )
    ),
    # The kernel has another text than the simulator judges by.
    "packet's own port instead of the connection's": _text(
        "ct original proto-dst . ct protocol", "th dport . ct protocol"
    ),
    "protocol of the packet instead of the connection's": _text(
        ". ct protocol map", ". meta l4proto map"
    ),
    "established passes": _text(
        "\tchain k3_forward {\n", "\tchain k3_forward {\n\t\tct state established,related accept\n"
    ),
    "evidence the wrong way round": _text(
        "ip saddr . ip daddr . meta", "ip daddr . ip saddr . meta"
    ),
    "evidence of hosts forgotten": _text(
        "update @refused_hosts6 { ip6 saddr timeout 1d counter }", "continue"
    ),
    "refused from outside not counted": _text('counter name "refused_in" drop', "drop"),
    "refused in silence": _text("reject with tcp reset", "drop"),
    "invalid packets answered": _text("ct state invalid drop", "ct state invalid continue"),
    "refused towards the outside answered": _text(
        'counter name "refused_in" drop', 'counter name "refused_in" goto k3_reject'
    ),
    "who opens in another's name is not marked": _text("ct label set 127", "accept"),
    "what is so marked is kept": _text("ct label 127 return", "ct label 127 continue"),
    "outside names of the inside are tracked": _text("notrack", "accept"),
    "gateway's errors about kept flows forgotten": _text("jump k3_errors", "continue"),
    "gateway's errors about all flows pass": _text("jump k3_errors", "accept"),
    "gateway's output forgotten": _text("chain k3_output {\n", "chain k3_output {\n\t\taccept\n"),
}
