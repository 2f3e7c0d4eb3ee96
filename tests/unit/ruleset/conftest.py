"""One service for one zone."""

import pytest

from ecluse.policy import Policy
from tests.unit.ruleset import policies as w


@pytest.fixture
def policy():
    from ipaddress import ip_network as net

    from ecluse.policy import Criticality, Destination, Direction, Service, Traffic

    lab = Destination(Direction.OUTBOUND, (), (net("203.0.113.1/32"),), (Traffic(6, 443, 443),))
    partner = Destination(Direction.INBOUND, (), (net("203.0.113.9/32"),), (Traffic(6, 443, 443),))
    one = Service("lab", "", "", "", Criticality.VITAL, ("care",), (), (lab,))
    two = Service("partner", "", "", "", Criticality.VITAL, ("care", "gateway"), (), (partner,))
    return Policy(w.SITE, (one, two))
