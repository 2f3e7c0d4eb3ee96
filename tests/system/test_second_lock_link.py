"""What a link needs passes the second lock at isolate, with real programs: DHCP and VRRP."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import link_peers, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.system.test_second_lock import has_lock
from tests.system.test_tamper import wait_until

pytestmark = pytest.mark.system

SHARED = "192.0.2.14"
KEEPALIVED = """
global_defs {{
  vrrp_garp_master_refresh 0
}}
vrrp_instance shared {{
  state BACKUP
  interface {interface}
  {vmac}
  virtual_router_id 51
  priority {priority}
  advert_int 1
  virtual_ipaddress {{
    {shared}/32
  }}
}}
"""


def isolated(hospital: Hospital, *presets: str) -> Daemon:
    lifeline = policy.SITE["lifeline"] | {"presets": list(presets)}
    daemon = hospital.daemon(site=policy.site(lifeline=lifeline)).start()
    daemon.level("isolate")
    assert wait_until(lambda: has_lock(daemon), 5)
    return daemon


def drop_all(hospital: Hospital, daemon: Daemon) -> None:
    """Have the lock pass nothing: the daemon, which would mend it, is dead."""
    daemon.kill9()
    hospital.nft("insert rule netdev ecluse_exit on.wan0 drop")


def test_a_dhcp_client_gets_its_lease(hospital: Hospital, tmp_path: Path):
    client, server = link_peers.program("busybox"), link_peers.program("dnsmasq")
    script = tmp_path / "lease"
    script.write_text('#!/bin/sh\n[ "$1" != bound ] || echo "lease $ip"\n')
    script.chmod(0o755)

    def lease() -> str:
        words = [client, "udhcpc", "-i", "wan0", "-f", "-n", "-q", "-t", "3", "-T", "1"]
        return hospital.run("gw", [*words, "-s", str(script)]).stdout

    serve = (
        f"--keep-in-foreground --port=0 --conf-file=/dev/null --interface=uplink --bind-interfaces "
        f"--user=root --no-ping --dhcp-range=192.0.2.10,192.0.2.12,2m "
        f"--dhcp-leasefile={tmp_path}/leases "
        f"--pid-file= --log-dhcp --log-facility=-"
    )
    daemon = isolated(hospital, "dhcp", "nd")
    inet = hospital.namespace("inet")
    with link_peers.Running(inet, tmp_path / "dnsmasq", server, *serve.split()) as serving:
        assert wait_until(lambda: "DHCP, IP range" in serving.said(), 10), serving.said()
        assert "lease 192.0.2.1" in lease(), serving.said()
        drop_all(hospital, daemon)
        assert "lease" not in lease(), "positive control: it asks by this device"


@contextlib.contextmanager
def router(
    hospital: Hospital, folder: Path, role: str, interface: str, priority: int, vmac: str
) -> Iterator[link_peers.Running]:
    folder = folder / role
    folder.mkdir()
    config = folder / "keepalived.conf"
    config.write_text(
        KEEPALIVED.format(interface=interface, priority=priority, vmac=vmac, shared=SHARED)
    )
    words = ("-n", "-l", "-D", "-P", "-f", config, "-p", folder / "pid", "-r", folder / "vrrp")
    argv = (link_peers.program("keepalived"), *map(str, words))
    with link_peers.Running(hospital.namespace(role), folder / "log", *argv) as running:
        yield running


@pytest.mark.parametrize("vmac", ["", "use_vmac vrrp51"], ids=["own address", "virtual address"])
def test_the_master_of_a_virtual_router_stays_master(hospital: Hospital, tmp_path: Path, vmac: str):
    def holds(role: str) -> bool:
        return SHARED in hospital.shell(role, "ip -4 addr show")

    daemon = isolated(hospital, "vrrp", "nd")
    with router(hospital, tmp_path, "gw", "wan0", 150, vmac) as ours:
        assert wait_until(lambda: holds("gw"), 20), ours.said()
        with router(hospital, tmp_path, "inet", "uplink", 100, "") as other:
            assert wait_until(lambda: "Entering BACKUP" in other.said(), 20), other.said()
            # Three advertisements that do not come make it the master, after 3.6 s.
            assert not wait_until(lambda: holds("inet"), 6), other.said()
            assert has_lock(daemon)
            drop_all(hospital, daemon)
            assert wait_until(lambda: holds("inet"), 20), "positive control"
