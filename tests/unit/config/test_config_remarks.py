"""What is odd but not wrong: each with its place and its words, and not said of the sample."""

from datetime import date

import pytest

from ecluse.config import read_directory, warnings_of

DAY = date(2026, 11, 1)


def remarks(files, day=DAY, dns="vital"):
    if dns:
        files.dns(dns)
    return [
        str(fault).replace(f"{files.path}/", "")
        for fault in warnings_of(read_directory(files.path), day)
    ]


def test_nothing_is_odd_about_the_sample(files):
    assert remarks(files) == []


def test_the_day_of_the_review_itself_is_not_late(files):
    assert remarks(files, date(2027, 1, 31)) == []


L = "allowlist.d/10-labs.yaml:"
TO = "to: [results.lab.example, 203.0.113.10]"

CASES = {
    "review passed": ("review: 2027-01-31", "review: 2026-10-31", f"{L}11:13: the review of 'laboratory' was due on 2026-10-31. Better: check the addresses with the partner, and write a new date"),
    "no review": ("    review: 2027-01-31\n", "", f"{L}2:5: 'laboratory' has no review date. Better: review: YYYY-MM-DD"),
    "no contact": ('    contact: "+33 5 55 55 01 00"\n', "", f"{L}2:5: 'laboratory' has no contact: nobody to call when it fails. Better: add a phone number"),
    "no owner": ("    owner: Biology\n", "", f"{L}2:5: 'laboratory' has no owner: nobody to ask whether it may be cut. Better: add who needs it"),
    "vital by name only": (TO, "to: results.lab.example", f"{L}9:7: vital service 'laboratory' has no fixed address: if DNS fails, only the last addresses seen are kept. Better: add its addresses, if the partner has fixed ones"),
    "inside": (TO, "to: [203.0.113.10, 10.20.4.7]", f"{L}9:28: '10.20.4.7' lies inside zone 'offices': traffic to it never crosses the gate. Better: the partner's address outside"),
    "no such family": ("zones: [care]", "zones: [offices]", None),
    "unbounded": (TO, "to: any\n        unbounded: true", f"{L}9:13: 'laboratory' keeps '0.0.0.0/0' open, the whole internet or much of it, for these ports"),
    "ah of a name": ("ports: [tcp/443]", "ports: [tcp/443, ah]", f"{L}10:16: 'ah' of 'laboratory' is kept over IPv4 alone: over IPv6 it can't be told from what it carries. Better: esp, or a name that has no IPv6 address"),
    "private without names": (TO, "to: 10.200.0.9\n        private: true", f"{L}10:18: 'private' is about host names, and this destination has none: drop it"),
    "nothing vital": ("criticality: vital", "criticality: important", "site.yaml:1:1: no service is vital: 'cut' keeps nothing but the lifeline"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_services(files, case):
    old, new, said = CASES[case]
    files.labs(old, new)
    found = remarks(files, dns="important" if case == "nothing vital" else "vital")
    if said is None:
        assert found == []
    else:
        assert said in found
        assert len(found) == 1 or case == "unbounded"


def test_a_family_that_nobody_inside_has(files):
    text = (files.path / "allowlist.d/10-labs.yaml").read_text()
    text = text.replace("[care]", "[offices]").replace(
        "203.0.113.10", "203.0.113.10, 2001:db8:99::1"
    )
    files.write("allowlist.d/10-labs.yaml", text)
    said = "'2001:db8:99::1' is of no use: the inside of 'laboratory' has no IPv6 subnet"
    assert remarks(files) == [f"{L}9:49: {said}"]
    files.write("allowlist.d/10-labs.yaml", text.replace("[offices]", "[offices, gateway]"))
    assert remarks(files) == []


SITE_CASES = {
    "no management": ("  management: {networks: [10.90.0.0/24], ports: [tcp/22]}\n", "", "site.yaml:12:3: no management network: at 'isolate' and 'cut' nobody reaches the gateway from afar, only its console. Better: lifeline: {management: {networks: [...], ports: [tcp/22]}}"),
    "management from everywhere": ("networks: [10.90.0.0/24]", "unbounded: true, networks: [0.0.0.0/0]", "site.yaml:12:27: management is open to the whole internet at every level"),
    "IPv6 without nd": ("presets: [dhcp, nd, vrrp]", "presets: [dhcp]", "site.yaml:13:12: zones have IPv6 subnets and the lifeline has no 'nd': without neighbour discovery IPv6 stops at a cut. Better: presets: [nd]"),
    "names without resolvers": ("resolvers: [192.0.2.53]\n", "", "site.yaml:1:1: 1 destinations are host names and there are no resolvers to look them up. Better: add the addresses of DNS servers"),
    "own resolver": ("resolvers: [192.0.2.53]", "resolvers: [127.0.0.1]", "site.yaml:14:13: the resolver 127.0.0.1 is this machine: the lifeline does not keep what it asks outside. Better: add a vital service with zones: [gateway] for it"),
}  # fmt: skip


@pytest.mark.parametrize("case", SITE_CASES)
def test_site(files, case):
    old, new, said = SITE_CASES[case]
    files.site(old, new)
    assert remarks(files) == [said]


SECOND = """\
services:
  - name: second
    title: Second
    owner: x
    contact: "x"
    criticality: important
    {inside}
    destinations:
      - {way}: [{target}]
        ports: [{ports}]
    review: 2027-01-31
"""


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
    said = [line for line in remarks(files, dns="") if NO_DNS in line]
    return {
        line.split("zone '")[1].split("'")[0]: line.split("at '")[1].split("'")[0] for line in said
    }


def test_a_zone_that_can_look_nothing_up_at_a_cut_is_named(files):
    """Each zone by itself, the gateway too, at the most closed level that keeps a name for it."""
    said = (
        f"site.yaml:4:5: at 'cut' zone 'care' has no DNS: 'laboratory' is known by name, {NO_DNS}"
    )
    assert remarks(files, dns="") == [
        f"{said}. Better: a service that 'cut' keeps with ports: [udp/53, tcp/53] for the DNS servers, or dns_gate: {{mode: cut}}"
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
        line for line in remarks(files) if "limit of one machine (50 questions a second)" in line
    ]
    assert len(found) == said


@pytest.mark.parametrize(
    ("file", "inside", "way", "target", "ports", "shared"),
    [
        ("20", "zones: [care]", "to", "203.0.113.10", "tcp/443", "203.0.113.10"),
        ("20", "zones: [care]", "to", "203.0.113.0/28", "tcp/1-1000", "203.0.113.10"),
        ("05", "zones: [care]", "to", "203.0.113.0/28", "tcp/443", "203.0.113.10"),
        ("20", "zones: [care]", "to", "results.lab.example", "tcp/443", "results.lab.example"),
        ("20", "hosts: [10.10.4.7]", "to", "203.0.113.10", "tcp/443", "203.0.113.10"),
        ("20", "zones: [offices]", "to", "203.0.113.10", "tcp/443", None),
        ("20", "hosts: [10.20.4.7]", "to", "203.0.113.10", "tcp/443", None),
        ("20", "zones: [care]", "to", "203.0.113.10", "tcp/444, udp/443, icmp", None),
        ("20", "zones: [care]", "to", "203.0.113.11", "tcp/443", None),
        ("20", "zones: [care]", "from", "203.0.113.10", "tcp/443", None),
    ],
)
def test_overlaps(files, file, inside, way, target, ports, shared):
    files.write(
        f"allowlist.d/{file}-second.yaml",
        SECOND.format(inside=inside, way=way, target=target, ports=ports),
    )
    found = [line.partition(": ")[2] for line in remarks(files) if "share" in line]
    first, later = ("laboratory", "second") if file == "20" else ("second", "laboratory")
    said = f"'{later}' and '{first}' share '{shared}' on the same port: packets are counted for '{first}', which comes first"
    assert found == ([said] if shared else [])


def test_a_service_does_not_overlap_itself(files):
    files.labs(
        "ports: [tcp/443]", "ports: [tcp/443]\n      - to: 203.0.113.10\n        ports: [tcp/443]"
    )
    assert remarks(files) == []


def test_files_that_are_not_read_are_named(files):
    files.write("allowlist.d/20-more.yaml.disabled", "")
    assert remarks(files) == [
        "allowlist.d/20-more.yaml.disabled: this file is not read: its name does not end in .yaml"
    ]


def test_files_that_everyone_may_change(files):
    path = files.path / "allowlist.d/10-labs.yaml"
    path.chmod(0o666)
    assert remarks(files) == [
        f"{L[:-1]}: every user of this machine may change it; type: chmod o-w {L[:-1]}"
    ]
