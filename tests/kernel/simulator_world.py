"""The small world of the property tests: who lives where, the site's own NAT, flows to try, and a
whole example.
"""

from dataclasses import dataclass

from ecluse.policy import Addresses, IPAddress, Levels, Policy
from tests.kernel.simulator_packets import Ends
from tests.kernel.simulator_rig import WAN

UID = 990
"""The daemon's user in compiled programs; 0 is another."""


# Where they live inside: link -> addresses. 10.77 and 2001:db8:77 lie on core0 and belong to no
# zone.
INSIDE = {
    "care0": ("10.10.0.5", "10.10.0.9", "10.10.0.255", "2001:db8:10::5", "2001:db8:10::6"),
    "core0": (
        "10.20.0.5",
        "10.20.0.15",
        "10.20.0.16",
        "2001:db8:20::5",
        "10.30.0.5",
        "10.77.0.5",
        "2001:db8:77::5",
    ),
    "wlan7": ("10.30.0.200", "10.30.0.130"),
}
# The edges of every network that services name, and what lies just beyond.
OUTSIDE = (
    *(
        "203.0.113.0",
        "203.0.113.1",
        "203.0.113.7",
        "203.0.113.8",
        "203.0.113.9",
        "203.0.113.15",
        "203.0.113.16",
    ),
    *("203.0.113.77", "203.0.113.127", "203.0.113.128", "198.51.100.0", "198.51.100.3"),
    *("198.51.99.255", "192.0.2.53", "192.0.2.64", "192.0.2.79", "192.0.2.80"),
    *(
        "2001:db8:ff::1",
        "2001:db8:ff::",
        "2001:db8:ff:ffff:ffff:ffff:ffff:ffff",
        "2001:db8:100::",
        "2001:db8:fe:ffff::1",
    ),
    *(
        "2001:db8:ff:1::9",
        "2001:db8:ff:1:ffff:ffff:ffff:ffff",
        "2001:db8:ff:2::",
        "2001:db8:1::53",
        "2001:db8:1:64::1",
    ),
)
STICK = ("198.51.100.130", "198.51.100.255", "2001:db8:fe::5")
LINK_OF_ALL = {**INSIDE, "wan0": OUTSIDE, "stick0": STICK}
NOTRACK_PORT = 999
"""UDP to this port is not tracked, where the site says so."""


@dataclass(frozen=True, slots=True)
class Nat:
    """What the site's own firewall does: masquerade on wan0 (by family), port forwards, and one
    port untracked.

    forwards: (protocol, port on the gateway) -> (inside IPv4 and IPv6 server, its port).
    """

    masquerade: frozenset[int] = frozenset()
    forwards: tuple[tuple[int, int, IPAddress, int], ...] = ()
    notrack: bool = False

    def forward(self, link: str, protocol: int, to: Ends) -> tuple[IPAddress, int] | None:
        """Say where a connection that comes in by a link is forwarded to; None when it is not."""
        if link != "wan0":
            return None
        for protocol_, port, server, server_port in self.forwards:
            family = server.version
            if (protocol_, port, WAN[family]) == (protocol, to.destination_port, to.destination):
                return server, server_port
        return None

    def text(self) -> str:
        """Write the site's own table, anew."""
        names = {6: "tcp", 17: "udp", 132: "sctp"}
        ip = {4: "ip", 6: "ip6"}
        forwards = "\n".join(
            f'iifname "wan0" {ip[s.version]} daddr {WAN[s.version]} {names[protocol]} dport {port} '
            f"dnat {ip[s.version]} to {s if s.version == 4 else f'[{s}]'}:{there}"
            for protocol, port, s, there in self.forwards
        )
        masquerade = "\n".join(
            f'oifname "wan0" meta nfproto ipv{family} masquerade'
            for family in sorted(self.masquerade)
        )
        untracked = f"udp dport {NOTRACK_PORT} notrack" if self.notrack else ""
        return f"""table inet site
delete table inet site
table inet site {{
  chain raw4 {{ type filter hook prerouting priority raw; {untracked}
  }}
  chain raw5 {{ type filter hook output priority raw; {untracked}
  }}
  chain pre {{ type nat hook prerouting priority dstnat; {forwards}
  }}
  chain post {{ type nat hook postrouting priority srcnat; {masquerade}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """A flow to try.

    link: by which its opening reaches the gateway; GATEWAY: the gateway opens it, by a user.

    ends: as they are on that link. kind: see simulator_packets.message; `error` is an ICMP error
    about a flow that never was.
    """

    kind: str
    link: str
    ends: Ends
    hop_limit: int = 64
    uid: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One example: what is compiled, how the gate stands first and then, what the site's NAT does,
    what is tried.
    """

    policy: Policy
    addresses: Addresses
    levels: Levels
    then: Levels
    nat: Nat
    probes: tuple[Probe, ...]
