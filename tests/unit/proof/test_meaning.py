"""The specification, by examples that a reader of the files can check."""

from ipaddress import ip_address

from ecluse.proof.formula import Words
from ecluse.proof.meaning import Meaning
from tests.unit.proof.worlds import view
from tests.unit.ruleset import policies as w

LAB, PARTNER, MACHINE = "203.0.113.1", "203.0.113.9", "10.10.0.5"


def name(text):
    return int.from_bytes(text.encode().ljust(16, b"\0"), "big")


def holds(policy, place, packets, what="pass", level="cut", addresses=None, **fields):
    meaning = Meaning(policy, addresses or {}, dict.fromkeys(w.ZONES, level), {}, (990,))
    passes, effects = meaning.at(place, Words(packets))
    homes = {"home": 1 << 9}
    point = {
        packets.level[key]: name(value)
        if key.endswith("name") or key == "srcroute"
        else int(ip_address(value))
        if isinstance(value, str)
        else value
        for key, value in {"th": 2, "state": 1, **homes, **fields}.items()
    }
    region = passes.region if what == "pass" else effects[what].region
    return packets.space.holds(region, point)


OUT = {"iifname": "care0", "oifname": "wan0", "iif": 3, "proto": 6, "tport": 443}


def test_a_kept_connection_passes_both_ways(policy):
    kept = {**OUT, "opener": MACHINE, "target": LAB}
    assert holds(policy, "forward", view(), **kept)
    back = {**kept, "iifname": "wan0", "oifname": "care0"}
    assert holds(policy, "forward", view(direction=1), **back)
    assert not holds(policy, "forward", view(), **{**kept, "target": "203.0.113.2"})
    assert not holds(policy, "forward", view(), **{**kept, "tport": 444})
    assert not holds(policy, "forward", view(), **{**kept, "proto": 17})
    assert not holds(policy, "forward", view(), **{**kept, "opener": "10.20.0.5"})
    assert not holds(policy, "forward", view(), level="isolate", **kept)
    assert holds(policy, "forward", view(), level="open", **{**kept, "tport": 444})


def test_nothing_opened_in_anothers_name_is_kept(policy):
    assert not holds(policy, "forward", view(), **OUT, opener=MACHINE, target=LAB, spoofed=1)


def test_an_error_about_a_kept_connection_passes(policy):
    about = {**OUT, "iifname": "wan0", "oifname": "care0", "opener": MACHINE, "target": LAB}
    assert holds(policy, "forward", view("error"), **about, **{"from": "198.51.100.77"})
    assert not holds(policy, "forward", view("error"), **{**about, "target": "203.0.113.2"})


def test_who_may_connect_in_may_not_be_connected_to(policy):
    inward = {**OUT, "iifname": "wan0", "oifname": "care0", "opener": PARTNER, "server": MACHINE}
    assert holds(policy, "forward", view(dnat=True), **inward, target="192.0.2.1")
    outward = {**OUT, "opener": MACHINE, "target": PARTNER}
    assert not holds(policy, "forward", view(), **outward)


def test_inside_to_inside_passes_and_the_real_interface_counts(policy):
    assert holds(
        policy, "forward", view("none"), iifname="care0", iif=3, oifname="core0", level="isolate"
    )
    vrf = {"iifname": "care0", "iif": 9, "sdif": 4, "sdifname": "wan0", "oifname": "core0"}
    assert not holds(policy, "forward", view("none"), **vrf, level="isolate")


def test_the_gateway_hears_management_and_its_services(policy):
    came = {"iifname": "wan0", "iif": 2, "proto": 6}
    v = view(hook="input")
    assert holds(policy, "input", v, **came, opener="192.0.2.70", tport=22, level="isolate")
    assert not holds(policy, "input", v, **came, opener="192.0.2.80", tport=22, level="isolate")
    assert holds(policy, "input", v, **came, opener=PARTNER, tport=443)
    assert holds(policy, "input", v, iifname="lo", iif=1, level="isolate")


def test_only_our_own_user_asks_resolvers_and_is_labelled(policy):
    ask = {"oifname": "wan0", "proto": 17, "target": "192.0.2.53", "tport": 53}
    v = view(hook="output")
    assert holds(policy, "output", v, **ask, uid=990, level="isolate")
    assert holds(policy, "output", v, "label 126", **ask, uid=990, level="isolate")
    assert not holds(policy, "output", v, **ask, uid=991, ours=1, level="isolate")
    assert holds(policy, "output", v, **ask, uid=1 << 32, ours=1, level="isolate")
    assert not holds(policy, "output", v, **ask, uid=1 << 32, level="isolate")


def test_an_outside_name_from_inside_is_not_tracked(policy):
    v = view("none", "prerouting")
    sent = {"iifname": "care0", "iif": 3, "opener": PARTNER, "target": MACHINE}
    assert holds(policy, "raw", v, "notrack", **sent, srcroute="wan0")
    assert not holds(policy, "raw", v, "notrack", **sent, srcroute="core0")
    assert not holds(policy, "raw", v, "notrack", **sent, srcroute="wan0", level="open")
    assert not holds(policy, "raw", v, "notrack", **{**sent, "opener": MACHINE}, srcroute="wan0")


def test_a_connection_in_anothers_name_is_labelled_at_open_too(policy):
    v = view(hook="prerouting")
    for level in ("open", "cut"):
        sent = {"iifname": "care0", "iif": 3, "opener": PARTNER, "srcroute": "wan0"}
        assert holds(policy, "prerouting", v, "label 127", **sent, level=level)
        assert not holds(policy, "prerouting", v, "label 127", **sent, confirmed=1, level=level)
        strange = {"iifname": "wan0", "iif": 2, "opener": MACHINE, "srcroute": "care0"}
        assert holds(policy, "prerouting", v, "label 127", **strange, level=level)


def test_the_inside_is_answered_and_nobody_else(policy):
    refused = {**OUT, "opener": MACHINE, "target": "203.0.113.2"}
    assert holds(policy, "forward", view(), "answer", **refused)
    assert not holds(policy, "forward", view(), "answer", **{**refused, "opener": "10.99.0.5"})
    assert not holds(policy, "forward", view(), "answer", **{**refused, "iifname": "wan0"})


def test_private_addresses_of_names_are_kept_only_where_it_says_so(policy):
    from dataclasses import replace

    service = policy.services[0]
    named = replace(service.destinations[0], hosts=("a.example",), networks=())
    one = replace(policy, services=(replace(service, destinations=(named,)),))
    two = replace(
        policy, services=(replace(service, destinations=(replace(named, private=True),)),)
    )
    known = {"a.example": (ip_address("10.200.0.9"),)}
    flow = {**OUT, "opener": MACHINE, "target": "10.200.0.9"}
    assert not holds(one, "forward", view(), addresses=known, **flow)
    assert holds(two, "forward", view(), addresses=known, **flow)
    for never in ("127.0.0.1", "169.254.0.1", "224.0.0.9"):
        known = {"a.example": (ip_address(never),)}
        assert not holds(two, "forward", view(), addresses=known, **{**flow, "target": never})
