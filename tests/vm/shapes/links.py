"""Links of a gateway: trunks, bonds, bridges, VRFs."""

import socket

from .place import KEPT, Place, cable, cables, dress, until
from .traffic import PORT, inside_of


def plain(place: Place) -> None:
    cables(place)
    dress(place)


def vlans(place: Place) -> None:
    """A trunk inside, and a WAN that comes tagged."""
    cables(place)
    place.ip("gw", "link add lan0.10 link lan0 type vlan id 10; link set lan0.10 up")
    place.ip("gw", "link add wan0.20 link wan0 type vlan id 20; link set wan0.20 up")
    place.ip("in", "link add eth0.10 link eth0 type vlan id 10; link set eth0.10 up")
    place.ip("out", "link add far.20 link far type vlan id 20; link set far.20 up")
    dress(place, "wan0.20", "lan0.10", "far.20", "eth0.10")


def _bond(
    place: Place, role: str, bond: str, one: str, other: str, mode: str = "active-backup"
) -> None:
    place.ip(
        role,
        f"link add {bond} type bond mode {mode} miimon 100"
        f"; link set {one} down; link set {other} down"
        f"; link set {one} master {bond}; link set {other} master {bond}; link set {bond} up"
        # both ends on the same cable, whichever came up first
        + (f"; link set {bond} type bond primary {one}" if mode == "active-backup" else ""),
    )


def bonds(place: Place) -> None:
    """Two cables inside and two outside, active-backup, at both ends."""
    cables(place)
    cable(place, "gw:wan1", "out:far1")
    cable(place, "gw:lan1", "in:eth1")
    _bond(place, "gw", "bond0", "wan0", "wan1")
    _bond(place, "gw", "bond1", "lan0", "lan1")
    _bond(place, "out", "farb", "far", "far1")
    _bond(place, "in", "ethb", "eth0", "eth1")
    dress(place, "bond0", "bond1", "farb", "ethb")


def lacp(place: Place) -> None:
    """Two cables outside, by LACP, on each side told each second."""
    cables(place)
    cable(place, "gw:wan1", "out:far1")
    for role, bond, one, other in (("gw", "bond0", "wan0", "wan1"), ("out", "farb", "far", "far1")):
        _bond(place, role, bond, one, other, "802.3ad lacp_rate fast min_links 2")
    dress(place, "bond0", far="farb")
    until("LACP", lambda: _is_agreed(place))


def _is_agreed(place: Place) -> bool:
    # 0x3f: each end is in step with the other, collects and distributes, on both cables
    told = place.sh("gw", "cat /proc/net/bonding/bond0")
    return told.count("port state: 63") == 4


def lacp_goes_on(place: Place) -> None:
    """Wait for longer than a silent partner is thought alive (3 s)."""
    place.sh("gw", "sleep 5")
    if not _is_agreed(place):
        raise RuntimeError("the bond fell")


def bonds_fail_over(place: Place) -> None:
    """Both first cables are pulled."""
    place.ip("out", "link set far down")
    place.ip("in", "link set eth0 down")


def bridge(place: Place) -> None:
    """A bridge with two ports for the zone's interface."""
    cables(place)
    cable(place, "gw:lan1", "in:eth1")
    place.ip(
        "gw",
        "link add br0 type bridge; link set lan0 master br0; link set lan1 master br0"
        "; link set br0 up",
    )
    dress(place, lan="br0")


def bridge_with_outside_port(place: Place) -> None:
    """The zone's bridge has a port to the switch that the WAN hangs on, too."""
    cables(place)
    cable(place, "gw:back", "out:behind")
    place.ip(
        "gw",
        "link add br0 type bridge; link set lan0 master br0; link set back master br0"
        "; link set br0 up",
    )
    place.ip(
        "out",
        "link add sw type bridge; link set far master sw; link set behind master sw"
        "; link set sw up",
    )
    dress(place, lan="br0", far="sw")
    # the machine inside finds who is not kept by the bridge, not by the gateway's routing
    place.ip("in", "route add 203.0.113.20 dev eth0")


def vrf_wan(place: Place) -> None:
    """The WAN in a VRF; routes leak between it and the main table."""
    cables(place)
    place.ip("gw", "link add vwan type vrf table 100; link set vwan up; link set wan0 master vwan")
    dress_vrf(place, default="vwan")


