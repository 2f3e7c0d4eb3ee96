"""All shapes and what is expected of each, on Debian 12 and 13 alike."""

from . import exits, helpers, hosts, links, routing, tunnels
from .place import GATEWAY, KEPT, OTHER
from .shape import DIES, LEAKS, Shape
from .traffic import Way

ANY_NUMBER = 10**6  # a busy machine takes its time to agree upon keys
_PUBLISHED = Way(kept=False, protocol="udp", to=GATEWAY[4], role="out", port=8080)
_HAIRPIN = Way(kept=True, protocol="tcp", to=GATEWAY[4], port=8080)
_OWN = tuple(
    Way(to == KEPT, protocol, to[4], "gw") for to in (KEPT, OTHER) for protocol in ("udp", "tcp")
)

LINKS = (
    Shape("plain", links.plain),
    Shape("vlans", links.vlans, links=("lan0.10",)),
    Shape("bonds", links.bonds, links=("bond1",), during=links.bonds_fail_over, loses=40),
    Shape(
        "lacp", links.lacp, during=links.lacp_goes_on, site={"second_lock": "cut"}, families=(4,)
    ),
    Shape("team", links.team, links=("team1",)),
    Shape("bridge", links.bridge, links=("br0",), unsaid=("lan1.*closed",)),
    Shape(
        "bridge-outside-port",
        links.bridge_with_outside_port,
        families=(4,),
        links=("br0",),
        at_cut=LEAKS,
        # the second lock leaves the ports of a zone's bridge alone
        at_isolate=LEAKS,
        named=("br0",),
    ),
    Shape("vrf-wan", links.vrf_wan),
    Shape("vrf-lan", links.vrf_lan, links=("lan0", "vlan")),
    Shape("vrf-both", links.vrf_both, links=("lan0", "vall"), named=("vall",)),
    Shape("jumbo", links.jumbo, during=links.big),
    Shape("netem", links.netem, settles=0.5),
)
EXITS = (
    Shape("macvlan-wan", exits.macvlan_wan, at_cut=LEAKS, named=("child0",)),
    Shape("ipvlan-l2", exits.ipvlan_l2_wan, at_cut=LEAKS, named=("child0",)),
    Shape("ipvlan-l3s", exits.ipvlan_l3s_wan, unsaid=("child0.*beside the gate",)),
    Shape("macvlan-lan", exits.macvlan_lan, links=("mac0",)),
    Shape("redirect", exits.redirect, at_cut=LEAKS, at_isolate=LEAKS, named=("lan0",)),
    Shape("flowtable", exits.flowtable, named=("flowtable",), purged=True),
)
TUNNELS = (
    Shape(
        "wireguard",
        tunnels.wireguard,
        gateway_keeps=("udp/51820",),
        unsaid=("closed as soon.*wg0",),
    ),
    Shape("wireguard-not-kept", tunnels.wireguard, at_cut=DIES, named=("wg0",)),
    Shape("vxlan", tunnels.vxlan, gateway_keeps=("udp/4789",)),
    Shape(
        "ike",
        tunnels.ike,
        families=(4,),
        gateway_keeps=("esp", "udp/500", "udp/4500"),
        during=tunnels.ike_again,
        loses=ANY_NUMBER,
    ),
    Shape("ipsec-policies", tunnels.ipsec_policies, families=(4,), gateway_keeps=("esp",)),
    Shape("ipsec-interface", tunnels.ipsec_interface, families=(4,), gateway_keeps=("esp",)),
    Shape("gre", tunnels.gre, gateway_keeps=("gre",)),
    Shape("ipip", tunnels.ipip, families=(4,), at_cut=DIES, named=("ipip1",)),
    Shape("ipip-kept", tunnels.ipip, families=(4,), gateway_keeps=("proto/4",)),
    Shape("6in4", tunnels.six_in_four, families=(6,), at_cut=DIES, named=("sit1",)),
    Shape(
        "nat64",
        tunnels.nat64,
        families=(4,),
        at_cut=DIES,
        named=("nat64",),
        calls=tuple(
            Way(to == KEPT, protocol, f"2001:db8:64::{to[4]}")
            for to in (KEPT, OTHER)
            for protocol in ("udp", "tcp")
        ),
        stranger=False,
    ),
    Shape("6in4-kept", tunnels.six_in_four, families=(6,), gateway_keeps=("proto/41",)),
)
ROUTING = (
    Shape(
        "ospf",
        routing.ospf,
        families=(4,),
        at_cut=DIES,
        named=("OSPF",),
        during=routing.neighbours_time_out,
    ),
    Shape(
        "ospf-kept",
        routing.ospf,
        families=(4,),
        presets=("nd", "ospf"),
        during=routing.neighbours_time_out,
    ),
    Shape(
        "bgp",
        routing.bgp,
        families=(4,),
        gateway_keeps=("tcp/179",),
        during=routing.neighbours_time_out,
    ),
    Shape("two-wans", routing.two_wans, during=routing.wan_fails, loses=40),
    Shape("router-behind", routing.router_behind),
    Shape(
        "dhcp-wan",
        routing.dhcp_wan,
        families=(4,),
        presets=("nd", "dhcp"),
        during=routing.address_changes,
        loses=40,
    ),
    Shape(
        "vrrp",
        routing.vrrp,
        families=(4,),
        at_cut=DIES,
        named=("vrrp to 224.0.0.18",),
        during=routing.mate_takes_over,
        stranger=False,
    ),
    Shape(
        "vrrp-kept",
        routing.vrrp,
        families=(4,),
        presets=("nd", "vrrp"),
        during=routing.mate_stays,
        stranger=False,
    ),
    Shape(
        "delegation",
        routing.delegation,
        families=(6,),
        presets=("nd", "dhcp"),
        during=routing.prefix_renewed,
    ),
    Shape("ipv6-only", routing.ipv6_only, families=(6,)),
)
HOSTS = (
    Shape(
        "docker-iptables",
        hosts.docker_iptables,
        families=(4,),
        links=("docker0",),
        stranger=False,
        asks_too=(_PUBLISHED,),
    ),
    Shape(
        "docker-nft",
        hosts.docker_nft,
        families=(4,),
        links=("docker0",),
        stranger=False,
        asks_too=(_PUBLISHED,),
    ),
    Shape("libvirt", hosts.libvirt, families=(4,), links=("virbr0",), stranger=False),
    Shape("forwards", hosts.forwards, families=(4,), asks_too=(_PUBLISHED, _HAIRPIN)),
    Shape(
        "helpers",
        helpers.helpers,
        families=(4,),
        care_keeps=(
            {"to": [KEPT[4]], "ports": ["tcp/21", "udp/5060"]},
            {"from": [KEPT[4]], "ports": ["tcp/50000-50010", "udp/50000-50010"]},
        ),
        during=helpers.data_and_media_come,
    ),
    Shape("notrack", hosts.notrack, at_cut=DIES),
    Shape(
        "own-services",
        links.plain,
        families=(4,),
        gateway_keeps=("udp/5001", "tcp/5001"),
        partner=KEPT[4],
        asks_too=_OWN,
    ),
)
SHAPES = (*LINKS, *EXITS, *TUNNELS, *ROUTING, *HOSTS)
