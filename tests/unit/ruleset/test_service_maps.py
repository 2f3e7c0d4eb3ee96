"""A name that leads to a private address is kept for the destination that says so, and for no
other.
"""

from dataclasses import replace
from ipaddress import ip_address

from ecluse.policy import Criticality, Destination, Direction, Policy, Service, Traffic
from ecluse.ruleset.compile import compile_program
from tests.unit.ruleset.policies import SITE


def test_for_whom_the_destination_says_so():
    open_ = Destination(Direction.OUTBOUND, ("a.example",), (), (Traffic(6, 443, 443),))
    tunnel = replace(open_, traffic=(Traffic(6, 22, 22),), private=True)
    one = Service("lab", "", "", "", Criticality.VITAL, ("care",), (), (open_, tunnel))
    names = {
        "a.example": (ip_address("203.0.113.9"), ip_address("10.200.0.9"), ip_address("fd00::9"))
    }
    program = compile_program(Policy(SITE, (one,)), names, 1)
    kept = {
        (str(ip_address(key[0][0])), key[1][0])
        for named in program.sets
        if named.from_host_names
        for key in named.elements
    }
    assert kept == {
        ("203.0.113.9", 443),
        ("203.0.113.9", 22),
        ("10.200.0.9", 22),
        (str(ip_address(int(ip_address("fd00::9")))), 22),
    }
