"""Warnings: each with its place and words, and none about the sample."""

from datetime import date
from pathlib import Path

import pytest

from ecluse.config import read_directory, warnings_of
from ecluse.config.lint import is_example
from ecluse.policy.networks import parse_network
from tests.unit.config.samples import DAY, TO, L


def test_nothing_is_odd_about_the_sample(files):
    assert files.warnings() == []


def test_the_day_of_the_review_itself_is_not_late(files):
    assert files.warnings(date(2027, 1, 31)) == []


CASES = {
    "review passed": (
        "review: 2027-01-31",
        "review: 2026-10-31",
        (
            f"{L}11:13: the review of 'laboratory' was due on 2026-10-31. Better: check the"
            " addresses with the partner, and write a new date"
        ),
    ),
    "no review": (
        "    review: 2027-01-31\n",
        "",
        f"{L}2:5: 'laboratory' has no review date. Better: review: YYYY-MM-DD",
    ),
    "no contact": (
        '    contact: "+33 5 55 55 01 00"\n',
        "",
        (
            f"{L}2:5: 'laboratory' has no contact: nobody to call when it fails. Better: add"
            " a phone number"
        ),
    ),
    "no owner": (
        "    owner: Biology\n",
        "",
        (
            f"{L}2:5: 'laboratory' has no owner: nobody to ask whether it may be cut. Better:"
            " add who needs it"
        ),
    ),
    "vital by name only": (
        TO,
        "to: results.lab.example",
        (
            f"{L}9:7: vital service 'laboratory' has no fixed address: if DNS fails, only the"
            " last addresses seen are kept. Better: add its addresses, if the partner has"
            " fixed ones"
        ),
    ),
    "inside": (
        TO,
        "to: [203.0.113.10, 10.20.4.7]",
        (
            f"{L}9:28: '10.20.4.7' lies inside zone 'offices': traffic to it never crosses"
            " the gate. Better: the partner's address outside"
        ),
    ),
    "no such family": ("zones: [care]", "zones: [offices]", None),
    "unbounded": (
        TO,
        "to: any\n        unbounded: true",
        (
            f"{L}9:13: 'laboratory' keeps '0.0.0.0/0' open, the whole internet or much of it,"
            " for these ports"
        ),
    ),
    "ah of a name": (
        "ports: [tcp/443]",
        "ports: [tcp/443, ah]",
        (
            f"{L}10:16: 'ah' of 'laboratory' is kept over IPv4 alone: over IPv6 it can't be"
            " told from what it carries. Better: esp, or a name that has no IPv6 address"
        ),
    ),
    "private without names": (
        TO,
        "to: 10.200.0.9\n        private: true",
        f"{L}10:18: 'private' is about host names, and this destination has none: drop it",
    ),
    "nothing vital": (
        "criticality: vital",
        "criticality: important",
        "site.yaml:1:1: no service is vital: 'cut' keeps nothing but the lifeline",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_services(files, case):
    old, new, said = CASES[case]
    files.labs(old, new)
    found = files.warnings(dns="important" if case == "nothing vital" else "vital")
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
    assert files.warnings() == [f"{L}9:49: {said}"]
    files.write("allowlist.d/10-labs.yaml", text.replace("[offices]", "[offices, gateway]"))
    assert files.warnings() == []


SITE_CASES = {
    "no management": (
        "  management: {networks: [10.90.0.0/24], ports: [tcp/22]}\n",
        "",
        (
            "site.yaml:12:3: no management network: at 'isolate' and 'cut' nobody reaches the"
            " gateway from afar, only its console. Better: lifeline: {management: {networks:"
            " [...], ports: [tcp/22]}}"
        ),
    ),
    "management from everywhere": (
        "networks: [10.90.0.0/24]",
        "unbounded: true, networks: [0.0.0.0/0]",
        "site.yaml:12:27: management is open to the whole internet at every level",
    ),
    "IPv6 without nd": (
        "presets: [dhcp, nd, vrrp]",
        "presets: [dhcp]",
        (
            "site.yaml:13:12: zones have IPv6 subnets and the lifeline has no 'nd': without"
            " neighbour discovery IPv6 stops at a cut. Better: presets: [nd]"
        ),
    ),
    "names without resolvers": (
        "resolvers: [192.0.2.53]\n",
        "",
        (
            "site.yaml:1:1: 1 destinations are host names and there are no resolvers to look"
            " them up. Better: add the addresses of DNS servers"
        ),
    ),
    "own resolver": (
        "resolvers: [192.0.2.53]",
        "resolvers: [127.0.0.1]",
        (
            "site.yaml:14:13: the resolver 127.0.0.1 is this machine: the lifeline does not"
            " keep what it asks outside. Better: add a vital service with zones: [gateway]"
            " for it"
        ),
    ),
}


@pytest.mark.parametrize("case", SITE_CASES)
def test_site(files, case):
    old, new, said = SITE_CASES[case]
    files.site(old, new)
    assert files.warnings() == [said]


ENDS = "a cut ends live connections of 'laboratory' to '*.lab.example'"


@pytest.mark.parametrize(
    ("gate", "labs", "said"),
    [
        ("", {TO: 'to: "*.lab.example"'}, True),
        ("  mode: cut\n", {TO: 'to: "*.lab.example"'}, True),
        # Kept by `reduced`, so not meant to end there either.
        ("", {TO: 'to: "*.lab.example"', "criticality: vital": "criticality: important"}, True),
        ("  mode: always\n", {TO: 'to: "*.lab.example"'}, False),
        ("", {TO: 'to: ["*.lab.example", 203.0.113.10]'}, False),
        ("  mode: cut\n", {}, False),
        ("", {TO: 'to: "*.lab.example"', "criticality: vital": "criticality: deferrable"}, False),
        ("", {TO: 'to: "*.lab.example"', "zones: [care]": "zones: [gateway]"}, False),
    ],
)
def test_connections_to_a_wildcard_that_a_cut_ends(files, gate, labs, said):
    if gate:
        files.dns_gate(gate)
    text = (files.path / "allowlist.d/10-labs.yaml").read_text()
    for old, new in labs.items():
        assert old in text
        text = text.replace(old, new)
    files.write("allowlist.d/10-labs.yaml", text)
    found = [
        fault
        for fault in warnings_of(read_directory(files.path), DAY)
        if fault.wrong.startswith(ENDS)
    ]
    assert len(found) == said
    if found:
        assert (found[0].line, found[0].column) == (9, 13)
        assert "To keep them: dns_gate: {mode: always} in site.yaml" in found[0].wrong


def test_a_wildcard_of_the_gateway_alone_is_odd(files):
    files.write(
        "allowlist.d/20-more.yaml",
        (files.path / "allowlist.d/10-labs.yaml")
        .read_text()
        .replace("laboratory", "updates")
        .replace("[care]", "[gateway]")
        .replace(TO, 'to: "*.updates.example"'),
    )
    said = [f.wrong for f in warnings_of(read_directory(files.path), DAY)]
    assert any("the DNS gate does not answer the gateway itself" in wrong for wrong in said), said


def test_a_wildcard_may_lead_to_private_addresses_too(files):
    text = (files.path / "allowlist.d/10-labs.yaml").read_text()
    files.write(
        "allowlist.d/10-labs.yaml", text.replace(TO, 'to: "*.lab.example"\n        private: true')
    )
    files.dns_gate("  mode: always\n")
    assert not [
        f.wrong for f in warnings_of(read_directory(files.path), DAY) if "'private'" in f.wrong
    ]


@pytest.mark.examples
def test_the_example_unchanged_is_warned_about_before_it_goes_into_service():
    loaded = read_directory(Path(__file__).parents[3] / "config")
    (only,) = warnings_of(loaded, DAY)
    assert (
        "36 addresses and names are examples of the documentation, which lead nowhere" in only.wrong
    )
    assert (Path(only.file).name, only.line) == ("10-infrastructure.yaml", 18)


@pytest.mark.examples
def test_one_example_is_told_as_one(files):
    files.labs("[results.lab.example, 203.0.113.10]", "[results.laboratory.fr, 195.0.0.10]")
    (only,) = [
        w.wrong for w in warnings_of(read_directory(files.path), DAY) if "documentation" in w.wrong
    ]
    assert only.startswith(
        "an example of the documentation, which leads nowhere: what it should keep is refused"
    )


@pytest.mark.examples
def test_a_site_of_its_own_addresses_has_no_example(files):
    files.labs("[results.lab.example, 203.0.113.10]", "[results.laboratory.fr, 195.0.0.10]")
    files.site("192.0.2.53", "10.10.0.53")
    assert not [w for w in warnings_of(read_directory(files.path), DAY) if "example" in w.wrong]


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("203.0.113.0/28", True),
        ("2001:db8:1::/48", True),
        ("0.0.0.0/0", False),
        ("203.0.112.0/22", False),
    ],
)
def test_a_prefix_is_an_example_where_all_of_it_is(text, example):
    network = parse_network(text)
    assert network is not None
    assert is_example(network) is example


