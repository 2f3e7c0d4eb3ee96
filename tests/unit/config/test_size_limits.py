"""Whatever `ecluse check` takes can be built: every name and every amount has a bound, and what
exceeds it has its place.
"""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.config import load_policy
from ecluse.errors import ConfigError
from ecluse.policy import DnsMode, DnsProxySettings, Policy, Zone
from ecluse.policy.networks import parse_network
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from tests import extremes
from tests.effort import examples
from tests.unit.ruleset import policies as w

WORD = re.compile(r"[A-Za-z0-9_.]+")


NAME = re.compile(r"[a-z][a-z0-9_.]*")


LONGEST = 255
"""NFT_NAME_MAXLEN with the NUL is 256 (linux/netfilter/nf_tables.h)."""


def names_in(program):
    yield from (chain.name for chain in program.chains)
    yield from (named.name for named in program.sets)
    yield from program.counters
    yield from program.learned


@pytest.mark.parametrize("name", extremes.SITES)
def test_the_largest_legal_sites_are_compiled_and_no_name_is_too_long(tmp_path, name):
    policy = load_policy(extremes.write(tmp_path / "conf", extremes.SITES[name]()))
    program = compile_program(policy, {}, 99_999_999)
    every = list(names_in(program))
    assert len(set(every)) == len(every)
    assert all(NAME.fullmatch(each) and len(each) <= LONGEST for each in every)
    text = switch.table_text(program) + switch.switch_text(
        policy, 99_999_999, dict.fromkeys(policy.zone_names(), extremes.LEVELS[0])
    )
    assert max(map(len, WORD.findall(text))) <= LONGEST


written = st.from_regex(r"[a-z][a-z0-9-]{0,47}", fullmatch=True).filter(
    lambda name: name not in {"gateway", "elsewhere"}
)


@st.composite
def sites(draw):
    """Zones with whatever names they may have, on whatever interfaces they share."""
    zones = draw(st.lists(written, min_size=1, max_size=64, unique=True))
    shared = draw(
        st.lists(
            st.sampled_from(["lan0", "a" * 15, "b" * 14 + "*", "vlan*"]), min_size=1, unique=True
        )
    )
    made = []
    for number, zone in enumerate(zones):
        some = draw(st.lists(st.sampled_from(shared), min_size=1, unique=True))
        subnet = parse_network(f"10.{number}.0.0/16")
        assert subnet
        made.append(Zone(zone, zone, tuple(some), (subnet,)))
    return tuple(made)


@settings(max_examples=examples(60))
@given(w.policies(), sites(), written, st.integers(1, 10**12))
def test_no_name_that_goes_to_nft_is_too_long_or_stands_twice(policy, zones, name, slot):
    site = replace(policy.site, zones=zones, dns=DnsProxySettings(DnsMode.ALWAYS))
    some = tuple(zone.name for zone in zones)
    services = tuple(
        replace(one, name=f"{name}{number}"[-48:], zones=some, hosts=())
        for number, one in enumerate(policy.services)
    )
    every = list(names_in(compile_program(Policy(site, services), {}, slot)))
    assert len(set(every)) == len(every)
    assert all(NAME.fullmatch(each) and len(each) <= LONGEST for each in every)


def faults(path):
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    return [str(fault).replace(f"{path}/", "") for fault in caught.value.faults]


def zones(count, interfaces=1, subnets=1):
    return "".join(
        f"  - name: z{n}\n    interfaces: [{', '.join(f'i{n}x{k}' for k in range(interfaces))}]\n"
        f"    subnets: [{', '.join(f'10.{n}.{k}.0/24' for k in range(subnets))}]\n"
        for n in range(count)
    )


