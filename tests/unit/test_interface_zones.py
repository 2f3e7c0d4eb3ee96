"""Which zones an interface is in: as nftables matches the same patterns in the kernel."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ecluse.interface_zones import InterfaceZones, matching_patterns
from ecluse.policy import Policy
from ecluse.ruleset.program import ifname_interval
from tests.unit.ruleset.policies import SITE

names = st.text("abv01.", min_size=1, max_size=5)
patterns = st.one_of(names, names.map(lambda name: f"{name}*"))


def policy(*interfaces: tuple[str, ...]) -> Policy:
    zones = zip(SITE.zones, interfaces, strict=False)
    site = replace(SITE, zones=tuple(replace(zone, interfaces=one) for zone, one in zones))
    return Policy(site, ())


@given(st.lists(patterns, min_size=1, max_size=3, unique=True), names)
def test_a_name_is_in_a_zone_where_the_kernel_matches_it(some, name):
    def matches(pattern):
        low, high = ifname_interval(pattern)
        return low <= ifname_interval(name)[0] <= high

    zones = InterfaceZones(policy(tuple(some))).zones_of(name)
    meant = [pattern for pattern in some if matches(pattern)]
    assert [zone.name for zone in zones] == [SITE.zones[0].name] * len(meant)
    assert matching_patterns(policy(tuple(some)).site.zones[0], name) == meant


def test_an_interface_may_be_in_several_zones_or_in_none():
    zones = InterfaceZones(policy(("lan0", "vlan1*"), ("vlan*",)))
    one, other = (zone.name for zone in SITE.zones[:2])
    assert [zone.name for zone in zones.zones_of("vlan12")] == [one, other]
    assert [zone.name for zone in zones.zones_of("vlan2")] == [other]
    assert [zone.name for zone in zones.zones_of("lan0")] == [one]
    assert zones.zones_of("lan01") == []