def vrf_lan(place: Place) -> None:
    """The zone's interface in a VRF; the zone names the interface."""
    cables(place)
    place.ip("gw", "link add vlan type vrf table 100; link set vlan up; link set lan0 master vlan")
    dress(place)
    place.ip(
        "gw",
        """route add table 100 default via 192.0.2.1 dev wan0
        route add table 100 default via 2001:db8:0:1::1 dev wan0
        route add 10.10.0.0/16 dev lan0
        route add 2001:db8:10::/48 dev lan0""",
    )


def vrf_both(place: Place) -> None:
    """Inside and outside in one VRF."""
    cables(place)
    place.ip(
        "gw",
        "link add vall type vrf table 100; link set vall up"
        "; link set lan0 master vall; link set wan0 master vall",
    )
    dress_vrf(place, default="")


def dress_vrf(place: Place, default: str) -> None:
    """Give addresses; the default routes go to the VRF's table."""
    place.ip(
        "gw",
        """addr add 192.0.2.2/28 dev wan0
        addr add 2001:db8:0:1::2/64 dev wan0
        addr add 10.10.0.1/16 dev lan0
        addr add 2001:db8:10::1/48 dev lan0
        route add table 100 default via 192.0.2.1 dev wan0
        route add table 100 default via 2001:db8:0:1::1 dev wan0""",
    )
    if default:
        place.ip(
            "gw",
            """route add default via 192.0.2.1 dev wan0
            route add default via 2001:db8:0:1::1 dev wan0
            route add table 100 10.10.0.0/16 dev lan0
            route add table 100 2001:db8:10::/48 dev lan0""",
        )
    dress_ends(place)


def dress_ends(place: Place) -> None:
    """Dress outside and inside; the gateway has dressed itself."""
    place.ip(
        "out",
        """addr add 192.0.2.1/28 dev far
        addr add 2001:db8:0:1::1/64 dev far
        addr add 203.0.113.10/32 dev lo
        addr add 203.0.113.20/32 dev lo
        addr add 2001:db8:ff::10/128 dev lo
        addr add 2001:db8:ff::20/128 dev lo
        route add 10.10.0.0/16 via 192.0.2.2
        route add 2001:db8:10::/48 via 2001:db8:0:1::2""",
    )
    place.ip(
        "in",
        """addr add 10.10.0.9/16 dev eth0
        addr add 2001:db8:10::9/48 dev eth0
        route add default via 10.10.0.1
        route add default via 2001:db8:10::1""",
    )


def team(place: Place) -> None:
    """The kernel's team driver, active-backup by teamd, inside and outside."""
    cables(place)
    config = '{"device": "%s", "runner": {"name": "activebackup"}, "link_watch": %s}'
    watch = '{"name": "ethtool"}'
    for name, port in (("team0", "wan0"), ("team1", "lan0")):
        place.ip("gw", f"link set {port} down")
        place.spawn("gw", ["teamd", "-c", config % (name, watch), "-p", f"/run/{name}.pid"])
        place.sh(
            "gw",
            f"i=0; until teamdctl {name} port add {port}; do sleep .5; i=$((i+1)); test $i -lt 40;"
            f" done; ip link set {name} up",
        )
    dress(place, "team0", "team1")


def jumbo(place: Place) -> None:
    """Jumbo frames inside, 1280 outside."""
    plain(place)
    place.ip("gw", "link set lan0 mtu 9000; link set wan0 mtu 1280")
    place.ip("in", "link set eth0 mtu 9000")
    place.ip("out", "link set far mtu 1280")


def netem(place: Place) -> None:
    """Delay on both sides."""
    plain(place)
    for device in ("lan0", "wan0"):
        place.sh("gw", f"tc qdisc add dev {device} root netem delay 40ms 10ms")


def big(place: Place) -> None:
    """100 kB there and back by TCP: what is too big for the WAN is said to the sender (PMTU)."""
    with inside_of(place.namespace("in")):
        caller = socket.create_connection((KEPT[4], PORT), timeout=60)
    with caller:
        for _ in range(50):
            caller.sendall(bytes(2000))
            got = 0
            while got < 2000:
                got += len(caller.recv(4000))
