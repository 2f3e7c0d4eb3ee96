"""Readings of interfaces, addresses and routes, each by one dump of rtnetlink(7).

The dumps are made by our own socket. pyroute2 decodes every message whole: for 4,000 interfaces it
takes 1.5 s of processor time, where this takes 0.2 s and a cut waits for it; for 29,000 routes
2.5 s, where this takes 0.04 s. All routes are read by `read_routes`.

Each function takes an open socket and raises OSError in the kernel's words.
"""

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from ecluse.host_reading import Device, HostReading
from ecluse.kernel.netlink import (
    NETLINK_GET_STRICT_CHK,
    NETLINK_ROUTE,
    SOL_NETLINK,
    NetlinkSocket,
    attribute,
    attribute_map,
    text,
)
from ecluse.kernel.rtnetlink_numbers import (
    ARPHRD_ETHER,
    ARPHRD_LOOPBACK,
    IFA_ADDRESS,
    IFA_LOCAL,
    IFADDRMSG,
    IFF_RUNNING,
    IFF_UP,
    IFINFOMSG,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_IPVLAN_MODE,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_TARGET_NETNSID,
    IFLA_VLAN_ID,
    IFLA_VLAN_PROTOCOL,
    IFLA_XDP,
    IFLA_XDP_ATTACHED,
    IPVLAN_MODE_L3S,
    RTA_DST,
    RTA_OIF,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTMSG,
    RTN_UNICAST,
)
from ecluse.policy import IPAddress

XDP_WORDS = {1: "in the driver", 2: "generic", 3: "in hardware", 4: "several"}
NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
"""The kernel's answers for no route, and for routes of type unreachable, prohibit and blackhole."""


def read_links(route: NetlinkSocket) -> HostReading:
    """Read the interfaces and their addresses: one dump of each, and nothing else.

    Beside these the kernel is asked for the routes of single interfaces that have no address.
    """
    devices = tuple(map(_device, dump_all_links(route)))
    carriers = _ppp_carriers()
    names = {one.index: one.name for one, _ in devices}
    addresses = tuple(_read_addresses(route, names))
    numbered = {name for name, one in addresses if not ip_interface(one).is_link_local}
    vrfs = {one.index for one, _ in devices if one.kind == "vrf"}

    def has_own_ip(one: Device, master: int) -> bool:
        # A port of anything but a VRF leaves its packets to its master, whatever routes say.
        return one.name in numbered or (
            one.running and (master not in names or master in vrfs) and _has_route(one.index)
        )

    return HostReading(
        devices=tuple(
            replace(
                one,
                master=names.get(master, ""),
                parent=names.get(parent, ""),
                own_ip=has_own_ip(one, master),
                carries_ppp=one.name in carriers,
            )
            for one, (master, parent) in devices
        ),
        addresses=addresses,
    )


def dump_links(
    route: NetlinkSocket, nsid: int | None = None
) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    """Dump the interfaces: each its number, its flags (IFF_*) and its attributes (IFLA_*).

    nsid: of the namespace that this one knows by that number, instead of this one.
    """
    for _, index, flags, found in dump_all_links(route, nsid):
        yield index, flags, found


def dump_all_links(
    route: NetlinkSocket, nsid: int | None = None
) -> Iterator[tuple[int, int, int, dict[int, bytes]]]:
    """Dump the same, each with the type of its link (ARPHRD_*) before it."""
    where = b"" if nsid is None else attribute(IFLA_TARGET_NETNSID, struct.pack("=i", nsid))
    for body in route.dump(RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0) + where):
        _, kind, index, flags, _ = IFINFOMSG.unpack_from(body)
        yield kind, index, flags, attribute_map(body, IFINFOMSG.size)


def _ppp_carriers() -> frozenset[str]:
    """Name the interfaces that a PPPoE session runs over; none where the kernel has no PPPoE."""
    try:
        lines = Path("/proc/net/pppoe").read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return frozenset()
    return frozenset(line.split()[2] for line in lines if len(line.split()) > 2)


def _vlan(found: dict[int, bytes]) -> tuple[int, int]:
    """Give the ethertype and the number of a VLAN's tag; zeros for what is no VLAN."""
    info = attribute_map(found.get(IFLA_LINKINFO, b""))
    if text(info.get(IFLA_INFO_KIND, b"")) != "vlan":
        return (0, 0)
    data = attribute_map(info.get(IFLA_INFO_DATA, b""))
    return (
        int.from_bytes(data.get(IFLA_VLAN_PROTOCOL, b""), "big"),
        int.from_bytes(data.get(IFLA_VLAN_ID, b""), sys.byteorder),
    )


