"""Strategies for policies, addresses and connections in a small world, so that they often meet."""

from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from ecluse.policy import (
    CUT,
    ISOLATE,
    OPEN,
    Criticality,
    Destination,
    Direction,
    Level,
    Lifeline,
    Policy,
    Preset,
    Service,
    Site,
    Traffic,
    Zone,
)
from ecluse.ruleset.conntrack_entry import ConntrackEntry, Tuple

net = ip_network
CARE = Zone("care", "Care", ("care0",), (net("10.10.0.0/24"), net("2001:db8:10::/64")))
ADMIN = Zone("admin", "Administration", ("core0",), (net("10.20.0.0/24"), net("2001:db8:20::/64")))
GUESTS = Zone("guests", "Guests", ("core0", "wlan*"), (net("10.30.0.0/24"),))
REDUCED = Level("reduced", "Reduced", frozenset({Criticality.VITAL, Criticality.IMPORTANT}))
LIFELINE = Lifeline(
    (net("192.0.2.64/28"),), (Traffic(6, 22, 22),), (Preset.DHCP, Preset.ND, Preset.VRRP)
)
SITE = Site(
    "golden",
    "",
    (CARE, ADMIN, GUESTS),
    LIFELINE,
    (ip_address("192.0.2.53"),),
    (OPEN, REDUCED, CUT, ISOLATE),
)
ZONES = ("care", "admin", "guests", "gateway")
INSIDE = {
    "care": ["10.10.0.5", "10.10.0.9", "2001:db8:10::5"],
    "admin": ["10.20.0.5", "2001:db8:20::5"],
    "guests": ["10.30.0.5"],
}
OUTSIDE = [
    "203.0.113.1",
    "203.0.113.9",
    "203.0.113.77",
    "198.51.100.3",
    "2001:db8:ff::1",
    "2001:db8:ff:1::9",
]
NETWORKS = [
    *(f"{a}/32" for a in OUTSIDE[:4]),
    "203.0.113.0/25",
    "203.0.113.0/28",
    "203.0.113.8/29",
    "198.51.100.0/24",
    "0.0.0.0/0",
    "2001:db8:ff::1/128",
    "2001:db8:ff::/48",
    "2001:db8:ff:1::/64",
]
PORTS = [22, 53, 443, 444, 500, 1000]
NAMES = ["a.example", "b.example"]

traffics = st.one_of(
    st.builds(
        lambda proto, port: Traffic(proto, port, port),
        st.sampled_from([6, 17]),
        st.sampled_from(PORTS),
    ),
    st.builds(
        lambda proto, a, b: Traffic(proto, min(a, b), max(a, b)),
        st.sampled_from([6, 17]),
        st.sampled_from(PORTS),
        st.sampled_from(PORTS),
    ),
    st.sampled_from([Traffic(50), Traffic(47), Traffic(1)]),
)
destinations = st.builds(
    lambda direction, hosts, nets, traffic: Destination(
        direction, tuple(hosts), tuple(net(n) for n in nets), tuple(traffic)
    ),
    st.sampled_from(list(Direction)),
    st.lists(st.sampled_from(NAMES), max_size=1),
    st.lists(st.sampled_from(NETWORKS), max_size=3),
    st.lists(traffics, min_size=1, max_size=3),
)


@st.composite
def services(draw, name):
    zones = draw(st.lists(st.sampled_from(ZONES), unique=True, max_size=3))
    hosts = draw(
        st.lists(
            st.sampled_from(["10.10.0.5/32", "10.20.0.0/28", "2001:db8:10::5/128"]),
            unique=True,
            max_size=2,
            min_size=0 if zones else 1,
        )
    )
    return Service(
        name,
        name,
        "",
        "",
        draw(st.sampled_from(list(Criticality))),
        tuple(zones),
        tuple(net(h) for h in hosts),
        tuple(draw(st.lists(destinations, min_size=1, max_size=2))),
    )


@st.composite
def policies(draw):
    count = draw(st.integers(1, 4))
    return Policy(SITE, tuple(draw(services(f"svc-{n}")) for n in range(count)))


addresses = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(
            st.sampled_from([ip_address(a) for a in OUTSIDE]), max_size=3, unique=True
        ).map(tuple)
        for name in NAMES
    },
)
levels = st.fixed_dictionaries(
    {zone: st.sampled_from(["open", "reduced", "cut", "isolate"]) for zone in ZONES}
)


@st.composite
def connections(draw, zone):
    """A connection of a zone (or the gateway) with the outside: (connection, opened inside?)."""
    outside = ip_address(draw(st.sampled_from(OUTSIDE)))
    if zone == "gateway":
        inside = ip_address("192.0.2.1" if outside.version == 4 else "2001:db8:1::1")
    else:
        same = [ip_address(a) for a in INSIDE[zone] if ip_address(a).version == outside.version]
        if not same:
            outside = ip_address(OUTSIDE[0])
            same = [ip_address(a) for a in INSIDE[zone] if ip_address(a).version == 4]
        inside = draw(st.sampled_from(same))
    protocol = draw(st.sampled_from([6, 17, 50, 47, 1 if outside.version == 4 else 58]))
    port = draw(st.sampled_from([*PORTS, 700])) if protocol in {6, 17} else 0
    ours = draw(st.booleans())
    source, destination = (inside, outside) if ours else (outside, inside)
    sport = 40000 if port else 0
    return (
        ConntrackEntry(
            protocol,
            Tuple(source, destination, sport, port),
            Tuple(destination, source, port, sport),
        ),
        ours,
    )


def keeps(policy, addresses_, level, zone, connection, ours) -> set[str]:
    """The meaning of an allowlist, said directly: which services keep this connection from this
    zone at this level.
    """
    found = set()
    inside = connection.original.source if ours else connection.reply.source
    outside = connection.original.destination if ours else connection.original.source
    for service in policy.services:
        if service.criticality not in level.keeps:
            continue
        if zone not in service.zones and not any(
            inside in h for h in service.hosts if h.version == inside.version
        ):
            continue
        for d in service.destinations:
            if (d.direction is Direction.OUTBOUND) != ours:
                continue
            there = any(outside in n for n in d.networks if n.version == outside.version) or any(
                outside in addresses_.get(h, ()) for h in d.hosts
            )
            port = connection.original.destination_port
            for t in d.traffic:
                protocol = 58 if t.protocol == 1 and outside.version == 6 else t.protocol
                if (
                    there
                    and protocol == connection.protocol
                    and (t.first is None or t.first <= port <= t.last)
                ):
                    found.add("svc_" + service.name.replace("-", "_"))
    return found
