"""How full the kernel's bounded tables are."""

import subprocess
from pathlib import Path

import pytest

from tests.kernel.adapters.conftest import ip
from tests.kernel.adapters.test_conntrack import fill

pytestmark = pytest.mark.kernel


async def test_how_full_the_kernels_tables_are(links, conntrack):
    before = {one.name: one for one in await links.table_uses()}
    fill(range(500))
    ip("link add wan0 type veth peer name lan0")
    ip("link set wan0 up")
    for n in range(20):
        ip(f"neigh add 198.51.100.{n + 1} lladdr 02:00:00:00:00:01 dev wan0 nud permanent")
    after = {one.name: one for one in await links.table_uses()}
    assert after["connections"].used >= before["connections"].used + 500
    limit = Path("/proc/sys/net/netfilter/nf_conntrack_max")
    assert after["connections"].most == int(limit.read_text()), (
        "the machine's, as every namespace reads it"
    )
    assert after["IPv4 neighbours"].used >= 20
    shown = subprocess.run(
        ["ip", "-s", "ntable", "show"], capture_output=True, text=True, check=True
    ).stdout
    assert f"thresh3 {after['IPv4 neighbours'].most} " in shown
    assert {"IPv4 neighbours", "IPv6 neighbours"} <= after.keys()