def _device(link: tuple[int, int, int, dict[int, bytes]]) -> tuple[Device, tuple[int, int]]:
    """Make a device of an interface; give the numbers of its master and its parent beside it."""
    kind, index, flags, found = link
    ethernet = kind in {ARPHRD_ETHER, ARPHRD_LOOPBACK}
    xdp = attribute_map(found.get(IFLA_XDP, b"")).get(IFLA_XDP_ATTACHED, b"\0")[0]
    remote, port = _tunnel(found)
    device = Device(
        name=text(found[IFLA_IFNAME]),
        kind=link_kind(found),
        xdp=XDP_WORDS.get(xdp, "somehow") if xdp else "",
        up=bool(flags & IFF_UP),
        running=bool(flags & IFF_RUNNING),
        index=index,
        mac=int.from_bytes(found.get(IFLA_ADDRESS, b""), "big") if kind == ARPHRD_ETHER else 0,
        ethernet=ethernet,
        vlan=_vlan(found),
        mode=ipvlan_mode(found),
        remote=remote,
        port=port,
    )
    return device, (host_number(found.get(IFLA_MASTER)), host_number(found.get(IFLA_LINK)))


def link_kind(found: dict[int, bytes]) -> str:
    """Give the kind of an interface, as the kernel calls it; empty for hardware."""
    return text(attribute_map(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b""))


def _data(found: dict[int, bytes]) -> dict[int, bytes]:
    """Give what an interface of its kind has of its own (IFLA_INFO_DATA)."""
    data = attribute_map(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_DATA)
    return attribute_map(data) if data else {}


def ipvlan_mode(found: dict[int, bytes]) -> str:
    """Give `l3s` for an ipvlan of that mode, else nothing."""
    if link_kind(found) not in {"ipvlan", "ipvtap"}:
        return ""
    mode = _data(found).get(IFLA_IPVLAN_MODE, bytes(2))
    return "l3s" if int.from_bytes(mode, sys.byteorder) == IPVLAN_MODE_L3S else ""


_REMOTES = {
    # linux/if_tunnel.h: IFLA_IPTUN_REMOTE, IFLA_GRE_REMOTE, IFLA_VTI_REMOTE
    **dict.fromkeys(("sit", "ipip", "ip6tnl"), (3,)),
    **dict.fromkeys(("gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan"), (7,)),
    **dict.fromkeys(("vti", "vti6"), (5,)),
    # linux/if_link.h: IFLA_VXLAN_GROUP, IFLA_VXLAN_GROUP6; IFLA_GENEVE_REMOTE, IFLA_GENEVE_REMOTE6
    "vxlan": (2, 16),
    "geneve": (2, 7),
}
"""By the kind of a tunnel: the attributes that hold its other end."""
_TUNNEL_PORTS = {"vxlan": 15, "geneve": 5}
"""IFLA_VXLAN_PORT, IFLA_GENEVE_PORT: in network byte order."""


def _tunnel(found: dict[int, bytes]) -> tuple[str, int]:
    """Give the other end of a tunnel, empty for none or any, and the UDP port, 0 for none."""
    kind = link_kind(found)
    if kind not in _REMOTES:
        return "", 0
    data = _data(found)
    ends = (ip_address(data[one]) for one in _REMOTES[kind] if len(data.get(one, b"")) in {4, 16})
    remote = next((str(end) for end in ends if not end.is_unspecified), "")
    return remote, int.from_bytes(data.get(_TUNNEL_PORTS.get(kind, -1), b""))


def host_number(payload: bytes | None) -> int:
    """Read a number as rtnetlink writes it, in host byte order; -1 for none."""
    return int(struct.unpack_from("=i", payload)[0]) if payload else -1


def _read_addresses(route: NetlinkSocket, names: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    """Give interface and address; of a point-to-point link its own end, not the peer's."""
    for body in route.dump(RTM_GETADDR, IFADDRMSG.pack(0, 0, 0, 0, 0)):
        _, length, _, _, index = IFADDRMSG.unpack_from(body)
        found = attribute_map(body, IFADDRMSG.size)
        packed = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
        if packed and index in names:
            yield names[index], f"{ip_address(packed)}/{length}"


def _has_route(index: int) -> bool:
    """Say whether a route beyond the link itself leads to an interface.

    Asked strictly (NETLINK_GET_STRICT_CHK) the kernel filters by the interface; else it would send
    every route.
    """
    with NetlinkSocket(NETLINK_ROUTE) as route:
        route.socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        for family in (socket.AF_INET, socket.AF_INET6):
            wanted = RTMSG.pack(family, 0, 0, 0, 0, 0, 0, RTN_UNICAST, 0)
            output = attribute(RTA_OIF, struct.pack("=i", index))
            for body in route.dump(RTM_GETROUTE, wanted + output):
                to = attribute_map(body, RTMSG.size).get(RTA_DST)
                network = ip_network((to, body[1])) if to else None
                if network is None or not (network.is_link_local or network.is_multicast):
                    return True
    return False


def read_outputs(addresses: Iterable[IPAddress]) -> dict[IPAddress, int]:
    """Give the number of the interface by which the machine would reach each address.

    An address with no route is left out. 10 µs an address.
    """
    found: dict[IPAddress, int] = {}
    with NetlinkSocket(NETLINK_ROUTE) as route:
        for address in addresses:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            head = RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
            try:
                answer = route.request(RTM_GETROUTE, head + attribute(RTA_DST, address.packed))
            except OSError as error:
                if error.errno not in NO_ROUTE:
                    raise
                continue
            output = host_number(attribute_map(answer or b"", RTMSG.size).get(RTA_OIF))
            if output > 0:
                found[address] = output
    return found
