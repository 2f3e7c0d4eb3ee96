"""Routes that are learned, chosen, or change."""

import os
import struct
from pathlib import Path

from .place import Place, cable, cables, dress, until


def _frr(place: Place, role: str, daemon: str, config: str) -> None:
    """Run zebra and another daemon of FRR in a namespace, with sockets of their own."""
    home = place.folder / f"frr-{role}"
    home.mkdir()
    place.folder.chmod(0o755)
    home.chmod(0o777)
    (home / "zebra.conf").write_text("hostname a\n")
    (home / f"{daemon}.conf").write_text(config)
    for name in ("zebra", daemon):
        place.spawn(
            role,
            [
                *(f"/usr/lib/frr/{name}", "-f", f"{home}/{name}.conf", "-i", f"{home}/{name}.pid"),
                *("-z", f"{home}/zserv.api", "--vty_socket", str(home), "-P", "0"),
            ],
            env=os.environ | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        if name == "zebra":
            until("zebra", (home / "zserv.api").exists)


def _partners(place: Place) -> None:
    """Have a route to announce that does not spell the address the witness looks for.

    Nor may a router's own name, which is the highest address of its loopback if left out.
    """
    place.ip("out", "route add blackhole 203.0.113.0/24")


def _learned(place: Place) -> bool:
    return "203.0.113" in place.sh("gw", "ip route show proto ospf; ip route show proto bgp")


def ospf(place: Place) -> None:
    """The way to the partners is learned by OSPF; a neighbour is dead after 12 s."""
    cables(place)
    dress(place, families=(4,))
    place.ip("gw", "route del default")
    link = "interface {}\n ip ospf hello-interval 2\n ip ospf dead-interval 12\n"
    router = "router ospf\n ospf router-id {}\n network 192.0.2.0/28 area 0\n"
    _frr(place, "gw", "ospfd", link.format("wan0") + router.format("192.0.2.2"))
    _partners(place)
    _frr(
        place,
        "out",
        "ospfd",
        link.format("far") + router.format("192.0.2.1") + " redistribute kernel\n",
    )
    until("a route by OSPF", lambda: _learned(place), 120)


def bgp(place: Place) -> None:
    """The way to the partners is learned by BGP; a neighbour is dead after 12 s."""
    cables(place)
    dress(place, families=(4,))
    place.ip("gw", "route del default")
    text = (
        "router bgp {own}\n bgp router-id {near}\n no bgp ebgp-requires-policy\n timers bgp 3 12\n"
        " neighbor {far} remote-as {theirs}\n"
    )
    _frr(
        place, "gw", "bgpd", text.format(own=65001, near="192.0.2.2", far="192.0.2.1", theirs=65002)
    )
    _partners(place)
    network = " address-family ipv4 unicast\n  network 203.0.113.0/24\n"
    _frr(
        place,
        "out",
        "bgpd",
        text.format(own=65002, near="192.0.2.1", far="192.0.2.2", theirs=65001) + network,
    )
    until("a route by BGP", lambda: _learned(place), 120)


def neighbours_time_out(place: Place) -> None:
    """Wait for longer than a silent neighbour is thought alive."""
    place.sh("gw", "sleep 14")


def two_wans(place: Place) -> None:
    """Two providers, a table for each; the inside goes by the first."""
    cables(place)
    cable(place, "gw:wan1", "out:far1")
    dress(place)
    place.ip("out", "addr add 198.51.100.1/28 dev far1; addr add 2001:db8:0:2::1/64 dev far1")
    place.ip(
        "gw",
        """addr add 198.51.100.2/28 dev wan1
        addr add 2001:db8:0:2::2/64 dev wan1
        route add default via 198.51.100.1 table 102
        route add default via 2001:db8:0:2::1 table 102
        route add default via 192.0.2.1 table 101
        route add default via 2001:db8:0:1::1 table 101""",
    )
    place.sh(
        "gw",
        "ip rule add from 10.10.0.0/16 table 101; ip -6 rule add from 2001:db8:10::/48 table 101",
    )


def wan_fails(place: Place) -> None:
    """The first provider goes; a script leads everything by the second, at both ends."""
    place.sh(
        "gw",
        "ip rule del from 10.10.0.0/16 table 101; ip rule add from 10.10.0.0/16 table 102; "
        "ip -6 rule del from 2001:db8:10::/48 table 101; "
        "ip -6 rule add from 2001:db8:10::/48 table 102; ip link set wan0 down",
    )
    place.ip(
        "out",
        "route replace 10.10.0.0/16 via 198.51.100.2"
        "; route replace 2001:db8:10::/48 via 2001:db8:0:2::2",
    )


def router_behind(place: Place) -> None:
    """The inside is behind a second router."""
    place.make("out", "gw", "in", "r2")
    cable(place, "gw:wan0", "out:far")
    cable(place, "gw:lan0", "r2:north")
    cable(place, "r2:south", "in:eth0")
    dress(place, lan="")
    place.ip(
        "gw",
        """addr add 10.10.0.1/30 dev lan0
        addr add 2001:db8:10:1::1/64 dev lan0
        route add 10.10.0.9 via 10.10.0.2
        route add 2001:db8:10::9 via 2001:db8:10:1::2""",
    )
    place.ip(
        "r2",
        """addr add 10.10.0.2/30 dev north
        addr add 2001:db8:10:1::2/64 dev north
        addr add 10.10.1.1/32 dev south
        addr add 2001:db8:10:2::1/64 dev south
        route add 10.10.0.9 dev south
        route add 2001:db8:10::9 dev south
        route add default via 10.10.0.1
        route add default via 2001:db8:10:1::1""",
    )
    place.ip(
        "in",
        """addr add 10.10.0.9/32 dev eth0
        addr add 2001:db8:10::9/128 dev eth0
        addr add 2001:db8:10:2::9/64 dev eth0
        route add 10.10.1.1 dev eth0
        route add default via 10.10.1.1
        route add default via 2001:db8:10:2::1""",
    )


def _lease(place: Place, last: int) -> None:
    """Serve the WAN's address as the provider does."""
    place.sh("out", "test ! -e {0} || kill $(cat {0})".format(place.folder / "dnsmasq.pid"))
    place.spawn(
        "out",
        [
            *("dnsmasq", "-k", "-p", "0", "-i", "far", "--conf-file=/dev/null", "-u", "root"),
            *(f"--dhcp-range=192.0.2.{last},192.0.2.{last},120", "--dhcp-option=3,192.0.2.1"),
            *("-x", f"{place.folder}/dnsmasq.pid", f"--dhcp-leasefile={place.folder}/{last}"),
            "--dhcp-authoritative",
        ],
    )
    until("a DHCP server", (place.folder / "dnsmasq.pid").exists)


_LEASED = """#!/bin/sh
case $1 in bound|renew)
  ip addr flush dev wan0 scope global
  ip addr add $ip/28 dev wan0
  ip route replace default via $router ;;
esac
"""


def _has(place: Place, last: int) -> bool:
    return f"192.0.2.{last}/28" in place.sh("gw", "ip -4 addr show dev wan0")


def dhcp_wan(place: Place) -> None:
    """The provider gives the WAN's address by DHCP, and routes the inside's own to the link."""
    cables(place)
    dress(place, wan="")
    place.ip("out", "addr add 192.0.2.1/28 dev far; route add 10.10.0.0/16 dev far")
    place.sh("gw", "echo 1 >/proc/sys/net/ipv4/conf/wan0/proxy_arp")
    _lease(place, 5)
    script = place.folder / "leased"
    script.write_text(_LEASED)
    script.chmod(0o755)
    place.spawn(
        "gw",
        ["udhcpc", "-f", "-i", "wan0", "-s", str(script), "-p", str(place.folder / "udhcpc.pid")],
    )
    until("an address by DHCP", lambda: _has(place, 5))


def address_changes(place: Place) -> None:
    """The provider gives another address."""
    _lease(place, 6)
    place.sh(
        "gw",
        f"kill -USR2 $(cat {place.folder}/udhcpc.pid); sleep 1;"
        f" kill -USR1 $(cat {place.folder}/udhcpc.pid)",
    )
    until("another address by DHCP", lambda: _has(place, 6))


def ipv6_only(place: Place) -> None:
    """A WAN without IPv4."""
    cables(place)
    dress(place, families=(6,))


_VRRP = """
global_defs {{
  router_id {role}
}}
vrrp_instance inside {{
  state {state}
  interface lan0
  virtual_router_id 7
  priority {priority}
  advert_int 1
  virtual_ipaddress {{
    10.10.0.254/16
  }}
}}
vrrp_instance outside {{
  state {state}
  interface wan0
  virtual_router_id 8
  priority {priority}
  advert_int 1
  virtual_ipaddress {{
    192.0.2.5/28
  }}
}}
"""


def vrrp(place: Place) -> None:
    """Two gateways share an address inside and one outside; the second has a cable to nowhere."""
    place.make("out", "gw", "in", "mate", "inner", "outer")
    cable(place, "gw:wan0", "outer:p1")
    cable(place, "mate:wan0", "outer:p2")
    cable(place, "out:far", "outer:p3")
    cable(place, "gw:lan0", "inner:p1")
    cable(place, "mate:lan0", "inner:p2")
    cable(place, "in:eth0", "inner:p3")
    for switch in ("inner", "outer"):
        ports = "; ".join(f"link set {port} master sw" for port in ("p1", "p2", "p3"))
        place.ip(switch, f"link add sw type bridge; link set sw up; {ports}")
    dress(place, families=(4,))
    # the first alone leads anywhere: the second is as closed as a gateway of ours would be
    place.sh("mate", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    place.ip("mate", "addr add 192.0.2.3/28 dev wan0; addr add 10.10.0.2/16 dev lan0")
    place.ip("out", "route replace 10.10.0.0/16 via 192.0.2.5")
    place.ip("in", "route replace default via 10.10.0.254")
    # the router outside soon asks again whose an address is
    place.sh(
        "out",
        "cd /proc/sys/net/ipv4/neigh/far; echo 1000 >base_reachable_time_ms;"
        " echo 1 >delay_first_probe_time",
    )
    for role, state, priority in (("gw", "MASTER", 200), ("mate", "BACKUP", 100)):
        home = place.folder / role
        home.with_suffix(".conf").write_text(
            _VRRP.format(role=role, state=state, priority=priority)
        )
        words = f"-n -l -D -P -f {home}.conf -p {home}.pid -r {home}-vrrp.pid -b {home}-bfd.pid"
        place.spawn(role, ["keepalived", *words.split()])
    until("a master", lambda: all(_has_shared(place, "gw", one) for one in _SHARED))


_SHARED = ("10.10.0.254", "192.0.2.5")


def _has_shared(place: Place, role: str, address: str) -> bool:
    return f" {address}/" in place.sh(role, "ip -4 addr show")


def mate_takes_over(place: Place) -> None:
    """The second gateway hears nothing of the first outside."""
    until("the second has the address outside", lambda: _has_shared(place, "mate", _SHARED[1]))


def mate_stays(place: Place) -> None:
    """Wait for longer than the second gateway waits for the first (3.6 s)."""
    place.sh("gw", "sleep 6")
    if any(_has_shared(place, "mate", one) for one in _SHARED):
        raise RuntimeError("the second gateway took an address")


_DELEGATED = "2001:db8:10::1/64"
_CLIENT = """
interface wan0 { send ia-pd 0; };
id-assoc pd 0 { prefix-interface lan0 { sla-id 0; sla-len 16; ifid 1; }; };
"""
_SERVER = "host gw {{ duid {duid}; prefix 2001:db8:10::/48 20 40; }};\n"


def delegation(place: Place) -> None:
    """The provider delegates the inside's prefix (DHCPv6), for 40 s at a time."""
    cables(place)
    dress(place, families=(6,))
    place.ip("gw", "addr del 2001:db8:10::1/48 dev lan0")
    duid = bytes((0, 3, 0, 1, 2, 0, 0, 0, 0, 1))
    stored = Path("/var/lib/dhcpv6/dhcp6c_duid")
    stored.parent.mkdir(exist_ok=True)
    stored.write_bytes(struct.pack("=H", len(duid)) + duid)
    client, server = place.folder / "dhcp6c.conf", place.folder / "dhcp6s.conf"
    client.write_text(_CLIENT)
    server.write_text(_SERVER.format(duid=duid.hex(":")))
    place.spawn("out", ["dhcp6s", "-f", "-D", "-c", str(server), "-P", f"{server}.pid", "far"])
    place.spawn("gw", ["dhcp6c", "-f", "-D", "-c", str(client), "-p", f"{client}.pid", "wan0"])
    until("a prefix", lambda: _DELEGATED in place.sh("gw", "ip -6 addr show dev lan0"))


def prefix_renewed(place: Place) -> None:
    """Wait until the gateway asked the provider again, and was answered."""
    began = len(place.said_by("dhcp6s"))
    until("a renewal", lambda: "renew" in place.said_by("dhcp6s")[began:].lower(), 90)
    if _DELEGATED not in place.sh("gw", "ip -6 addr show dev lan0"):
        raise RuntimeError("the prefix went")
