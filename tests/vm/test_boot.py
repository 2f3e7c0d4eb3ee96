"""A cut outlasts the machine: reboot, power cut, boots with this or that missing. Watched from outside, from link to shutdown."""

import time

import pytest

from tests.vm import traffic
from tests.vm.machine import Machine
from tests.vm.ward import Ward
from tests.vm.witness import Witness

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


def test_a_cut_outlasts_reboots_and_a_power_cut(ward: Ward, witness: Witness, machine: Machine):
    machine.boot(until="ecluse.service")
    with traffic.running(ward):
        began = time.time_ns()
        time.sleep(2)
        seen = witness.judge(began)
        print(seen)
        assert seen.kept > 100
        machine.sh("ecluse cut --reason test", check=True)
        answered = time.time_ns()
        print("reboot", machine.reboot())
        v = witness.judge(answered)
        print(v)
        print(traffic.unserved(ward))
        machine.power_cut()
        t = time.time_ns()
        print(machine.boot())
        v = witness.judge(t)
        print(v)
        print(traffic.unserved(ward))
        assert 0
