"""Inside and outside in one VRF, on Debian's own kernels, which call what comes by either of them
by the VRF's name.
"""

import json
import time
from collections.abc import Iterator

import pytest

from tests.lab import places
from tests.lab.sniffer import Sniffer
from tests.vm import rig
from tests.vm.images import Disk
from tests.vm.machine import Machine
from tests.vm.ward import Ward

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

_CARE, _WAN, _ROUTER = places.CARE.gateway, places.GATEWAY_WAN, places.INTERNET_ROUTER
# Enslaved, an interface keeps its IPv4 addresses and loses its IPv6 ones.
_VRF = f"""
set -e
systemctl -q stop systemd-networkd.socket systemd-networkd.service
ip link add vall type vrf table 100
ip link set vall up
ip link set care0 master vall
ip link set wan0 master vall
ip address replace {_CARE.v6}/48 dev care0 nodad
ip address replace {_WAN.v6}/64 dev wan0 nodad
ip route replace table 100 default via {_ROUTER.v4} dev wan0
ip -6 route replace table 100 default via {_ROUTER.v6} dev wan0
"""
_NAMED = r"sed -i 's/^\( *\)- care0$/&\n\1- vall/' /etc/ecluse/site.yaml"
_UNNAMED = r"sed -i '/^ *- vall$/d' /etc/ecluse/site.yaml"
_RELOAD = "ecluse reload --yes --reason test"
DATAGRAMS = 5  # of each family


@pytest.fixture(scope="module")
def gateway(disk: Disk) -> Iterator[tuple[Ward, Machine, Sniffer]]:
    """A gateway with care0 and wan0 in one VRF, at open, and a witness inside."""
    with Ward() as ward:
        machine = ward.machine("vrf", disk)
        machine.start()
        machine.wait_until_up(until=rig.DAEMON)
        machine.sh(_VRF, check=True)
        ward.shell("inet", f"ip route add {places.CARE.subnets[0]} via {_WAN.v4}")
        yield ward, machine, ward.sniff("care", "eth0")


def _kept(ward: Ward) -> list[str]:
    """Name what is kept for the care zone and does not answer.

    An emulated machine that is busy answers late.
    """
    deadline = time.monotonic() + 60
    waiting = [
        (call, places.LABORATORY.address(family)) for call in ("tcp", "udp") for family in (4, 6)
    ]
    while waiting and time.monotonic() < deadline:
        waiting = [(call, to) for call, to in waiting if not _answers(ward, call, to)]
    return [f"{call} to {to}" for call, to in waiting]


def _answers(ward: Ward, call: str, to: str) -> bool:
    host = ward.care
    return bool(host.tcp(to, 443) if call == "tcp" else host.udp(to, 5001))


def _strangers_inside(ward: Ward, inside: Sniffer) -> int:
    """Send a stranger's datagrams to an inside machine; give how many of them got there."""
    inside.clear()
    for _ in range(DATAGRAMS):
        for family in (4, 6):
            ward.stranger.udp(places.CARE_SERVER.address(family), 5001, timeout=0.3)
    return sum(
        inside.count(source=places.STRANGER.address(f), protocol="udp", from_gateway=True)
        for f in (4, 6)
    )


def _remarks(machine: Machine) -> tuple[list[str], list[str]]:
    """Give what `check --host` and `status` say of VRFs."""
    found = json.loads(machine.sh("ecluse check --host --json").out)["findings"]
    told = rig.status(machine)["warnings"]
    return [one["what"] for one in found if "VRF" in one["what"]], [
        text for text in told if "VRF" in text
    ]


@pytest.mark.parametrize("named", [True, False], ids=["the VRF in the zone", "the VRF in no zone"])
def test_a_stranger_in_the_inside_vrf_gets_in_at_no_level_and_the_kept_services_pass(
    gateway: tuple[Ward, Machine, Sniffer], named: bool
):
    ward, machine, inside = gateway
    machine.sh(f"{_NAMED if named else _UNNAMED}; {_RELOAD}", check=True)
    if rig.levels(machine) != {"open"}:
        rig.command(machine, "open", "--yes")
    assert _kept(ward) == []
    assert _strangers_inside(ward, inside) >= DATAGRAMS, "positive control: at open they come in"
    rig.command(machine, "cut")
    assert _strangers_inside(ward, inside) == 0
    assert _kept(ward) == [], "kept, and not served"
    assert inside.count(source=places.LABORATORY.v4), "the witness sees what is let in"
    assert not ward.care.udp(places.WEB.v4, 5001), "not kept"
    words = (
        "the VRF vall of zone care holds wan0 too"
        if named
        else "in the VRF vall, which is in no zone"
    )
    for told in _remarks(machine):
        assert len(told) == 1, told
        assert words in told[0]
    rig.command(machine, "isolate")
    assert _strangers_inside(ward, inside) == 0
    assert not ward.care.udp(places.LABORATORY.v4, 5001)
