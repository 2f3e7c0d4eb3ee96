"""One written value -> one value of the policy, or what was meant."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.config import (
    address_parsers,
    parsers,
)
from ecluse.config.messages import InvalidValueError
from ecluse.policy import Traffic
from tests.unit.config.samples import HERE, HOST, IFACE, NAME, PORTS, TO, UNBOUNDED
from tests.unit.config.strategies import WRITTEN, outcome


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
    (told,) = files.faults()
    assert told.startswith(f"{HERE}:9:14: ")
    assert told.endswith(f"expected {NAMES[text]}")


def test_an_interface_as_ip_link_prints_it(files):
    files.site("interfaces: [lan1]", 'interfaces: ["vlan10@lan0", "eth0@if7"]')
    assert files.faults() == [
        (
            "site.yaml:9:18: 'vlan10@lan0' is what 'ip link' shows of vlan10, which stands on"
            " 'lan0', expected the name alone: vlan10"
        ),
        (
            "site.yaml:9:33: 'eth0@if7' is what 'ip link' shows of eth0, which stands on"
            " 'if7', expected the name alone: eth0"
        ),
    ]


PROTOCOLS = {
    "ospf": (
        "'ospf' has no word here, expected proto/89, or lifeline: {presets: [ospf]} in site.yaml"
    ),
    "vrrp": (
        "'vrrp' has no word here, expected proto/112, or lifeline: {presets: [vrrp]} in site.yaml"
    ),
    "SIT": "'SIT' has no word here, expected proto/41",
    "ipip": "'ipip' has no word here, expected proto/4",
    "proto/1": "'proto/1', expected icmp",
    "proto/6": "'proto/6', expected tcp/443, with its port",
    "proto/17": "'proto/17', expected udp/443, with its port",
    "proto/47": "'proto/47', expected gre",
    "proto/50": "'proto/50', expected esp",
    "proto/51": "'proto/51', expected ah",
    "proto/58": "'proto/58', expected icmp (it stands for both families)",
    "proto/132": "'proto/132', expected sctp/443, with its port",
    "proto/0": "'proto/0' is no protocol that can be kept, expected a protocol and port",
    "proto/60": "'proto/60' is no protocol that can be kept",
    "proto/255": "'proto/255' is no protocol that can be kept",
    "proto/089": "'proto/089' is no protocol that can be kept",
    "proto/": "'proto/' is no protocol that can be kept",
}


@pytest.mark.parametrize("text", PROTOCOLS)
def test_a_protocol_by_number_is_told_what_becomes_of_it(files, text):
    files.labs("ports: [tcp/443]", f"ports: [{text}]")
    (told,) = files.faults()
    assert told.startswith(f"{HERE}:10:17: {PROTOCOLS[text]}")


@pytest.mark.parametrize("number", [2, 4, 33, 41, 89, 94, 112, 115, 136, 254])
def test_a_protocol_without_a_word_is_kept_by_its_number(number):
    value = parsers.traffic(f"proto/{number}")
    assert value == Traffic(number)
    assert parsers.written_traffic(value) == f"proto/{number}"


@given(WRITTEN, st.booleans())
@example("224.0.0.5", False)
@example("224.0.1.5", False)
@example("ff02::5", False)
@example("ff05::2", True)
@example("224.0.0.0/30", False)
@example("::/8", True)
@example("::/8", False)
@example("240.0.0.0/5", True)
@example("0.0.0.0/7", True)
@example("::ffff:203.0.113.9", True)
def test_a_target_is_read_as_on_the_long_way(text, unbounded):
    quick = (
        outcome(parsers.target, text, unbounded=unbounded),
        outcome(address_parsers.prefix, text),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsers, "parse_network", lambda _: None)
        patch.setattr(address_parsers, "parse_network", lambda _: None)
        assert quick == (
            outcome(parsers.target, text, unbounded=unbounded),
            outcome(address_parsers.prefix, text),
        )


SITE_CASES = {
    # what is written -> what is said of it, with its place
    "name in capitals": (
        "site: chu-example",
        "site: CHU",
        f"1:7: 'CHU' is no name, expected {NAME}",
    ),
    "name of 49": (
        "name: offices",
        f"name: {'a' * 49}",
        f"8:11: '{'a' * 49}' is no name, expected {NAME}",
    ),
    "title with an escape sequence": (
        "title: CHU d'Example",
        'title: "\\e[2J"',
        "2:8: the character U+001B in a text, expected one line of text that can be seen",
    ),
    "title empty": (
        "title: CHU d'Example",
        'title: ""',
        "2:8: an empty text, expected words for a person",
    ),
    "interface too long": (
        "interfaces: [lan1]",
        "interfaces: [enp0s31f6abcdefg]",
        f"9:18: 'enp0s31f6abcdefg' is no interface name, expected {IFACE}",
    ),
    "interface with a quote": (
        "interfaces: [lan1]",
        "interfaces: ['a\"b']",
        f"9:18: 'a\"b' is no interface name, expected {IFACE}",
    ),
    "interface as ip link shows it": (
        "interfaces: [lan1]",
        'interfaces: ["vlan10@lan0"]',
        (
            "9:18: 'vlan10@lan0' is what 'ip link' shows of vlan10, which stands on 'lan0',"
            " expected the name alone: vlan10"
        ),
    ),
    "interface with an inner star": (
        "interfaces: [lan1]",
        "interfaces: [v*n1]",
        f"9:18: 'v*n1' is no interface name, expected {IFACE}",
    ),
    "bare star": (
        "interfaces: [lan1]",
        'interfaces: ["*"]',
        (
            "9:18: '*' alone would make every interface an inside one, expected a name, or a"
            " pattern such as 'vlan1*'"
        ),
    ),
    "loopback in a zone": (
        "interfaces: [lan1]",
        "interfaces: [lo]",
        "9:18: 'lo' covers lo, the machine itself, expected interfaces towards the inside",
    ),
    "management port 0": (
        "ports: [tcp/22]",
        "ports: [tcp/0]",
        "12:50: 'tcp/0': there is no port 0, expected ports 1 to 65535",
    ),
    "management without a port": (
        "ports: [tcp/22]",
        "ports: [tcp/22, icmp]",
        (
            "12:58: 'icmp' has no ports, and management is kept by its port, expected tcp/22 and"
            " the like here; the rest as a service with zones: [gateway] and 'from'"
        ),
    ),
    "management by number": (
        "ports: [tcp/22]",
        "ports: [proto/89]",
        (
            "12:50: 'proto/89' has no ports, and management is kept by its port, expected tcp/22"
            " and the like here; the rest as a service with zones: [gateway] and 'from'"
        ),
    ),
    "preset": (
        "presets: [dhcp, nd, vrrp]",
        "presets: [dhpc]",
        "13:13: 'dhpc' is unknown: did you mean 'dhcp'?, expected dhcp, nd, vrrp or ospf",
    ),
}


@pytest.mark.parametrize("case", SITE_CASES)
def test_faults_of_the_site(files, case):
    files.site_fault(*SITE_CASES[case])


LABS_CASES = {
    # what is written -> what is said of it, with its place
    "criticality": (
        "criticality: vital",
        "criticality: Vital",
        "6:18: 'Vital' is unknown: did you mean 'vital'?, expected vital, important or deferrable",
    ),
    "any": (
        TO,
        "to: any",
        f"9:13: 'any' is the whole internet, expected the partner's addresses, or {UNBOUNDED}",
    ),
    "wildcard over much": (
        TO,
        'to: "*.example"',
        "9:13: '*.example' is much of the internet, expected a domain of the partner's own",
    ),
    "wildcard in the middle": (
        TO,
        'to: "www.*.example"',
        (
            "9:13: 'www.*.example' is no wildcard, expected '*.' before a domain, such as"
            " *.operator.example"
        ),
    ),
    "record type": (
        PORTS,
        "ports: [tcp/443]\n        records: [TXT]",
        "11:19: 'TXT' is unknown, expected MX or SRV",
    ),
    "port in the host": (
        TO,
        "to: [results.lab.example:443]",
        (
            "9:14: a port in the destination 'results.lab.example:443', expected"
            " 'results.lab.example' here and the port in ports: [tcp/443]"
        ),
    ),
    "port in the address": (
        TO,
        'to: ["[2001:db8::1]:443"]',
        (
            "9:14: a port in the destination '[2001:db8::1]:443', expected '2001:db8::1' here"
            " and the port in ports: [tcp/443]"
        ),
    ),
    "URL": (
        TO,
        "to: https://results.lab.example/x",
        (
            "9:13: 'https://results.lab.example/x' is the address of a page, expected the"
            " host name alone, the port in ports: [tcp/443]"
        ),
    ),
    "range of addresses": (
        TO,
        "to: 203.0.113.1-203.0.113.9",
        (
            "9:13: '203.0.113.1-203.0.113.9' is a range of addresses, expected prefixes, such"
            " as 203.0.113.8/29"
        ),
    ),
    "one word": (
        TO,
        "to: results",
        f"9:13: 'results' is one word, expected {HOST}: nothing is added to it",
    ),
    "underscore": (
        TO,
        "to: my_lab.example",
        (
            f"9:13: 'my_lab.example' is no host name: an underscore, expected {HOST}"
            " (letters, digits and '-')"
        ),
    ),
    "hyphen first": (
        TO,
        "to: '-x.lab.example'",
        (
            f"9:13: '-x.lab.example' is no host name: the part '-x', expected {HOST}"
            " (letters, digits and '-')"
        ),
    ),
    "label of 64": (
        TO,
        f"to: {'a' * 64}.example",
        (
            f"9:13: '{'a' * 57}...' is no host name: the part '{'a' * 57}...', expected"
            f" {HOST} (letters, digits and '-')"
        ),
    ),
    "number at the end": (
        TO,
        "to: lab.example.123",
        f"9:13: 'lab.example.123' is no host name, expected {HOST}",
    ),
    "sharp s": (
        TO,
        "to: straße.example",
        (
            "9:13: 'straße.example' can be written in two ways in DNS, expected its form that"
            " begins with xn--"
        ),
    ),
    "port 0": (
        PORTS,
        "ports: [tcp/0]",
        "10:17: 'tcp/0': there is no port 0, expected ports 1 to 65535",
    ),
    "port 65536": (
        PORTS,
        "ports: [tcp/1-65536]",
        "10:17: 'tcp/1-65536': there is no port 65536, expected ports 1 to 65535",
    ),
    "reversed": (
        PORTS,
        "ports: [udp/510-500]",
        "10:17: 'udp/510-500': the range is reversed, expected udp/500-510",
    ),
    "bare range": (
        PORTS,
        "ports: [10000-20000]",
        "10:17: '10000-20000' names no protocol, expected tcp/10000-20000 or udp/10000-20000",
    ),
    "turned": (PORTS, "ports: [443/tcp]", "10:17: '443/tcp', expected tcp/443"),
    "colon": (PORTS, "ports: [tcp:443]", "10:17: 'tcp:443', expected tcp/443"),
    "no port": (
        PORTS,
        "ports: [tcp]",
        "10:17: 'tcp' names no port, expected tcp/443, tcp/500-510, or tcp/1-65535 for every port",
    ),
    "esp with a port": (
        PORTS,
        "ports: [esp/50]",
        "10:17: 'esp/50': esp has no ports, expected esp alone",
    ),
    "capitals": (PORTS, "ports: [TCP/443]", "10:17: 'TCP/443' in capitals, expected tcp/443"),
    "icmpv6": (
        PORTS,
        "ports: [icmpv6]",
        "10:17: 'icmpv6', expected icmp (it stands for both families)",
    ),
    "unknown protocol": (
        PORTS,
        "ports: [https]",
        (
            "10:17: 'https' is no protocol that can be kept, expected a protocol and port"
            " such as tcp/443 or udp/500-510, or esp, ah, gre, icmp, or proto/89"
        ),
    ),
}


@pytest.mark.parametrize("case", LABS_CASES)
def test_faults_of_the_allowlist(files, case):
    files.labs_fault(*LABS_CASES[case])
