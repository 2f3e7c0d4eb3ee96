"""Tunnels that end at the gateway: the partner is behind them."""

import os

from .place import KEPT, OTHER, SUBNETS, Place, cables, dress, until


def through(
    place: Place, device: str, families: tuple[int, ...] = (4, 6), *, is_segment: bool = False
) -> None:
    """Lead everything through the tunnel, which has that name at both ends.

    is_segment: it carries frames, so each end is the other's next hop.
    """
    for family in families:
        inner = ("10.99.0.{}/24", "2001:db8:99::{}/64")[family // 5]
        place.ip("gw", f"addr add {inner.format(2)} dev {device}; link set {device} up")
        place.ip("out", f"addr add {inner.format(1)} dev {device}; link set {device} up")
    for family in families:
        there, here = (
            f"via {address} " if is_segment else ""
            for address in (("10.99.0.1", "10.99.0.2"), ("2001:db8:99::1", "2001:db8:99::2"))[
                family // 5
            ]
        )
        for address in (KEPT[family], OTHER[family]):
            place.ip("gw", f"route replace {address} {there}dev {device}")
        place.ip("out", f"route replace {SUBNETS[family // 5]} {here}dev {device}")


def wireguard(place: Place) -> None:
    cables(place)
    dress(place)
    keys = {}
    for role in ("gw", "out"):
        place.ip(role, "link add wg0 type wireguard")
        private = place.sh(role, "wg genkey").strip()
        (place.folder / f"{role}.key").write_text(private)
        keys[role] = place.sh(role, f"wg pubkey <{place.folder}/{role}.key").strip()
    for role, peer, far in (("gw", "out", "192.0.2.1"), ("out", "gw", "192.0.2.2")):
        place.sh(
            role,
            f"wg set wg0 listen-port 51820 private-key {place.folder}/{role}.key peer {keys[peer]}"
            f" endpoint {far}:51820 allowed-ips 0.0.0.0/0,::/0 persistent-keepalive 5",
        )
    through(place, "wg0")


def gre(place: Place) -> None:
    cables(place)
    dress(place)
    place.ip("gw", "link add gre1 type gre local 192.0.2.2 remote 192.0.2.1")
    place.ip("out", "link add gre1 type gre local 192.0.2.1 remote 192.0.2.2")
    through(place, "gre1")


def ipip(place: Place) -> None:
    cables(place)
    dress(place)
    place.ip("gw", "link add ipip1 type ipip local 192.0.2.2 remote 192.0.2.1")
    place.ip("out", "link add ipip1 type ipip local 192.0.2.1 remote 192.0.2.2")
    through(place, "ipip1", (4,))


def six_in_four(place: Place) -> None:
    """A tunnel broker: IPv6 comes by 6in4."""
    cables(place)
    dress(place, families=(4,))
    place.ip("gw", "addr add 2001:db8:10::1/48 dev lan0")
    place.ip("in", "addr add 2001:db8:10::9/48 dev eth0; route add default via 2001:db8:10::1")
    place.ip("out", "addr add 2001:db8:ff::10/128 dev lo; addr add 2001:db8:ff::20/128 dev lo")
    place.ip("gw", "link add sit1 type sit local 192.0.2.2 remote 192.0.2.1")
    place.ip("out", "link add sit1 type sit local 192.0.2.1 remote 192.0.2.2")
    through(place, "sit1", (6,))
    place.ip("gw", "route add default via 2001:db8:99::1")


_STATES = """
ip xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x1001 reqid 1 mode tunnel{more} \
 aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128
ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1002 reqid 1 mode tunnel{more} \
 aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111214 128
"""


def _policies(near: str, far: str, mine: str, theirs: str, more: str = "") -> str:
    to_us = f"tmpl src {far} dst {near} proto esp reqid 1 mode tunnel"
    to_them = f"tmpl src {near} dst {far} proto esp reqid 1 mode tunnel"
    return (
        f"ip xfrm policy add src {mine} dst {theirs} dir out{more} {to_them}\n"
        f"ip xfrm policy add src {theirs} dst {mine} dir fwd{more} {to_us}\n"
        f"ip xfrm policy add src {theirs} dst {mine} dir in{more} {to_us}\n"
    )


def ipsec_policies(place: Place) -> None:
    """ESP by policies, as IKE would set them."""
    cables(place)
    dress(place, families=(4,))
    gateway, partner, far = "192.0.2.2", "192.0.2.1", "203.0.113.0/24"
    states = _STATES.format(more="")
    place.sh("gw", states + _policies(gateway, partner, SUBNETS[0], far))
    place.sh("out", states + _policies(partner, gateway, far, SUBNETS[0]))


def ipsec_interface(place: Place) -> None:
    """ESP through an xfrm interface."""
    cables(place)
    dress(place, families=(4,))
    for role, near, far in (("gw", "192.0.2.2", "192.0.2.1"), ("out", "192.0.2.1", "192.0.2.2")):
        place.ip(role, "link add ipsec0 type xfrm dev lo if_id 7")
        place.sh(
            role,
            _STATES.format(more=" if_id 7")
            + _policies(near, far, "0.0.0.0/0", "0.0.0.0/0", " if_id 7"),
        )
    through(place, "ipsec0", (4,))


_IKE = """
connections {{ site {{
  version = 2
  local_addrs = {near}
  remote_addrs = {far}
  local {{ auth = psk
    id = {near} }}
  remote {{ auth = psk
    id = {far} }}
  children {{ net {{
    local_ts = {mine}
    remote_ts = {theirs}
    start_action = trap
  }} }}
}} }}
secrets {{ ike-site {{ secret = "shape" }} }}
"""
_CHARON = """
charon-systemd {{
  load_modular = yes
  plugins {{
    include /etc/strongswan.d/charon/*.conf
    vici {{ socket = unix://{socket} }}
  }}
}}
"""


def _swanctl(place: Place, role: str, words: str) -> str:
    return place.sh(role, f"swanctl {words} --uri unix://{place.folder}/{role}.vici")


def ike(place: Place) -> None:
    """IPsec by policies, agreed upon by strongSwan at both ends."""
    cables(place)
    dress(place, families=(4,))
    near, far, mine, theirs = "192.0.2.2", "192.0.2.1", SUBNETS[0], "203.0.113.0/24"
    for role, text in (
        ("gw", _IKE.format(near=near, far=far, mine=mine, theirs=theirs)),
        ("out", _IKE.format(near=far, far=near, mine=theirs, theirs=mine)),
    ):
        socket = place.folder / f"{role}.vici"
        (place.folder / f"{role}.swanctl").write_text(text)
        (place.folder / f"{role}.charon").write_text(_CHARON.format(socket=socket))
        env = os.environ | {"STRONGSWAN_CONF": str(place.folder / f"{role}.charon")}
        place.spawn(role, ["/usr/sbin/charon-systemd"], env=env)
        until("strongSwan", socket.exists)
        _swanctl(place, role, f"--load-all --file {place.folder}/{role}.swanctl")
    _initiate(place)


def _initiate(place: Place) -> None:
    """Agree on keys; traffic of the other end may have asked for it just before."""
    try:
        _swanctl(place, "gw", "--initiate --child net --timeout 60")
    except RuntimeError as error:
        if "existing duplicate" not in str(error):
            raise


def ike_again(place: Place) -> None:
    """The gateway ends it all and begins anew."""
    _swanctl(place, "gw", "--terminate --ike site --timeout 60")
    _initiate(place)


def vxlan(place: Place) -> None:
    cables(place)
    dress(place)
    for role, near, far in (("gw", "192.0.2.2", "192.0.2.1"), ("out", "192.0.2.1", "192.0.2.2")):
        place.ip(role, f"link add vx1 type vxlan id 7 dstport 4789 local {near} remote {far}")
    through(place, "vx1", is_segment=True)


def nat64(place: Place) -> None:
    """A translator on the gateway: the inside has IPv6 alone, the outside answers by IPv4."""
    cables(place)
    dress(place)
    config = place.folder / "tayga.conf"
    config.write_text(
        "tun-device nat64\nipv4-addr 10.98.0.1\nipv6-addr 2001:db8:0:98::1\n"
        f"prefix 2001:db8:64::/96\ndynamic-pool 10.98.1.0/24\ndata-dir {place.folder}\n"
    )
    place.sh("gw", f"tayga -c {config} --mktun")
    place.ip(
        "gw",
        "link set nat64 up; addr add 10.98.0.2/32 dev nat64; route add 10.98.0.0/16 dev nat64"
        "; route add 2001:db8:64::/96 dev nat64",
    )
    place.ip("out", "route add 10.98.0.0/16 via 192.0.2.2")
    process = place.spawn("gw", ["tayga", "-c", str(config), "-d"])
    until("tayga", lambda: process.poll() is None, 5)
