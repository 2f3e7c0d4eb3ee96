"""A cut holds whatever happens to the gateway, on Debian's own kernels, watched from outside from
link-up to shutdown.

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


# -- other firewalls, restarted while cut


@pytest.mark.parametrize("action", ["reload", "restart", "stop"])
def test_nftables_service(scene: Scene, action: str):
    scene.machine.sh(f"systemctl {action} nftables", check=True)
    time.sleep(1)
    scene.must_stay_shut()
    scene.machine.sh("systemctl start nftables", check=True)
    scene.must_hold()


_FIREWALLD = f"""
set -e
firewall-offline-cmd -q --set-default-zone=trusted
firewall-offline-cmd -q --zone=external --add-interface=wan0
firewall-offline-cmd -q --zone=external --set-target=ACCEPT
firewall-offline-cmd -q --zone=external --add-forward-port=\
port={places.FORWARDED_PORT}:proto=tcp:toport={places.SERVER_PORT}:toaddr={places.CARE_SERVER.v4}
"""
# systemd says that it is started before its rules are there
_FIREWALLD_STANDS = """
for i in $(seq 300); do
  nft list table inet firewalld 2>&1 | grep -q masquerade && exit 0; sleep 1
done; exit 1
"""


def test_firewalld(scene: Scene):
    """It stops nftables.service and does the site's NAT instead.

    Its own rules let everything else through.
    """
    scene.machine.sh(_FIREWALLD, check=True)
    try:
        for action in ("start", "reload", "restart"):
            scene.machine.sh(f"systemctl {action} firewalld; {_FIREWALLD_STANDS}", check=True)
            scene.must_stay_shut()
        scene.must_hold()
    finally:
        scene.machine.sh("systemctl stop firewalld; systemctl restart nftables", check=True)
    scene.must_hold()


_CONTAINERS = """
set -e
ip link show docker0 2>/dev/null || {
  ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
  ip netns add box; ip link add box0 type veth peer name eth0 netns box
  ip link set box0 master docker0 up
  ip -n box addr add 172.17.0.2/16 dev eth0; ip -n box link set eth0 up
  ip -n box route add default via 172.17.0.1
}
iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables -N DOCKER-USER
iptables -A DOCKER-USER -j RETURN
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables-save | iptables-restore
"""


def test_a_user_of_iptables_like_docker(scene: Scene):
    for _ in range(3):
        scene.machine.sh(_CONTAINERS, check=True)
        away = scene.machine.sh(f"ip netns exec box ping -c 3 -i 0.2 -W 1 {places.WEB.v4}")
        assert "100% packet loss" in away.out, away
        scene.must_stay_shut()
    scene.must_hold()
    scene.machine.sh(
        "ip netns del box; ip link del docker0; iptables-save | sed '/^-/d' | iptables-restore"
    )


# -- flows that skip the rules

_OFFLOAD = """
table inet fast {
  flowtable ft { hook ingress priority filter; devices = { care0, wan0 }; }
  chain forward { type filter hook forward priority filter + 10; policy accept;
    meta l4proto { tcp, udp } flow add @ft
  }
}
"""


@pytest.mark.parametrize("scene", [{"level": "open", "rate": 20}], indirect=True)
def test_offloaded_flows_that_are_not_kept_end_within_a_second(scene: Scene):
    scene.machine.write("/root/offload.nft", _OFFLOAD)
    scene.machine.sh("nft -f /root/offload.nft", check=True)
    care = scene.ward.care
    ways = [(protocol, family) for protocol in ("tcp", "udp") for family in (4, 6)]
    kept = [
        care.stream(places.LABORATORY.address(f), {"tcp": 443, "udp": 5000}[p], p, rate=100)
        for p, f in ways
    ]
    others = [
        care.stream(places.WEB.address(f), {"tcp": 443, "udp": 5000}[p], p, rate=100)
        for p, f in ways
    ]
    time.sleep(3)
    listed = scene.machine.sh("conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null").out
    offloaded = [line for line in listed.splitlines() if "OFFLOAD" in line]
    for place in (places.LABORATORY, places.WEB):
        for protocol, family in ways:
            wanted = (f"{protocol} ", f"dst={place.address(family)} ")
            assert any(all(word in line for word in wanted) for line in offloaded), (
                f"{wanted}:\n{listed}"
            )
    answered = rig.command(scene.machine, "cut")
    time.sleep(3)
    scene.since = answered + 1_000_000_000
    scene.must_hold()
    scene.machine.sh("nft delete table inet fast", check=True)
    for stream in others:
        assert stream.stop(grace=0).silent_ms > 1000
    for stream in kept:
        report = stream.stop(grace=5)
        # not `resent`: an emulated gateway stands still for longer than TCP waits, and then it has
        # to send again
        assert (report.lost, report.errors, report.ended, report.rig_drops) == (0, {}, "", 0), (
            report
        )


# -- the daemon and its package


def test_an_upgrade_loses_nothing_and_lets_nothing_through(scene: Scene):
    # At 1,000/s an emulator that shares its cores with others could not follow for minutes (gaps of
    # 36 s at load 7), and its cards dropped what waited.
    streams = [
        scene.ward.care.stream(places.LABORATORY.address(family), 5001, rate=200)
        for family in (4, 6)
    ]
    away = scene.ward.care.stream(places.WEB.v4, 5001, rate=200)
    asked = "dpkg-query -W -f '${Version}' ecluse"
    before = scene.machine.sh(asked, check=True).out
    install = "DEBIAN_FRONTEND=noninteractive dpkg -i /root/next.deb"
    scene.machine.sh(install, check=True, timeout=1200)  # two minutes on a quiet machine
    scene.must_be_cut()
    assert scene.machine.sh(asked, check=True).out == f"{before}+next"
    assert away.stop(grace=0).received == 0
    reports = [stream.stop(grace=10) for stream in streams]
    assert all(report.whole for report in reports), (reports, scene.ward.dropped_by_cards())
    scene.must_hold()


_CRASHES = "/etc/systemd/system/ecluse.service.d/crashes.conf"


def test_a_daemon_that_crashes_at_once_here_and_at_the_next_boot(scene: Scene):
    machine = scene.machine
    machine.write(_CRASHES, "[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=50ms\n")
    machine.sh("systemctl daemon-reload; systemctl kill -s KILL ecluse", check=True)
    _restarts(scene, 15)
    scene.must_hold()
    machine.reboot()
    _restarts(scene, 5)
    scene.must_stay_shut()
    scene.must_hold()
    machine.sh(f"rm {_CRASHES}; systemctl daemon-reload", check=True)
    scene.must_be_cut()
    scene.must_hold()


def _restarts(scene: Scene, count: int) -> None:
    """Wait until systemd has started the daemon so many times in vain."""
    asked = "systemctl show --value -p NRestarts ecluse"
    scene.machine.sh(
        f"for i in $(seq 600); do [ $({asked}) -ge {count} ] && exit 0; sleep .5; done; exit 1",
        check=True,
    )


# -- boots


def test_a_reboot(scene: Scene):
    scene.machine.reboot()
    scene.must_stay_shut()
    scene.must_hold()
    scene.must_be_cut()
    scene.must_hold()


def test_a_power_cut_and_a_boot_with_the_daemon_masked(scene: Scene):
    scene.machine.sh("systemctl mask ecluse.service ecluse.socket && sync", check=True)
    scene.power_cut()
    scene.machine.boot()
    scene.must_stay_shut()
    scene.must_hold()
    scene.machine.sh(
        "systemctl unmask ecluse.service ecluse.socket && systemctl start ecluse", check=True
    )
    scene.must_be_cut()


def test_a_boot_without_the_internet_and_without_names(scene: Scene):
    silent = {name: {"silent": True} for name in places.NAMES}
    scene.ward.dns(silent)
    try:
        scene.machine.shutdown()
        scene.machine.boot(without=["wan0"])
        scene.must_stay_shut()
        scene.must_be_cut()
        scene.machine.cable("wan0", plugged=True)
        time.sleep(3)
        scene.must_hold()
    finally:
        scene.ward.dns(places.NAMES)


_STATE = "/var/lib/ecluse"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(f"truncate -s -80 {_STATE}/boot.nft", id="boot.nft torn"),
        pytest.param(
            f"truncate -s 0 {_STATE}/boot.nft {_STATE}/closed.nft", id="both rulesets empty"
        ),
        pytest.param(f"find {_STATE} -type f -exec truncate -s 0 {{}} +", id="every file empty"),
    ],
)
def test_a_boot_with_damaged_files(scene: Scene, damage: str):
    scene.machine.sh(f"{damage}; sync", check=True)
    scene.power_cut()
    scene.machine.boot()
    scene.must_stay_shut()
    scene.must_be_cut()
    scene.must_hold()
