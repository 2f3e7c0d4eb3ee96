"""A WAN that is a VLAN on a bond, both made by the network's own service at each boot: nothing of
nobody's leaves by them before the gate stands.
"""

import re
import time
from collections.abc import Iterator

import pytest

from tests.lab import places
from tests.vm import rig, traffic
from tests.vm.images import Disk
from tests.vm.machine import Machine
from tests.vm.ward import Ward
from tests.vm.witness import Verdict, Witness

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

_FOLDER = "/etc/systemd/network"
# The lab's kernel may know no VLANs, and answers none: it sees what comes, and that is what is
# looked at. So the router's link-layer address is written down.
_FILES = {
    "05-bond0.netdev": "[NetDev]\nName=bond0\nKind=bond\n[Bond]\nMode=active-backup\n",
    "05-bond0.20.netdev": "[NetDev]\nName=bond0.20\nKind=vlan\n[VLAN]\nId=20\n",
    "05-wan0.network": "[Match]\nName=wan0\n[Network]\nBond=bond0\n",
    "05-bond0.network": (
        "[Match]\nName=bond0\n[Network]\nVLAN=bond0.20\nLinkLocalAddressing=no\n"
        "ConfigureWithoutCarrier=yes\n"
    ),
}
_NEIGHBOUR = "[Neighbor]\nAddress={}\nLinkLayerAddress={}\n"


@pytest.fixture
def gateway(disk: Disk) -> Iterator[tuple[Machine, Witness]]:
    """A gateway whose WAN is bond0.20, at open, with everybody trying."""
    with Ward() as ward:
        machine = ward.machine("links", disk)
        machine.start()
        machine.wait_until_up(until=rig.DAEMON)
        mac = re.search(r"link/ether (\S+)", ward.shell("inet", "ip link show uplink"))[1]
        router = places.INTERNET_ROUTER
        last = machine.sh(f"sed s/wan0/bond0.20/ {_FOLDER}/10-wan0.network", check=True).out
        last += "".join(_NEIGHBOUR.format(address, mac) for address in (router.v4, router.v6))
        for name, text in (_FILES | {"05-bond0.20.network": last}).items():
            machine.write(f"{_FOLDER}/{name}", text)
        machine.sh(f"rm {_FOLDER}/10-wan0.network; sync", check=True)
        machine.reboot()
        machine.wait_until_up(until=rig.DAEMON)
        with traffic.running(ward):
            yield machine, Witness(ward)


def _wait_for(witness: Witness, since: int, *, nobodys: bool) -> Verdict:
    """Wait until the witness has seen enough to be believed: of kept services, or of nobody's."""
    deadline = time.monotonic() + 120
    while True:
        verdict = witness.judge(since)
        if (verdict.leaked if nobodys else verdict.kept) > 100:
            return verdict
        assert time.monotonic() < deadline, str(verdict)
        time.sleep(0.5)


def test_a_vlan_on_a_bond_comes_up_shut(gateway: tuple[Machine, Witness]):
    machine, witness = gateway
    assert "bond0.20@bond0" in machine.sh("ip -br link").out
    _wait_for(witness, 0, nobodys=True)  # positive control: at open it sees who is not kept
    since = rig.command(machine, "cut")
    _wait_for(witness, since, nobodys=False)
    for how in ("reboot", "loss of power"):
        if how == "reboot":
            machine.reboot()
        else:
            machine.power_cut()
            machine.start()
        machine.wait_until_up(until=rig.DAEMON)
        up = time.time_ns()
        _wait_for(witness, up, nobodys=False)
        assert rig.levels(machine) == {"cut"}
        verdict = witness.judge(since)
        assert not verdict.nobodys, f"{how}: {verdict}"
