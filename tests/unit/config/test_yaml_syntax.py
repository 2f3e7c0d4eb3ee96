"""Files that are no text or no YAML."""

import pytest

from ecluse.config import load_policy
from tests.unit.config.samples import HERE, TO


def test_not_utf8(files):
    files.write("site.yaml", "site: chu-example\ntitle: H\xf4pital\n".encode("latin-1"))
    assert files.faults() == [
        "site.yaml:2:9: the byte 0xf4 is not UTF-8, expected a file saved as UTF-8"
    ]


def test_tabs_in_comments_are_nobodys_business(files):
    files.site("title: CHU d'Example", "title: CHU #\tthe hospital\n#\t\tand more")
    assert load_policy(files.path).site.title == "CHU"


def test_a_wildcard_without_quotes_is_told_as_such(files):
    files.labs("[results.lab.example, 203.0.113.10]", "\n          - *.partner.example")
    assert files.faults() == [
        (
            f"{HERE}:10:13: '*.partner.example' without quotes, expected"
            ' "*.partner.example" in quotes'
        )
    ]


SITE_CASES = {
    # what is written -> what is said of it, with its place
    "star without quotes": (
        "interfaces: [lan1]",
        "interfaces: [*]",
        (
            "9:19: a '*' or '&' at the beginning of a value means an alias in YAML,"
            " expected a wildcard or a pattern"
            " in quotes"
        ),
    ),
    "colon in a value": (
        "title: CHU d'Example",
        "title: CHU: Example",
        (
            "2:11: a second ': ' in one value, or a line too far to the right, expected"
            " text with a colon in quotes, "
            "keys of one mapping in one column (a port stands in ports: [tcp/443])"
        ),
    ),
    "open list": (
        "presets: [dhcp, nd, vrrp]",
        "presets: [dhcp, nd",
        "14:10: a list that began with '[' is not closed, expected a ']'",
    ),
    "open quote": (
        "title: CHU d'Example",
        "title: 'CHU dExample",
        "2:8: a quote that is never closed, expected a closing quote",
    ),
    "tab": ("title: CHU d'Example", "title:\tx", "2:7: a tab, expected spaces"),
    "NUL": (
        "title: CHU d'Example",
        "title: a\0b",
        "2:9: the character U+0000, which can't be seen, expected text that can be seen",
    ),
    "right-to-left override": (
        "title: CHU d'Example",
        "title: a\u202eb",
        "2:9: the character U+202E, which can't be seen, expected text that can be seen",
    ),
}


@pytest.mark.parametrize("case", SITE_CASES)
def test_faults_of_the_site(files, case):
    files.site_fault(*SITE_CASES[case])


LABS_CASES = {
    # what is written -> what is said of it, with its place
    "host: port": (
        TO,
        "to: results.lab.example: 443",
        (
            "9:32: a second ': ' in one value, or a line too far to the right, expected text"
            " with a colon in quotes, keys of one mapping in one column (a port stands in"
            " ports: [tcp/443])"
        ),
    ),
}


@pytest.mark.parametrize("case", LABS_CASES)
def test_faults_of_the_allowlist(files, case):
    files.labs_fault(*LABS_CASES[case])
