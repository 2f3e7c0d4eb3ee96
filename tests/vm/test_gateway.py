"""A cut holds whatever happens to the gateway, on Debian's own kernels, watched from outside from link-up to shutdown.

The tests share one machine (see `rig`): each begins with it up and cut.
"""

import time

import pytest

from tests.lab import places
from tests.vm import rig, traffic
from tests.vm.rig import Scene

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("scene", [{"level": "open"}], indirect=True)
def test_the_witness_sees_what_leaves_while_open_and_nothing_after_a_cut(scene: Scene):
    time.sleep(3)
    seen = scene.verdict()
    for source, to in [
        (places.GATEWAY_WAN.v4, places.WEB.v4),  # care, guests and the gateway's own, translated
        (places.CARE_HOST.v6, places.WEB.v6),
        (places.GUEST_HOST.v6, places.WEB.v6),
        (places.GATEWAY_WAN.v6, places.WEB.v6),
        (places.STRANGER.v4, places.CARE_SERVER.v4),
        (places.STRANGER.v6, places.CARE_SERVER.v6),
    ]:
        flows = [flow for flow in seen.nobodys if (flow.source, flow.destination) == (source, to)]
        assert flows, f"nothing from {source} to {to} was seen:\n{seen}"
    assert not traffic.unserved(scene.ward)
    answered = rig.command(scene.machine, "cut")
    time.sleep(3)
    scene.since = answered
    scene.must_hold()
    assert scene.verdict().kept > 100


def test_a_reboot(scene: Scene):
    scene.machine.reboot()
    assert rig.is_shut(scene.machine)
    scene.must_hold()
    scene.must_be_cut()
    scene.must_hold()
