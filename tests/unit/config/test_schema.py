"""Unknown and missing keys, wrong kinds of values, values that stand twice."""

import pytest

from ecluse.config.schema import (
    INVALID,
    MAX_FAULTS,
    Faults,
    Key,
    ListOf,
    Scalar,
    Unread,
    form,
)
from ecluse.config.yaml_tree import compose
from tests.unit.config.samples import HERE, PORTS, SITE_KEYS, TO


def test_every_fault_at_once(files):
    files.dns_gate(
        "  mode: sometimes\n  port: 53\n  limits: {client_queries: 0, label: 64}\n  internel: []\n",
    )
    files.labs(TO, 'to: "*.lab.example"')
    said = files.faults()
    assert [f.split(", expected")[0] for f in said] == [
        "site.yaml:18:9: 'sometimes' is unknown",
        "site.yaml:19:9: 53",
        "site.yaml:20:28: 0",
        "site.yaml:20:38: 64",
        "site.yaml:21:3: the key 'internel' is unknown: did you mean 'internal'?",
    ]


def test_what_is_missing_after_the_second_document_is_not_hidden(files):
    files.site("title: CHU d'Example\n", "---\n")
    assert files.faults()[0] == (
        "site.yaml:1:1: the key 'zones' is missing, expected it among site, title, zones,"
        " lifeline, resolvers, levels, dns_gate, fast_path, second_lock"
    )


def test_every_value_that_stands_twice_is_told_at_once(files):
    files.labs("203.0.113.10", ", ".join(f"203.0.113.{n}" for n in (1, 1, 2, 2, 3, 3)))
    assert [told.split(": ", 1) for told in files.faults()] == [
        [f"{HERE}:9:{column}", f"'203.0.113.{n}' stands twice in this list, expected each once"]
        for n, column in ((1, 48), (2, 74), (3, 100))
    ]


SITE_CASES = {
    # what is written -> what is said of it, with its place
    "fast path": (
        "resolvers:",
        "fast_path: tunnel\nresolvers:",
        "14:12: 'tunnel' is unknown, expected chains or flowtable",
    ),
    "second lock": (
        "resolvers:",
        "second_lock: open\nresolvers:",
        "14:14: 'open' is unknown, expected isolate, cut or off",
    ),
    "name is a YAML truth value": (
        "name: offices",
        "name: no",
        "8:11: 'no' (which YAML takes for yes or no), expected a name: write it in quotes, \"no\"",
    ),
    "title is a number": (
        "title: CHU d'Example",
        "title: 0555",
        (
            "2:8: '0555' (which YAML takes for a number), expected a text: write it in"
            ' quotes, "0555"'
        ),
    ),
    "title is base 60": (
        "title: CHU d'Example",
        "title: 22:22",
        (
            "2:8: '22:22' (which YAML takes for a number), expected a text: write it in"
            ' quotes, "22:22"'
        ),
    ),
    "title is yes to some YAML": (
        "title: CHU d'Example",
        "title: y",
        "2:8: 'y' (which YAML takes for yes or no), expected a text: write it in quotes, \"y\"",
    ),
    "title is a number to some YAML": (
        "title: CHU d'Example",
        "title: 12e5",
        (
            "2:8: '12e5' (which YAML takes for a number), expected a text: write it in"
            ' quotes, "12e5"'
        ),
    ),
    "title is a date": (
        "title: CHU d'Example",
        "title: 2027-01-31",
        '2:8: the date 2027-01-31, expected a text: write it in quotes, "2027-01-31"',
    ),
    "title is nothing": ("title: CHU d'Example", "title:", "2:7: nothing, expected a text"),
    "title is a list": ("title: CHU d'Example", "title: [x]", "2:8: a list, expected a text"),
    "unknown key": (
        "resolvers:",
        "resolver:",
        f"14:1: the key 'resolver' is unknown: did you mean 'resolvers'?, expected {SITE_KEYS}",
    ),
    "unknown key in a zone": (
        "    title: Care",
        "    titel: Care",
        (
            "5:5: the key 'titel' is unknown: did you mean 'title'?, expected name, title,"
            " interfaces or subnets"
        ),
    ),
    "missing key": (
        "    interfaces: [lan1]\n",
        "",
        "8:5: the key 'interfaces' is missing, expected it among name, title, interfaces, subnets",
    ),
    "zones is no list": (
        "interfaces: [lan1]",
        "interfaces: lan1",
        "9:17: the text 'lan1', expected a list, such as [ ... ] or lines that begin with '- '",
    ),
    "empty list": (
        "interfaces: [lan1]",
        "interfaces: []",
        "9:17: an empty list, expected at least one",
    ),
    "interface twice": (
        "interfaces: [lan1]",
        "interfaces: [lan1, lan1]",
        "9:24: 'lan1' stands twice in this list, expected each once",
    ),
}


