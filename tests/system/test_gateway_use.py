"""What the gateway itself uses: what is said to end at a cut ends, and what is kept passes.

The packets of OSPF themselves: test_protocols.
"""

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.system.test_exits import check_host
from tests.system.test_tamper import wait_until

pytestmark = pytest.mark.system

NTP, VXLAN_PORT = 123, 4789
FAR = places.MAINTENANCE
INNER = ("192.168.77.1", "192.168.77.2")


def named(daemon: Daemon, words: str) -> bool:
    return any(words in warning for warning in daemon.status()["warnings"])


def planned(daemon: Daemon, level: str = "cut") -> dict:
    return daemon.api("POST", "/v1/plan", {"level": level}).body


def test_a_plan_names_what_the_gateway_would_lose_and_the_cut_takes_it(
    hospital: Hospital, daemon: Daemon
):
    def asks_the_time() -> bool:
        return bool(hospital.gateway.udp(places.WEB.v4, NTP, timeout=0.5))

    assert all(asks_the_time() for _ in range(3)), "positive control"
    assert hospital.gateway.udp(places.HEALTH_DATA.v4, 4500)
    plan = planned(daemon)
    rows = {(row["peer"], row["protocol"], row["port"]): row for row in plan["gateway_ended"]}
    row = rows[places.WEB.v4, "udp", NTP]
    assert (row["direction"], row["connections"]) == ("out", 3)
    assert row["packets"] >= 6
    assert places.HEALTH_DATA.v4 not in {peer for peer, _, _ in rows}
    assert planned(daemon, "open")["gateway_ended"] == []
    shown = " ".join(daemon.cli("plan", "cut").stdout.split())
    assert "the gateway itself would lose" in shown
    assert f"out {places.WEB.v4} udp/123" in shown
    text = " ".join(check_host(hospital, daemon).stdout.split())
    assert f"udp/123 to {places.WEB.v4}" in text
    assert f"to {places.HEALTH_DATA.v4}" not in text
    daemon.level("cut")
    with hospital.sniff() as outside:
        assert not asks_the_time()
        assert outside.count(destination=places.WEB.v4) == 0
        assert hospital.gateway.udp(places.HEALTH_DATA.v4, 4500), "kept"
    assert not planned(daemon)["gateway_ended"], "what is refused now is lost already"


def tunnel(hospital: Hospital) -> None:
    """Lay a VXLAN between the gateway and a machine outside: this kernel's one kind of tunnel."""
    inner = zip(("gw", "inet"), INNER, strict=True)
    ends = {"gw": (places.GATEWAY_WAN.v4, FAR.v4), "inet": (FAR.v4, places.GATEWAY_WAN.v4)}
    for role, address in inner:
        ours, theirs = ends[role]
        hospital.shell(
            role,
            f"ip link add vx0 type vxlan id 7 local {ours} remote {theirs} dstport {VXLAN_PORT}; "
            f"ip addr add {address}/30 dev vx0; ip link set vx0 up",
        )


def passes_the_tunnel(hospital: Hospital) -> bool:
    ping = ["ping", "-c", "3", "-i", "0.2", "-W", "1", INNER[1]]
    return hospital.run("gw", ping).returncode == 0


WORDS = f"vx0 is a tunnel (vxlan to {FAR.v4}) whose own packets level 'cut' refuses"


def test_a_tunnel_that_dies_is_named_with_what_to_list(hospital: Hospital, daemon: Daemon):
    tunnel(hospital)
    assert passes_the_tunnel(hospital), "positive control"
    assert wait_until(lambda: named(daemon, WORDS), 10)
    told = [text for text in planned(daemon)["warnings"] if WORDS in text]
    assert told[0].endswith(f"List udp/4789 for zone gateway, to and from {FAR.v4}")
    assert WORDS in " ".join(check_host(hospital, daemon).stdout.split())
    assert not [text for text in planned(daemon, "open")["warnings"] if "is a tunnel" in text]
    outside = "outside, as in no zone of site.yaml: vx0: what services keep passes there"
    assert named(daemon, outside)
    daemon.level("cut")
    assert not passes_the_tunnel(hospital)


