"""Gateways that run containers and virtual machines, translate, or have rules of their own."""

from .links import plain
from .place import Place, cables, dress


def _site(place: Place, rules: str) -> None:
    (place.folder / "site.nft").write_text(rules)
    place.sh("gw", f"nft -f {place.folder}/site.nft")


def _containers(place: Place, bridge: str) -> None:
    """The zone is a bridge with containers; `in` is one of them."""
    cables(place)
    place.ip(
        "gw", f"link add {bridge} type bridge; link set lan0 master {bridge}; link set {bridge} up"
    )
    dress(place, lan=bridge)


def docker_iptables(place: Place) -> None:
    """What Docker's iptables back end writes, with a published port."""
    _containers(place, "docker0")
    place.sh(
        "gw",
        """iptables -t nat -N DOCKER
        iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
        iptables -t nat -A POSTROUTING -s 10.10.0.0/16 ! -o docker0 -j MASQUERADE
        iptables -t nat -A DOCKER ! -i docker0 -p udp --dport 8080 \
 -j DNAT --to-destination 10.10.0.9:5001
        iptables -P FORWARD DROP
        iptables -N DOCKER-USER
        iptables -A FORWARD -j DOCKER-USER
        iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A FORWARD -d 10.10.0.9 ! -i docker0 -o docker0 -p udp --dport 5001 -j ACCEPT
        iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
        iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT""",
    )


_DOCKER_NFT = """
table ip docker-bridges {
  chain nat-prerouting { type nat hook prerouting priority dstnat;
    fib daddr type local iifname != "docker0" udp dport 8080 dnat to 10.10.0.9:5001
  }
  chain nat-postrouting { type nat hook postrouting priority srcnat;
    ip saddr 10.10.0.0/16 oifname != "docker0" masquerade
  }
  chain filter-forward { type filter hook forward priority filter;
    oifname "docker0" ct state established,related accept
    iifname "docker0" accept
    oifname "docker0" udp dport 5001 accept
    oifname "docker0" drop
  }
}
"""


def docker_nft(place: Place) -> None:
    """What Docker's nftables back end writes, in short."""
    _containers(place, "docker0")
    _site(place, _DOCKER_NFT)


_LIBVIRT = """
table ip libvirt_network {
  chain forward { type filter hook forward priority filter;
    oifname "virbr0" ip daddr 10.10.0.0/16 ct state related,established accept
    iifname "virbr0" ip saddr 10.10.0.0/16 accept
    iifname "virbr0" oifname "virbr0" accept
    oifname "virbr0" reject
    iifname "virbr0" reject
  }
  chain guest_nat { type nat hook postrouting priority srcnat;
    ip saddr 10.10.0.0/16 ip daddr 224.0.0.0/24 return
    ip saddr 10.10.0.0/16 ip daddr != 10.10.0.0/16 masquerade
  }
}
"""


def libvirt(place: Place) -> None:
    """What libvirt's nftables back end writes for a network with NAT."""
    _containers(place, "virbr0")
    _site(place, _LIBVIRT)


_FORWARDS = """
table ip site {
  chain prerouting { type nat hook prerouting priority dstnat;
    ip daddr 192.0.2.2 udp dport 8080 dnat to 10.10.0.9:5001
    ip daddr 192.0.2.2 tcp dport 8080 dnat to 10.10.0.9:5001
  }
  chain postrouting { type nat hook postrouting priority srcnat;
    oifname "wan0" masquerade
    ip saddr 10.10.0.0/16 ip daddr 10.10.0.0/16 masquerade
  }
}
"""


def forwards(place: Place) -> None:
    """Port forwards, for the inside as well (hairpin)."""
    cables(place)
    dress(place)
    _site(place, _FORWARDS)


def notrack(place: Place) -> None:
    """The site does not track what the kept service is."""
    plain(place)
    _site(
        place,
        "table inet site {\n chain early { type filter hook prerouting priority raw;\n"
        "  meta l4proto { tcp, udp } th dport 5001 notrack\n"
        "  meta l4proto { tcp, udp } th sport 5001 notrack\n }\n}\n",
    )
