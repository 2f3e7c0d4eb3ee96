"""Addresses that the DNS gate learned, given their time again on Debian's own kernels while packets
need them.
"""

import json
from pathlib import Path

import pytest

from tests.vm.images import Disk
from tests.vm.ward import Ward

pytestmark = pytest.mark.vm

HERE = Path(__file__).parent
ROUNDS, PACKETS = 3_000, 20_000


def test_no_packet_misses_an_address_that_is_put_in_again(disk: Disk):
    """A sender with no pause, and the product's own call over and over.

    Whole, half over, and almost over at first.

    What was almost over is one that no packet went to for half an hour: there, before Linux 6.12,
    it is exchanged.
    """
    with Ward() as ward:
        machine = ward.machine("learned", disk)
        machine.start()
        machine.wait_until_up(until="ecluse.service")
        machine.write(
            "/root/learned_probe.py", (HERE / "learned_probe.py").read_text(encoding="utf-8")
        )
        run = (
            "PYTHONPATH=/usr/lib/ecluse/python unshare -n python3 /root/learned_probe.py "
            f"{ROUNDS} {PACKETS}"
        )
        told = json.loads(machine.sh(run, check=True, timeout=900).out)
        assert told["sent"] >= PACKETS
        assert told["rounds"] >= ROUNDS
        assert told["refused_without_it"], (
            "positive control: an address that is not in the set is refused"
        )
        assert not told["refused"]
        assert told["left_at_least"] >= 1800, "half an hour after each answer, at the least"
        assert told["left_in_the_end"] >= 3590, "packets give an address its whole hour"
        machine.power_cut()
