"""Gateways over fakes: with one vital service (`machine`), and with a DNS gate (`dns_machine`)."""

import pytest

from tests.unit.controller.dns_site import DNS_POLICY, TELLS
from tests.unit.controller.machine import Machine, simple


@pytest.fixture
def machine():
    one = Machine(simple())
    one.start()
    yield one
    one.close()


@pytest.fixture
def dns_machine():
    one = Machine(DNS_POLICY)
    one.dns.reported = TELLS
    one.start()
    yield one
    one.close()
