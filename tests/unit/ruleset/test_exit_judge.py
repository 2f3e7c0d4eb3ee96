"""The second lock, judged in Python; tests/kernel/adapters/test_exit_table.py asks the kernel."""

import pytest

from ecluse.ruleset.exit_judge import judge
from ecluse.ruleset.exit_values import Ends, ExitDevice, ExitLock
from tests.unit.ruleset.exit_frames import OURS, ethernet, ip4, ports

TUN = ExitDevice("tun0", ethernet=False)
WAN = ExitDevice("wan0", (int.from_bytes(OURS, "big"),), dials=True)
CARRIER = ExitDevice("wan0", WAN.macs, dials=True, carries_ppp=True)
LOCK = ExitLock((WAN,), Ends(frozenset({0xCB007109})), Ends())
KEPT, OTHER = (ip4(to, 6, ports(40000, 443)) for to in ("203.0.113.9", "192.0.2.9"))


@pytest.mark.parametrize(("packet", "judged"), [(KEPT, "kept4"), (OTHER, "lost")])
def test_a_device_without_ethernet_header(packet, judged):
    assert judge(LOCK, TUN, packet) == judged
    assert judge(LOCK, WAN, ethernet(0x0800, packet)) == judged
    assert judge(LOCK, TUN, packet, 0x1234) == "lost"


def test_pppoe_where_it_is_dialled_or_runs():
    discovery, session = (ethernet(kind, bytes(20)) for kind in (0x8863, 0x8864))
    assert [judge(LOCK, WAN, one) for one in (discovery, session)] == ["link", "lost"]
    assert [judge(LOCK, CARRIER, one) for one in (discovery, session)] == ["link", "link"]