SITE = {
    "zones": (zones(65), "", "195:5: 65 zones, expected at most 64"),
    "interfaces": (
        zones(2, 129),
        "",
        "7:924: 258 interfaces in all zones together, expected at most 256",
    ),
    "subnets": (
        zones(5, 1, 201),
        "",
        "17:2845: 1005 subnets in all zones together, expected at most 1000",
    ),
    "resolvers": (
        zones(1),
        f"resolvers: [{', '.join(f'192.0.2.{n}' for n in range(17))}]\n",
        "6:195: 17 resolvers, expected at most 16",
    ),
    "management": (
        zones(1),
        (
            "lifeline: {management: {networks: [10.0.1.0/24, 10.0.2.0/24, 10.0.3.0/24],"
            f" ports: [{', '.join(f'tcp/{n}' for n in range(1, 402))}]}}}}\n"
        ),
        "6:62: 1203 networks times ports of the management, expected at most 1000",
    ),
    "internal": (
        zones(1),
        (
            f"dns_gate: {{internal: [{{names: [{', '.join(f'n{n}.example' for n in range(501))}],"
            " servers: [10.0.0.1, 10.0.0.2]}]}\n"
        ),
        "6:6922: 1002 names times servers of the inside's DNS, expected at most 1000",
    ),
}


@pytest.mark.parametrize("case", SITE)
def test_a_site_beyond_a_bound_is_told_where_it_goes_beyond(tmp_path, case):
    text, more, said = SITE[case]
    one = extremes.service(0, ["z0"], extremes.destination(["203.0.113.1"], ["tcp/443"]))
    path = extremes.write(tmp_path / "conf", (f"site: s\nzones:\n{text}{more}", [one]))
    assert faults(path) == [f"site.yaml:{said}"]


def services(count, make, criticality="vital", where=("z0",)):
    return [extremes.service(n, list(where), make(n), criticality) for n in range(count)]


def one_name(n):
    return extremes.destination([f"*.p{n}.example"], ["tcp/443"])


ALLOWLIST = {
    "services": (
        lambda: services(
            20_001, lambda n: extremes.destination([f"203.{n // 256}.{n % 256}.1"], ["tcp/1"])
        ),
        "20001 services, expected at most 20000",
    ),
    "entries": (
        lambda: services(
            2,
            lambda n: extremes.destination(
                [f"203.{n}.{k // 250}.{k % 250}" for k in range(500)],
                [f"tcp/{p}" for p in range(1, 502)],
            ),
        ),
        "501000 targets times ports times 'hosts', expected at most 500000",
    ),
    "names": (
        lambda: services(
            2,
            lambda n: extremes.destination([f"h{k}.p{n}.example" for k in range(5001)], ["tcp/1"]),
        ),
        "10002 host names and wildcards, expected at most 10000",
    ),
    "ports": (
        lambda: services(
            1,
            lambda n: extremes.destination(
                [f"203.0.113.{n}"], [f"tcp/{p}" for p in range(1, 1002)]
            ),
        ),
        (
            "1001 ports of 's00000-of-the-longest-names-that-a-site-may-give' in all its"
            " destinations, expected at most 1000"
        ),
    ),
    "by name": (
        lambda: services(251, one_name),
        "251 services with names, beside a DNS gate, expected at most 250",
    ),
    "look-ups": (
        lambda: [
            extremes.service(
                n,
                [f"z{k}" for k in range(63) if n >> k % 12 & 1 or k == n % 63],
                extremes.destination(
                    [f"203.0.113.{n}", f"198.18.{n}.0/25"], ["tcp/1", "udp/1-5", "esp"]
                ),
            )
            for n in range(200)
        ],
        re.compile(
            r"\d{5} look-ups \(kinds of services times zones times levels\), expected at most 20000"
        ),
    ),
    "rules by name": (
        lambda: services(
            240,
            lambda n: extremes.destination([f"*.p{n}.example"], ["tcp/1", "tcp/2"]),
            where=[f"z{n}" for n in range(32)],
        ),
        (
            "30720 rules of services with names (ports times zones times levels), expected at"
            " most 30000"
        ),
    ),
}


@pytest.mark.parametrize("case", ALLOWLIST)
def test_an_allowlist_beyond_a_bound_is_told_at_the_service_that_goes_beyond(tmp_path, case):
    make, said = ALLOWLIST[case]
    path = extremes.write(tmp_path / "conf", (f"site: s\nzones:\n{zones(64)}", make()))
    place, _, text = faults(path)[0].partition(": ")
    assert re.fullmatch(r"allowlist\.d/\d{5}\.yaml:\d+:11", place)
    assert said.fullmatch(text) if isinstance(said, re.Pattern) else text == said
    assert len(faults(path)) == 1
