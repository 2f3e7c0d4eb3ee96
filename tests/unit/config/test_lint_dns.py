"""Warnings about DNS."""

import pytest

from tests.unit.config.samples import SECOND

SERVER = SECOND.format(
    inside="hosts: [10.20.0.53]", way="to", target="192.0.2.53", ports="udp/53, tcp/53"
)


NO_DNS = "and port 53 is kept neither for it nor for a server that it could ask"


def without_dns(files, *, site: str = "", more: str = "") -> dict[str, str]:
    """Give what is said of zones without DNS, by zone and level."""
    if site:
        files.site("resolvers: [192.0.2.53]", f"resolvers: [192.0.2.53]\n{site}")
    if more:
        files.write("allowlist.d/20-more.yaml", more)
    said = [line for line in files.warnings(dns="") if NO_DNS in line]
    return {
        line.split("zone '")[1].split("'")[0]: line.split("at '")[1].split("'")[0] for line in said
    }


def test_a_zone_that_can_look_nothing_up_at_a_cut_is_named(files):
    """Each zone by itself, the gateway too, at the most closed level that keeps a name for it."""
    said = (
        f"site.yaml:4:5: at 'cut' zone 'care' has no DNS: 'laboratory' is known by name, {NO_DNS}"
    )
    assert files.warnings(dns="") == [
        (
            f"{said}. Better: a service that 'cut' keeps with ports: [udp/53, tcp/53] for the"
            " DNS servers, or dns_gate: {mode: cut}"
        )
    ]
    files.labs("zones: [care]", "zones: [care, offices, gateway]")
    assert without_dns(files) == {"care": "cut", "offices": "cut", "gateway": "cut"}
    # A server of the inside, or the gateway's own, can be asked by all.
    assert without_dns(files, more=SERVER.replace("important", "vital")) == {}
    assert (
        without_dns(
            files,
            more=SERVER.replace("important", "vital").replace(
                "hosts: [10.20.0.53]", "zones: [gateway]"
            ),
        )
        == {}
    )
    # Machines that ask outside themselves are asked by nobody; DNS that a level does not keep is
    # none there.
    own = SERVER.replace("important", "vital").replace("hosts: [10.20.0.53]", "zones: [care]")
    assert without_dns(files, more=own) == {"offices": "cut", "gateway": "cut"}
    assert set(without_dns(files, more=SERVER)) == {"care", "offices", "gateway"}
    assert without_dns(files, more=SERVER.replace("udp/53, ", "")) != {}, "TCP alone is no DNS"
    files.labs("criticality: vital", "criticality: important")
    assert without_dns(files, more=own.replace("zones: [care]", "zones: [offices]")) == {
        "care": "reduced"
    }


def test_the_gate_is_dns_for_the_zones_and_the_insides_servers_for_the_gateway(files):
    files.labs("zones: [care]", "zones: [care, gateway]")
    assert without_dns(files, site="dns_gate: {mode: cut}") == {"gateway": "cut"}
    named = "dns_gate: {mode: cut, internal: [{names: [chu.example], servers: [10.20.0.53]}]}"
    assert without_dns(files, site=named) == {}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", False),
        ("dns_gate: {mode: cut}", True),
        ("dns_gate: {mode: always}", True),
        ("dns_gate: {mode: cut, internal: []}", False),
        ("dns_gate: {mode: cut, internal: [{names: [chu.example], servers: [10.20.0.53]}]}", False),
    ],
)
def test_a_gate_that_knows_no_server_of_the_inside_is_warned_about(files, written, said):
    files.site("resolvers: [192.0.2.53]", f"resolvers: [192.0.2.53]\n{written}")
    found = [
        line for line in files.warnings() if "limit of one machine (50 questions a second)" in line
    ]
    assert len(found) == said
