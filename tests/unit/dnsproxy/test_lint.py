"""The DNS proxy's own warnings (through the files: tests of config.lint)."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ecluse.dnsproxy.lint import find_warnings
from ecluse.policy import InternalDomains
from tests.unit.dnsproxy.messages import POLICY

NONE = replace(POLICY, site=replace(POLICY.site, dns=replace(POLICY.site.dns, internal=())))
NAMED = InternalDomains(("chu.example",), (ip_address("10.20.0.53"),))


class Document:
    """Stands for the site's file: has the places that are written."""

    def __init__(self, *written):
        self.written = written

    def at(self, place):
        return place if place in self.written else None

    def fault(self, place, wrong):
        return place, wrong


def test_inside_servers_that_are_not_named_have_a_limit():
    ((place, wrong),) = find_warnings(NONE, Document())
    assert place == ("dns_gate",)
    assert f"one machine ({NONE.site.dns.limits.client_queries} questions a second)" in wrong
    assert wrong.endswith("[] for none")


@pytest.mark.parametrize("how", ["they are named", "the file says that there is none"])
def test_no_warning_where_the_site_said_which_there_are(how):
    if how == "they are named":
        site = replace(NONE.site, dns=replace(NONE.site.dns, internal=(NAMED,)))
        assert not list(find_warnings(replace(NONE, site=site), Document()))
    else:
        assert not list(find_warnings(NONE, Document(("dns_gate", "internal"))))