@pytest.mark.parametrize("case", SITE_CASES)
def test_faults_of_the_site(files, case):
    files.site_fault(*SITE_CASES[case], alone=case != "unknown key")


LABS_CASES = {
    # what is written -> what is said of it, with its place
    "unknown key": (
        "    owner: Biology",
        "    ownr: Biology",
        (
            "4:5: the key 'ownr' is unknown: did you mean 'owner'?, expected name, title,"
            " owner, contact, criticality, zones, hosts, destinations, review or note"
        ),
    ),
    "unknown key at the top": (
        "services:",
        "servces:",
        "1:1: the key 'servces' is unknown: did you mean 'services'?, expected services",
    ),
    "contact as a number": (
        'contact: "+33 5 55 55 01 00"',
        "contact: 0555",
        (
            "5:14: '0555' (which YAML takes for a number), expected a text: write it in"
            ' quotes, "0555"'
        ),
    ),
    "contact as +33": (
        'contact: "+33 5 55 55 01 00"',
        "contact: +33555550100",
        (
            "5:14: '+33555550100' (which YAML takes for a number), expected a text: write it"
            ' in quotes, "+33555550100"'
        ),
    ),
    "unbounded is a text": (
        TO,
        'to: any\n        unbounded: "true"',
        "10:20: the text 'true', expected true or false",
    ),
    "unbounded yes": (
        TO,
        "to: any\n        unbounded: yes",
        "10:20: 'yes' (which YAML takes for yes or no), expected true or false",
    ),
    "private yes": (
        TO,
        "to: a.example\n        private: yes",
        "10:18: 'yes' (which YAML takes for yes or no), expected true or false",
    ),
    "private is a list": (
        TO,
        "to: a.example\n        private: [10.0.0.0/8]",
        "10:18: a list, expected true or false",
    ),
    "host: port in a list": (
        TO,
        "to: [results.lab.example: 443]",
        "9:14: a mapping, expected a host name, an address or a prefix",
    ),
    "a number": (
        TO,
        "to: 203.113",
        (
            "9:13: '203.113' (which YAML takes for a number), expected a host name, an"
            " address or a prefix"
        ),
    ),
    "target twice": (
        TO,
        "to: [203.0.113.10, 203.0.113.10/32]",
        "9:28: '203.0.113.10' stands twice in this list, expected each once",
    ),
    "bare port": (
        PORTS,
        "ports: [443]",
        "10:17: the number 443, expected a protocol and port such as tcp/443",
    ),
    "base 60": (
        PORTS,
        "ports: [22:22]",
        (
            "10:17: '22:22' (which YAML takes for a number), expected a protocol and port"
            " such as tcp/443"
        ),
    ),
    "no such day": (
        "review: 2027-01-31",
        "review: 2027-02-30",
        (
            "11:13: '2027-02-30' (which YAML takes for a date that does not exist), expected"
            " a date such as 2027-01-31"
        ),
    ),
    "day in words": (
        "review: 2027-01-31",
        "review: soon",
        "11:13: the text 'soon', expected a date such as 2027-01-31",
    ),
    "services is a mapping": (
        "services:\n  - name: laboratory",
        "services:\n    name: laboratory",
        "2:5: a mapping, expected a list, such as [ ... ] or lines that begin with '- '",
    ),
}


@pytest.mark.parametrize("case", LABS_CASES)
def test_faults_of_the_allowlist(files, case):
    files.labs_fault(*LABS_CASES[case], alone=case != "unknown key at the top")


def value_of(text, of):
    document, _ = compose("x.yaml", text.encode())
    faults = []
    return of.value_at(document.root, Faults("x.yaml", faults)), [str(fault) for fault in faults]


PAIR = form(dict, a=Key(Scalar(int, "a number", (int,)), required=True), b=Key(Unread(), null=True))


def test_a_form_calls_its_maker_with_the_keys_that_the_file_has():
    assert value_of("a: 1\nb:\n", PAIR) == ({"a": 1}, [])


def test_a_truth_value_is_no_number():
    assert value_of("a: true\n", PAIR) == (
        INVALID,
        ["x.yaml:1:4: the truth value true, expected a number"],
    )


def test_the_keys_that_are_right_are_there_beside_wrong_ones():
    document, _ = compose("x.yaml", b"c: 1\na: 2\n")
    assert PAIR.values_at(document.root, Faults("x.yaml", [])) == ({"a": 2}, False)


def test_a_list_is_read_no_further_than_faults_are_listed():
    _, faults = value_of("a: [" + "x, " * 5000 + "]\n", form(dict, a=Key(ListOf(PAIR))))
    assert len(faults) == MAX_FAULTS + 1