def test_a_tunnel_that_is_listed_as_told_lives_and_is_not_named(hospital: Hospital):
    ends = [
        {"to": [FAR.v4], "ports": [f"udp/{VXLAN_PORT}"]},
        {"from": [FAR.v4], "ports": [f"udp/{VXLAN_PORT}"]},
    ]
    inner = [{"to": [INNER[1]], "ports": ["icmp"]}, {"from": [INNER[1]], "ports": ["icmp"]}]
    carrier = policy.service("tunnel", "vital", ["gateway"], ends)
    through = policy.service("through", "vital", ["gateway"], inner)
    allowlist = {**policy.ALLOWLIST, "90-tunnel.yaml": [carrier, through]}
    daemon = hospital.daemon(allowlist=allowlist).start()
    try:
        tunnel(hospital)
        assert passes_the_tunnel(hospital), "positive control"
        assert wait_until(lambda: named(daemon, "outside, as in no zone of site.yaml: vx0"), 10)
        assert not named(daemon, "is a tunnel")
        daemon.level("cut")
        assert passes_the_tunnel(hospital)
    finally:
        daemon.stop()


def test_routes_of_a_routing_protocol_are_named_unless_it_is_kept(hospital: Hospital):
    words = "came by OSPF, whose own packets level 'cut' refuses"
    daemon = hospital.daemon().start()
    try:
        learned = f"{places.LABORATORY.v4}/32 via {places.INTERNET_ROUTER.v4} proto ospf"
        hospital.shell("gw", f"ip route add {learned}")
        assert wait_until(lambda: named(daemon, words), 10)
        assert any(words in text for text in planned(daemon)["warnings"])
        assert words in " ".join(check_host(hospital, daemon).stdout.split())
        lifeline = policy.SITE["lifeline"] | {"presets": ["nd", "ospf"]}
        daemon.write_config(site=policy.site(lifeline=lifeline))
        assert words not in " ".join(check_host(hospital, daemon).stdout.split())
        assert not any(
            words in text
            for text in daemon.api("POST", "/v1/plan", {"reload": True}).body["warnings"]
        )
    finally:
        daemon.stop()


SEGMENT = """
ip link add segment type bridge
ip link set segment up
ip link set uplink master segment
for one in $(ip -o -4 addr show dev uplink | awk '{print $4}'); do
  ip addr del $one dev uplink; ip addr add $one dev segment
done
ip link add out1 type veth peer name far1
ip link set far1 master segment
ip link set far1 up
ip link set out1 netns GATEWAY
"""
"""The provider's segment is a switch: the router stands on it, and a second link to the gateway."""
BRIDGE = f"""
ip addr flush dev guest0
ip link add br-guest type bridge
ip link set br-guest up
ip link set guest0 master br-guest
ip addr add {places.ZONES[2].gateway.v4}/16 dev br-guest
"""


def test_a_zones_bridge_with_a_port_outside_leaks_and_is_named(hospital: Hospital):
    """The second link to the provider is plugged into the inside's bridge by mistake."""
    router = places.INTERNET_ROUTER.v4
    hospital.shell("inet", SEGMENT.replace("GATEWAY", hospital.namespace("gw")))
    hospital.shell("gw", BRIDGE)
    hospital.shell("guests", "ip addr add 192.0.2.9/28 dev eth0")
    site = policy.site()
    site["zones"][2]["interfaces"] = ["br-guest"]
    daemon = hospital.daemon(site=site).start()

    def reached(role: str) -> bool:
        return hospital.run(role, ["ping", "-c", "2", "-W", "1", router]).returncode == 0

    try:
        assert reached("gw"), "it knows its router now"
        daemon.level("isolate")
        assert not reached("guests")
        assert check_host(hospital, daemon).returncode == 0
        hospital.shell("gw", "ip link set out1 master br-guest; ip link set out1 up")
        assert wait_until(lambda: reached("guests"), 10), "positive control: they are outside"
        found = check_host(hospital, daemon)
        assert found.returncode == 1, found.stdout
        text = " ".join(found.stdout.split())
        assert f"bridge br-guest of zone guests sees {router}, the next hop of a default" in text
        assert "behind its port out1: that port leads outside" in text
        hospital.shell("gw", "ip link add late0 type veth peer name late1")  # a look at once
        assert wait_until(lambda: named(daemon, "behind its port out1"), 10)
        hospital.shell("gw", "ip link set out1 nomaster")
        assert wait_until(lambda: not named(daemon, "behind its port out1"), 10)
        assert not reached("guests")
    finally:
        daemon.stop()
