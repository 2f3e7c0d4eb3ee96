"""Features of a card, read from a veth."""

import pytest

from ecluse.bypass import find_bypasses
from ecluse.host_reading import Device, HostReading
from ecluse.kernel import nic_features
from tests.kernel.adapters.test_bypass_scan import policy

pytestmark = pytest.mark.kernel


def test_features_of_a_card(gateway):
    """No card here: a veth has features too, all but that one."""
    on = nic_features.active_features("wan0")
    assert "tx-scatter-gather" in on
    assert nic_features.TC_OFFLOAD not in on
    told = find_bypasses(HostReading(devices=(Device("eth0", tc_in_hardware=True),)), policy())
    assert [one.kind for one in told] == ["hardware"]
