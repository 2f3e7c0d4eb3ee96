"""Sites for the proof: drawn by a seed, with everything that a site may have, in a small world."""

import random
from ipaddress import ip_address, ip_network

from ecluse.policy import (
    CUT,
    ISOLATE,
    OPEN,
    Criticality,
    Destination,
    Direction,
    DnsLimits,
    DnsMode,
    DnsProxySettings,
    InternalDomains,
    Lifeline,
    Policy,
    Preset,
    Service,
    Site,
    Traffic,
    Zone,
)
from ecluse.proof.meaning import Meaning
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.table_names import learned_set
from tests.unit.ruleset.policies import NETWORKS, OUTSIDE, PORTS, REDUCED

UIDS = (990, 989)
LINKS = ["lan0", "lan1", "core0", "wlan*", "vlan1*"]
SUBNETS = [
    *("10.10.0.0/24", "10.11.0.0/16", "10.20.0.0/24", "10.30.1.0/25", "10.30.1.128/25"),
    *("2001:db8:10::/64", "2001:db8:20::/48", "2001:db8:30::/64"),
]
ADDRESSES = [*OUTSIDE, "10.200.0.9", "2001:db8:1::53"]
GROUPS = ["224.0.0.9/32", "ff02::9/128"]
NAMES = ["a.example", "b.example", "c.example"]


def _some(draw: random.Random, items, most: int, least: int = 0) -> list:
    return draw.sample(list(items), draw.randint(least, min(most, len(items))))


def _traffic(draw: random.Random) -> Traffic:
    protocol = draw.choice([6, 17, 17, 6, 132, 50, 47, 1, 41])
    if protocol not in {6, 17, 132}:
        return Traffic(protocol)
    first, last = sorted((draw.choice(PORTS), draw.choice(PORTS)))
    return Traffic(protocol, first, last if draw.random() < 0.4 else first)


def _destination(draw: random.Random, *, gateway: bool, dns: DnsMode) -> Destination:
    inbound = draw.random() < 0.35
    named = [] if inbound and draw.random() < 0.7 else _some(draw, NAMES, 2)
    return Destination(
        Direction.INBOUND if inbound else Direction.OUTBOUND,
        tuple(named),
        tuple(
            map(
                ip_network,
                [*_some(draw, NETWORKS, 3)]
                + (_some(draw, GROUPS, 1) if gateway and not inbound else []),
            )
        ),
        tuple(dict.fromkeys(_traffic(draw) for _ in range(draw.randint(1, 3)))),
        private=draw.random() < 0.3,
        wildcards=("w.example",)
        if not inbound and dns is not DnsMode.NEVER and draw.random() < 0.3
        else (),
    )


def _zones(draw: random.Random) -> tuple[Zone, ...]:
    subnets = [ip_network(n) for n in draw.sample(SUBNETS, len(SUBNETS))]
    number = draw.randint(1, 3)
    links = draw.sample(LINKS, len(LINKS))
    zones = []
    for at in range(number):
        mine = subnets[at :: number + draw.randint(0, 1)][:3]
        subnets = [s for s in subnets if s not in mine] if len(subnets) > 3 else subnets
        zones.append((f"z{at}", [links[at]], mine))
    taken: set = set()
    made = []
    for name, own, mine in zones:
        free = tuple(s for s in mine if s not in taken) or (
            ip_network(f"10.{40 + len(made)}.0.0/24"),
        )
        taken |= set(free)
        shared = [links[-1]] if draw.random() < 0.4 else []
        made.append(Zone(name, name, (*own, *shared), free))
    return tuple(made)


def site(seed: int) -> tuple[Policy, dict, dict, dict]:
    """Draw a policy, addresses of names, levels, and what the DNS gate learned."""
    draw = random.Random(seed)
    zones = _zones(draw)
    dns = draw.choice(list(DnsMode))
    inside = [a for zone in zones for a in zone.subnets]
    proxy = DnsProxySettings(
        dns,
        5300,
        (InternalDomains(("h.example",), (inside[0][9],)),) if draw.random() < 0.5 else (),
        DnsLimits(),
    )
    line = Lifeline(
        tuple(map(ip_network, _some(draw, ["192.0.2.64/28", "2001:db8:90::/64"], 2))),
        (Traffic(6, 22, 22), *([Traffic(17, 500, 510)] if draw.random() < 0.3 else [])),
        tuple(_some(draw, Preset, 4)),
    )
    resolvers = tuple(map(ip_address, _some(draw, ["192.0.2.53", "2001:db8:1::53"], 2)))
    levels = (OPEN, REDUCED, CUT, ISOLATE)
    policy_site = Site("random", "", zones, line, resolvers, levels, proxy)
    names = [zone.name for zone in zones]
    hosts = [
        n for s in inside for n in (ip_network(s[5]), *(s.subnets(new_prefix=s.prefixlen + 3)))
    ]
    services = []
    for number in range(draw.randint(0, 4)):
        where = _some(draw, [*names, "gateway"], 3)
        own = (
            _some(draw, hosts[:12], 2, 0 if where else 1)
            if draw.random() < 0.5 or not where
            else []
        )
        distinct = [
            h
            for h in own
            if not any(h != o and h.version == o.version and h.overlaps(o) for o in own)
        ]
        services.append(
            Service(
                f"svc-{number}", "", "", "", draw.choice(list(Criticality)), tuple(where),
                tuple(distinct or own[:1]),
                tuple(
                    _destination(draw, gateway=where == ["gateway"] and not own, dns=dns)
                    for _ in range(draw.randint(1, 2))
                ),
            )
        )  # fmt: skip
    policy = Policy(policy_site, tuple(services))
    addresses = {n: tuple(map(ip_address, _some(draw, ADDRESSES, 3))) for n in NAMES}
    every = draw.random()
    wanted = [draw.choice(levels).name for _ in policy.zone_names()]
    chosen = dict(zip(policy.zone_names(), wanted, strict=True))
    if every < 0.15:
        chosen = dict.fromkeys(chosen, "open")
    learned = {
        s.name: frozenset(map(ip_address, _some(draw, ADDRESSES, 2)))
        for s in services
        if any(
            d.direction is Direction.OUTBOUND and (d.hosts or d.wildcards) for d in s.destinations
        )
    }
    return policy, addresses, chosen, learned if dns is not DnsMode.NEVER else {}


def meaning(policy: Policy, addresses: dict, levels: dict, learned: dict) -> Meaning:
    return Meaning(policy, addresses, levels, learned, UIDS)


def text(policy: Policy, addresses: dict, levels: dict, learned: dict) -> str:
    """Write the table as the boot unit would load it, with what was learned."""
    program = compile_program(policy, addresses, 1, UIDS)
    lines = [switch.table_text(program), switch.switch_text(policy, 1, levels)]
    for service, found in learned.items():
        for address in sorted(found, key=str):
            digit = str(address.version)
            lines += [
                f"add element inet ecluse {name} {{ {address} }}\n"
                for name in (learned_set(digit, service), learned_set(digit))
            ]
    return "".join(lines)