@pytest.mark.parametrize("name", ["a.example", "example.com", "x.example.org", "a.test"])
def test_a_name_of_the_documentation_is_an_example(name):
    assert is_example(name)
    assert not is_example(name.replace("example", "exemple").replace("test", "text"))


def test_an_extension_that_fails_is_a_warning_and_hides_no_other(files, monkeypatch):
    def fail(_policy, _document):
        raise RuntimeError("half installed")

    monkeypatch.setattr("ecluse.dnsproxy.lint.find_warnings", fail)
    files.dns_gate("  mode: cut\n")
    files.labs('    contact: "+33 5 55 55 01 00"\n', "")
    found = files.warnings()
    wrong = "dns_gate could not look for warnings (RuntimeError: half installed)"
    assert f"site.yaml:1:1: {wrong}" in found
    assert any("has no contact" in one for one in found)


def by_number(files, *destinations):
    lines = [
        "  - name: routing\n    title: Routing\n    owner: x\n    contact: x",
        "    criticality: vital\n    zones: [gateway]\n    destinations:",
        *(f"      - {one}" for one in destinations),
        "    review: 2027-01-31\n",
    ]
    files.write("allowlist.d/20-more.yaml", "\n".join(["services:", *lines]))
    return [warning for warning in files.warnings() if "20-more" in warning]


PEER = "{to: 203.0.113.9, ports: [proto/41]}"


def test_a_peer_of_the_gateway_may_speak_first(files):
    (told,) = by_number(files, PEER)
    assert told.endswith(
        "'proto/41' of 'routing': a peer that speaks first, or after ten silent minutes, is"
        " refused. Better: a second destination with 'from'"
    )
    assert by_number(files, PEER, PEER.replace("to", "from", 1)) == []
    assert by_number(files, "{to: 224.0.0.10, ports: [proto/88]}") == [], "a group is heard"


def test_ospf_needs_its_groups(files):
    ospf = "{to: 203.0.113.9, ports: [proto/89]}"
    (told,) = by_number(files, ospf, ospf.replace("to", "from", 1))
    assert told.endswith(
        "'proto/89' of 'routing': OSPF finds its neighbours by groups."
        " Better: lifeline: {presets: [ospf]}"
    )
    groups = "{to: [224.0.0.5, 224.0.0.6], ports: [proto/89]}"
    assert by_number(files, groups, ospf, ospf.replace("to", "from", 1)) == []
    files.site("presets: [dhcp, nd, vrrp]", "presets: [dhcp, nd, ospf]")
    assert by_number(files, ospf, ospf.replace("to", "from", 1)) == []
