"""Limits are for what a machine can invent, never for what the site wrote."""

from dataclasses import replace

import dns.rdatatype
import pytest

from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.message_filter import Refusal
from tests.unit.dnsproxy.test_dnsgate import ORDERS

ANSWERS = ORDERS.names["results.lab.example"]
LONG_LABEL = f"{'a' * 57}.partner.example"
LONG_NAME = ".".join(["b" * 40] * 5) + ".partner.example"
LONG_DOMAIN = ".".join(["c" * 60] * 3) + ".operator.example"
WRITTEN = replace(
    ORDERS,
    names={**ORDERS.names, LONG_LABEL: ANSWERS, LONG_NAME: ANSWERS},
    wildcards={**ORDERS.wildcards, LONG_DOMAIN: ANSWERS},
)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        (LONG_LABEL, "leaves"),
        (LONG_NAME, "leaves"),
        (f"x.{LONG_LABEL}", "name"),
        (f"node.{LONG_DOMAIN}", "leaves"),
        (f"{'s' * 48}.{LONG_DOMAIN}", "leaves"),
        (f"{'s' * 49}.{LONG_DOMAIN}", "length"),
        (f"{'s' * 24}.{'s' * 24}.{LONG_DOMAIN}", "length"),
        (f"{'s' * 30}.{'s' * 30}.{'s' * 30}.operator.example", "leaves"),
        (f"{'s' * 40}.{'s' * 40}.{'s' * 40}.operator.example", "length"),
    ],
)
def test_what_the_site_wrote_is_never_too_long(name: str, outcome: str):
    verdict = message_filter.judge(name, dns.rdatatype.A, WRITTEN)
    assert (verdict.why if isinstance(verdict, Refusal) else "leaves") == outcome
