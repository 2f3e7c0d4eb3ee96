"""Numbers and headers of rtnetlink (rtnetlink(7)), under the kernel's names.

Sources: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h,
linux/net_namespace.h, linux/if_arp.h, linux/pkt_sched.h, linux/tc_act/tc_mirred.h.
"""

import struct

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_GETNEIGH, RTM_GETQDISC, RTM_GETTFILTER, RTM_GETNEIGHTBL, RTM_GETNSID = 30, 38, 46, 66, 90

RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE = 1, 5, 7
RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE = 9, 11

IFF_UP, IFF_RUNNING = 0x1, 0x40
IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 5, 10, 18
IFLA_XDP, IFLA_TARGET_NETNSID = 43, 46
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_XDP_ATTACHED, NETNSA_NSID = 1, 2, 2, 1
IFLA_IPVLAN_MODE, IPVLAN_MODE_L3S = 1, 2
IFLA_VLAN_ID, IFLA_VLAN_PROTOCOL = 1, 5
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_MULTIPATH = 1, 4, 9
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT = 0x80
RTN_UNICAST = 1
TCA_KIND, TCA_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
NDTA_NAME, NDTA_THRESH3, NDTA_CONFIG = 1, 4, 5

IFINFOMSG = struct.Struct("=BxHiII")
"""family, type, index, flags, change"""
IFADDRMSG = struct.Struct("=BBBBI")
"""family, prefix length, flags, scope, index"""
RTMSG = struct.Struct("=BBBBBBBBI")
"""family, destination and source length, tos, table, protocol, scope, type, flags"""
NDMSG = struct.Struct("=BxxxiHBB")
"""family, index, state, flags, type"""
TCMSG = struct.Struct("=BxxxiIII")
"""family, index, handle, parent, info"""
