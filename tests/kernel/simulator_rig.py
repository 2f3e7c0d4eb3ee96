"""A gateway in a network namespace of its own, and around it the far ends of its links, held by
sockets of this process.

No machine stands behind the far ends: a test writes frames onto a link and reads what comes out of
the others, so that nothing but what the test sends is on the wire. What the gateway itself takes in
is read by NFLOG from a hook behind ours; what its own stack would say to that is marked there and
taken out before our output hook.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network

from ecluse.kernel import conntrack
from ecluse.kernel.conntrack import NfConntrack
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NetlinkSocket,
    attribute,
    attributes,
    messages,
    netfilter_header,
    netfilter_kind,
)
from ecluse.kernel.nft_firewall import NftFirewall
from ecluse.policy import IPAddress
from tests.kernel import simulator_packets as b
from tests.kernel.simulator_packets import Read, address

CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

GATEWAY = ""
"""Where what the gateway itself takes in or sends is said to be."""
LINKS = ("care0", "core0", "wlan7", "wan0", "stick0")
WAN = {4: address("192.0.2.1"), 6: address("2001:db8:1::1")}
LOCAL = frozenset(
    map(
        address,
        (
            *(
                "192.0.2.1",
                "2001:db8:1::1",
                "10.10.0.1",
                "2001:db8:10::1",
                "10.20.0.1",
                "2001:db8:20::1",
            ),
            *("10.30.0.1", "198.51.100.129", "2001:db8:fe::1"),
        ),
    )
)
# Longest first. core0 carries two zones and a subnet of none; guests are on two links.
ROUTES = tuple(
    (ip_network(net), link)
    for net, link in (
        ("10.30.0.128/25", "wlan7"),
        ("10.10.0.0/24", "care0"),
        ("10.20.0.0/24", "core0"),
        ("10.30.0.0/24", "core0"),
        ("10.77.0.0/24", "core0"),
        ("198.51.100.128/25", "stick0"),
        ("2001:db8:10::/64", "care0"),
        ("2001:db8:20::/64", "core0"),
        ("2001:db8:77::/64", "core0"),
        ("2001:db8:fe::/48", "stick0"),
        ("0.0.0.0/0", "wan0"),
        ("::/0", "wan0"),
    )
)
_OWN = {
    "care0": ("10.10.0.1/32", "2001:db8:10::1/128"),
    "core0": ("10.20.0.1/32", "10.30.0.1/32", "2001:db8:20::1/128"),
    "wan0": ("192.0.2.1/32", "2001:db8:1::1/128"),
    "stick0": ("198.51.100.129/32", "2001:db8:fe::1/128"),
}
_SYSCTL = """
net/ipv6/conf/default/accept_dad=0
net/ipv6/conf/default/addr_gen_mode=1
net/ipv4/conf/default/rp_filter=0
net/ipv4/conf/all/rp_filter=0
net/ipv4/conf/default/send_redirects=0
net/ipv4/conf/all/send_redirects=0
net/ipv4/ip_forward=1
net/ipv6/conf/default/accept_ra=0
net/ipv6/conf/all/forwarding=1
net/ipv4/icmp_ratemask=0
net/ipv6/icmp/ratemask=
net/ipv6/icmp/ratelimit=0
net/ipv4/fwmark_reflect=1
net/ipv6/fwmark_reflect=1
net/netfilter/nf_conntrack_tcp_be_liberal=1
net/netfilter/nf_conntrack_tcp_loose=1
net/netfilter/nf_conntrack_checksum=1
"""
# 9 is the mark of what reached the gateway: answers of its own stack take it over (fwmark_reflect)
# and are dropped before they are judged, so that only the test's packets (7 is their mark) and our
# own refusals are.
_WITNESS = """
table inet witness {
  chain input {
    type filter hook input priority 400; policy accept;
    meta mark set 9 log group 7 queue-threshold 1
  }
  chain mute {
    type filter hook output priority -400; policy accept;
    meta mark 9 drop
    meta mark != 7 meta l4proto igmp drop
    meta mark != 7 icmpv6 type { 130-137, 143 } drop
  }
}
"""
_ULOG, _ULOG_CONFIG, _CFG_CMD, _BIND, _PAYLOAD = 4, 1, 1, 1, 9
_PACKET_IGNORE_OUTGOING, _SOL_PACKET, _ETH_P_ALL, _RCVBUFFORCE = 23, 263, 3, 33


def leads_to(where: IPAddress) -> str:
    """Name the link that an address is routed to; GATEWAY for its own and for multicast."""
    if where in LOCAL or where.is_multicast:
        return GATEWAY
    return next(link for net, link in ROUTES if net.version == where.version and where in net)


def _enter(handle: int) -> None:
    assert _LIBC.setns(handle, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def _new_namespace() -> int:
    assert _LIBC.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _ip(batch: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True, capture_output=True)


def _mac(link: str, *, gateway: bool) -> str:
    return f"02:00:00:00:{int(gateway):02x}:{LINKS.index(link):02x}"


class Rig:
    """The gateway and the far ends.

    The thread that makes it lives in the gateway's namespace until `close`.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        self._stack.close()

    # -- building

    def _build(self) -> None:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, home)
        self._stack.callback(_enter, home)
        world = _new_namespace()
        self._stack.callback(os.close, world)
        for net in ("all", "default"):
            self._sysctl(f"net/ipv6/conf/{net}/disable_ipv6=1")
        gateway = _new_namespace()
        self._stack.callback(os.close, gateway)
        for line in _SYSCTL.split():
            self._sysctl(line)
        self._links(world)
        _enter(world)
        self._far = {link: self._packet_socket(link) for link in LINKS}
        _enter(gateway)
        self.firewall, self._conntrack = NftFirewall(), NfConntrack()
        self._stack.callback(self.firewall.close)
        self._stack.callback(self._conntrack.close)
        self._runner = self._stack.enter_context(asyncio.Runner())
        self.nft(_WITNESS)
        self._log = self._listen()
        self._raw: dict[tuple[int, int], socket.socket] = {}
        self._join()

    @staticmethod
    def _sysctl(line: str) -> None:
        path, _, value = line.partition("=")
        with open(f"/proc/sys/{path}", "w") as file:
            file.write(value + "\n")

    @staticmethod
    def _links(world: int) -> None:
        batch = "link set lo up\n"
        for link in LINKS:
            far, near = _mac(link, gateway=False), _mac(link, gateway=True)
            peer = f"peer name {link} address {far} netns /proc/self/fd/{world}"
            batch += f"link add {link} address {near} type veth {peer}\n"
            batch += f"link set {link} up\n"
            batch += "".join(
                f"addr add {own} dev {link} nodad\n".replace(" nodad" if "." in own else "!", "")
                for own in _OWN.get(link, ())
            )
            batch += f"neigh add 169.254.0.2 lladdr {far} dev {link} nud permanent\n"
            batch += f"neigh add fe80::2 lladdr {far} dev {link} nud permanent\n"
        for net, link in ROUTES:
            via = "169.254.0.2" if net.version == 4 else "fe80::2"
            batch += f"route add {net} via {via} dev {link} onlink\n"
        subprocess.run(
            ["ip", "-batch", "-"],
            input=batch,
            text=True,
            check=True,
            capture_output=True,
            pass_fds=[world],
        )

    def _packet_socket(self, link: str) -> socket.socket:
        _ip(f"link set lo up\nlink set {link} up\n")
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._stack.callback(sock.close)
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 16 << 20)
        sock.bind((link, _ETH_P_ALL))
        sock.setblocking(False)
        return sock

    def _listen(self) -> NetlinkSocket:
        """Bind NFLOG group 7 (linux/netfilter/nfnetlink_log.h)."""
        log = NetlinkSocket(NETLINK_NETFILTER, receive_buffer=16 << 20)
        self._stack.callback(log.close)
        body = struct.pack("!BBH", 0, 0, 7) + attribute(_CFG_CMD, bytes([_BIND]))
        log.request(netfilter_kind(_ULOG, _ULOG_CONFIG), body)
        log.socket.setblocking(False)
        return log

    def _join(self) -> None:
        """Join the groups of VRRP and OSPF, so that what is sent to them is for the gateway."""
        index = socket.if_nametoindex("wan0")
        four = self._raw_socket(4, 0)
        for group in ("224.0.0.18", "224.0.0.5"):
            option = struct.pack("=4s4si", address(group).packed, bytes(4), index)
            four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, option)
        six = self._raw_socket(6, 0)
        for group in ("ff02::12", "ff02::5"):
            option = address(group).packed + struct.pack("=I", index)
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, option)
        self._wan_index = index

    def _raw_socket(self, version: int, uid: int) -> socket.socket:
        """Give a socket that sends whole packets as the gateway's own, by a user (meta skuid is who
        opened the socket).
        """
        if (version, uid) not in self._raw:
            _LIBC.setfsuid(uid)
            try:
                family = socket.AF_INET if version == 4 else socket.AF_INET6
                sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            finally:
                _LIBC.setfsuid(0)
            self._stack.callback(sock.close)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
            if version == 4:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            self._raw[version, uid] = sock
        return self._raw[version, uid]

    # -- acting

    def nft(self, text: str) -> None:
        """Apply a transaction in the gateway, by the product's own adapter."""
        self._runner.run(self.firewall.apply(text))

    def counters(self) -> dict[str, int]:
        """Give every named counter's packets, those at zero left out."""
        found = self._runner.run(self.firewall.counters())
        return {name: value.packets for name, value in found.items() if value.packets}

    def refused(self):
        return self._runner.run(self.firewall.refused())

    def connections(self):
        return self._runner.run(self._conntrack.connections())

    def forget_connections(self) -> None:
        """Empty the connection table of both families (a delete that names none)."""
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            kind = netfilter_kind(conntrack.NFNL_SUBSYS_CTNETLINK, conntrack.CT_DELETE)
            failed = netlink.batch(kind, NLM_F_ACK, [netfilter_header(0)])
            assert not failed, failed

    def send(self, link: str, packet: bytes, uid: int = 0) -> None:
        """Put a packet on a link towards the gateway; GATEWAY: have the gateway send it itself."""
        version = packet[0] >> 4
        if link:
            kind = b"\x08\x00" if version == 4 else b"\x86\xdd"
            macs = b"".join(
                bytes.fromhex(_mac(link, gateway=g).replace(":", "")) for g in (True, False)
            )
            self._far[link].send(macs + kind + packet)
            return
        to = b.read(packet).ends.destination
        where = (
            (str(to), 0)
            if version == 4
            else (str(to), 0, 0, self._wan_index if to.is_link_local or to.is_multicast else 0)
        )
        with contextlib.suppress(
            PermissionError
        ):  # a refusal by the output hook; the far ends tell
            self._raw_socket(version, uid).sendto(packet, where)

    def seen(self) -> list[tuple[str, bytes, Read]]:
        """Give what came out of the gateway, or into it (GATEWAY), since the last time: link,
        bytes, reading.
        """
        found = []
        for link, sock in self._far.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame = sock.recv(65536)
                    if frame[12:14] in {b"\x08\x00", b"\x86\xdd"}:
                        found.append((link, frame[14:], b.read(frame[14:])))
        found += [(GATEWAY, packet, b.read(packet)) for packet in self._taken_in()]
        return found

    def _taken_in(self) -> Iterator[bytes]:
        with contextlib.suppress(BlockingIOError):
            while True:
                for one in messages(self._log.receive()):
                    if one.kind == netfilter_kind(_ULOG, 0):
                        yield dict(attributes(one.body, 4))[_PAYLOAD]
