"""Ways out that nf_tables' inet hooks do not see, and ways that they do."""

from .links import plain
from .place import Place, cables, dress


def _child(place: Place, kind: str) -> None:
    """A machine of its own on the gateway, on the WAN's cable: `in` is behind it."""
    cables(place)
    dress(place)
    place.make("box")
    place.ip("gw", f"link add child0 link wan0 {kind}; link set child0 netns {place.name}-box")
    place.ip(
        "box",
        """link set child0 up
        addr add 192.0.2.3/28 dev child0
        route add default via 192.0.2.1""",
    )
    place.spawn("box", ["sh", "-c", _SENDER])


_SENDER = """exec python3 -S -c '
import socket, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        sock.sendto(b"sent", ("203.0.113.20", 5001))
    except OSError:
        pass
    time.sleep(0.05)'"""


def macvlan_wan(place: Place) -> None:
    _child(place, "type macvlan mode bridge")


def ipvlan_l2_wan(place: Place) -> None:
    _child(place, "type ipvlan mode l2")


def ipvlan_l3s_wan(place: Place) -> None:
    _child(place, "type ipvlan mode l3s")


def macvlan_lan(place: Place) -> None:
    """The zone's interface is a macvlan of the LAN's cable."""
    cables(place)
    place.ip("gw", "link add mac0 link lan0 type macvlan mode bridge; link set mac0 up")
    # else lan0 answers for mac0's address, and gets what is meant for it
    place.sh("gw", "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore")
    dress(place, lan="mac0")


def redirect(place: Place) -> None:
    """A tc rule takes what comes from the LAN to the WAN, unrouted."""
    plain(place)
    place.sh(
        "gw",
        "tc qdisc add dev lan0 clsact;"
        " tc filter add dev lan0 ingress protocol ip pref 1 u32"
        " match ip dst 203.0.113.20/32 action mirred egress redirect dev wan0",
    )
    # what comes so is addressed to the MAC of lan0: the outside has the same, and takes it
    mac = place.sh("gw", "cat /sys/class/net/lan0/address").strip()
    place.ip("out", f"link set far address {mac}")


_FLOWTABLE = """
table inet site {
  flowtable ft { hook ingress priority filter; devices = { lan0, wan0 }; }
  chain forward { type filter hook forward priority filter + 10; policy accept;
    meta l4proto { tcp, udp } flow add @ft
  }
}
"""


def flowtable(place: Place) -> None:
    """The site offloads every flow."""
    plain(place)
    (place.folder / "flowtable.nft").write_text(_FLOWTABLE)
    place.sh("gw", f"nft -f {place.folder}/flowtable.nft")
