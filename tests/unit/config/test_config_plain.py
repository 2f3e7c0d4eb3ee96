"""What people write by habit of other tools, or half way: each is told in one go, with what to
write instead.
"""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.config import load_policy, parsers, read_directory, warnings_of
from ecluse.config.lint import is_example
from ecluse.config.messages import InvalidValueError
from ecluse.errors import ConfigError
from ecluse.policy.networks import parse_network

DAY = date(2026, 11, 1)
HERE = "allowlist.d/10-labs.yaml"


def faults(files):
    with pytest.raises(ConfigError) as caught:
        load_policy(files.path)
    return [str(fault).replace(f"{files.path}/", "") for fault in caught.value.faults]


@given(
    st.one_of(
        st.text("ab.*-_}; \n", max_size=12),
        st.builds(
            "{}{}.example".format,
            st.sampled_from(["", "*.", ".", "*..", "a..", "-."]),
            st.text("ab.-; {}"),
        ),
    )
)
@example(".partner.example")
@example("a..b")
@example("*..partner.example")
@example(". }; x")
@example("a. }; x.example")
def test_a_name_that_is_taken_has_nothing_but_whole_labels(text):
    for read in (lambda t: parsers.target(t, unbounded=False), parsers.host_name, parsers.domain):
        try:
            name = read(text)
        except InvalidValueError:
            continue
        if isinstance(name, str):
            assert all(
                parsers._LABEL.fullmatch(label) for label in name.removeprefix("*.").split(".")
            )


NAMES = {
    ".partner.example": '"*.partner.example" for all names below it, or partner.example',
    "*..partner.example": '"*.partner.example" for all names below it, or partner.example',
    "a..partner.example": "a.partner.example",
    ". }; x": "a full host name such as results.lab.example",
}


@pytest.mark.parametrize("text", NAMES)
def test_a_dot_too_many_is_told_with_what_was_meant(files, text):
    files.labs("[results.lab.example, 203.0.113.10]", f"['{text}']")
    (told,) = faults(files)
    assert told.startswith(f"{HERE}:9:14: ")
    assert told.endswith(f"expected {NAMES[text]}")


def test_a_wildcard_without_quotes_is_told_as_such(files):
    files.labs("[results.lab.example, 203.0.113.10]", "\n          - *.partner.example")
    assert faults(files) == [
        f"{HERE}:10:13: '*.partner.example' without quotes, expected \"*.partner.example\" in quotes"
    ]


def test_an_interface_as_ip_link_prints_it(files):
    files.site("interfaces: [lan1]", 'interfaces: ["vlan10@lan0", "eth0@if7"]')
    assert faults(files) == [
        "site.yaml:9:18: 'vlan10@lan0' is what 'ip link' shows of vlan10, which stands on 'lan0', expected the name alone: vlan10",
        "site.yaml:9:33: 'eth0@if7' is what 'ip link' shows of eth0, which stands on 'if7', expected the name alone: eth0",
    ]


def test_every_value_that_stands_twice_is_told_at_once(files):
    files.labs("203.0.113.10", ", ".join(f"203.0.113.{n}" for n in (1, 1, 2, 2, 3, 3)))
    assert [told.split(": ", 1) for told in faults(files)] == [
        [f"{HERE}:9:{column}", f"'203.0.113.{n}' stands twice in this list, expected each once"]
        for n, column in ((1, 48), (2, 74), (3, 100))
    ]


def test_a_file_of_comments_alone_keeps_nothing_and_says_so(files):
    files.write("allowlist.d/20-later.yaml", "# nothing kept here for now\n\n  # really\n")
    loaded = read_directory(files.path)
    assert len(loaded.policy.services) == 1
    assert "allowlist.d/20-later.yaml:1:1: nothing but comments: this file keeps no service" in {
        str(w).replace(f"{files.path}/", "") for w in warnings_of(loaded, DAY)
    }
    files.write("site.yaml", "# nothing\n")
    assert faults(files)[0].startswith("site.yaml:1:1: the file has nothing but comments")


def test_an_allowlist_of_comments_alone_is_empty(files):
    files.write(HERE, "# nothing\n")
    assert faults(files) == [
        "allowlist.d: the allowlist is empty: 'cut' would keep nothing, expected at least one service"
    ]


PROTOCOLS = {
    "ospf": "'ospf' is no protocol that can be kept: every level but 'open' ends it",
    "proto/41": "'proto/41' is no protocol that can be kept: every level but 'open' ends it",
    "proto/50": "'proto/50', expected esp",
    "proto/6": "'proto/6', expected tcp/443, with its port",
    "proto/112": "'proto/112' is no service's protocol, expected lifeline: {presets: [vrrp]} in site.yaml",
    "vrrp": "'vrrp' is no service's protocol, expected lifeline: {presets: [vrrp]} in site.yaml",
}


@pytest.mark.parametrize("text", PROTOCOLS)
def test_a_protocol_by_number_is_told_what_becomes_of_it(files, text):
    files.labs("ports: [tcp/443]", f"ports: [{text}]")
    (told,) = faults(files)
    assert told.startswith(f"{HERE}:10:17: {PROTOCOLS[text]}")


def test_services_that_share_many_targets_are_told_once_for_each_two(files):
    more = ", ".join(f"203.0.113.{n}" for n in range(10, 60))
    files.labs("203.0.113.10", more)
    text = (files.path / HERE).read_text()
    for n in range(3):
        files.write(f"allowlist.d/2{n}.yaml", text.replace("name: laboratory", f"name: other-{n}"))
    said = [w.wrong for w in warnings_of(read_directory(files.path), DAY) if "share" in w.wrong]
    assert len(said) == 3
    assert said[0].startswith(
        "'other-0' and 'laboratory' share 'results.lab.example' and 50 more on the same port"
    )


def test_thousands_of_oddities_of_one_kind_are_few_lines(files):
    # 200 services in pairs that each share a prefix; and one with a thousand addresses of a family
    # nobody has
    services = "".join(
        f"  - name: s{n}\n    title: x\n    owner: x\n    contact: x\n    criticality: vital\n    zones: [offices]\n"
        f"    review: 2031-03-31\n    destinations:\n      - to: 203.0.{n // 2}.0/24\n        ports: [tcp/443]\n"
        for n in range(200)
    )
    files.write("allowlist.d/20.yaml", "services:\n" + services)
    files.labs("zones: [care]", "zones: [offices]")
    files.write(
        HERE,
        (files.path / HERE)
        .read_text()
        .replace("203.0.113.10", ", ".join(f'"2001:db8:99::{n:x}"' for n in range(1, 1001))),
    )
    said = [w.wrong for w in warnings_of(read_directory(files.path), DAY)]
    assert len([w for w in said if " share " in w and "packets are" in w]) == 50
    assert (
        "50 more pairs of services share packets: each is counted for the first of its two" in said
    )
    assert [w for w in said if "is of no use" in w] == [
        (
            "'2001:db8:99::1' is of no use: the inside of 'laboratory' has no IPv6 subnet"
            " (and 999 more of this destination alike)"
        )
    ]
    assert len(said) <= 53


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
