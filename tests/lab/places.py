"""The map of the lab: who is where, with documentation addresses (RFC 5737, RFC 3849) outside."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """An address of each family, of one machine."""

    name: str
    v4: str
    v6: str

    def address(self, family: int) -> str:
        """Give the address of family 4 or 6."""
        return self.v4 if family == 4 else self.v6


LABORATORY = Place("laboratory", "203.0.113.10", "2001:db8:ffff::10")
TREASURY = Place("treasury", "203.0.113.20", "2001:db8:ffff::20")
MAIL_RELAY = Place("mail-relay", "203.0.113.30", "2001:db8:ffff::30")
HEALTH_DATA = Place("health-data", "203.0.113.40", "2001:db8:ffff::40")
MAINTENANCE = Place("remote-maintenance", "203.0.113.50", "2001:db8:ffff::50")
PARTNER = Place("partner", "203.0.113.65", "2001:db8:ffff:64::65")
STRANGER = Place("stranger", "198.51.100.66", "2001:db8:f00d::66")
WEB = Place("web", "198.51.100.80", "2001:db8:f00d::80")
DNS_SERVER = Place("dns", "192.0.2.53", "2001:db8:ffff:53::53")

GATEWAY_WAN = Place("gateway", "192.0.2.2", "2001:db8:fffe::2")
INTERNET_ROUTER = Place("router", "192.0.2.1", "2001:db8:fffe::1")

CARE_HOST = Place("care", "10.10.4.7", "2001:db8:10::4:7")
CARE_SERVER = Place("care-server", "10.10.4.10", "2001:db8:10::4:10")
ADMIN_HOST = Place("admin", "10.20.1.5", "2001:db8:20::1:5")
MANAGEMENT = Place("management", "10.20.9.2", "2001:db8:20::9:2")
GUEST_HOST = Place("guest", "10.30.2.9", "2001:db8:30::2:9")

OUTSIDE_NETWORKS = (
    "203.0.113.0/24",
    "198.51.100.0/24",
    "192.0.2.53/32",
    "2001:db8:ffff::/48",
    "2001:db8:f00d::/48",
)

FORWARDED_PORT, SERVER_PORT = 2575, 12575
"""The port forward: tcp/2575 of the gateway's public IPv4 address leads to tcp/12575 of
CARE_SERVER.
"""

TCP_PORTS = (22, 25, 53, 80, 443, 853, 2575, 5000, 5001, 8080, 8443)
UDP_PORTS = (53, 123, 500, 443, 4500, 5000, 5001, 5060)
RAW_PROTOCOLS = (47, 50, 132)


@dataclass(frozen=True, slots=True)
class Zone:
    """An inside zone: its name in the policy, its gateway interface, subnets and machines."""

    name: str
    role: str
    interface: str
    subnets: tuple[str, str]
    gateway: Place
    machines: tuple[Place, ...]


CARE = Zone(
    "care",
    "care",
    "care0",
    ("10.10.0.0/16", "2001:db8:10::/48"),
    Place("care-gateway", "10.10.0.1", "2001:db8:10::1"),
    (CARE_HOST, CARE_SERVER),
)
ADMINISTRATION = Zone(
    "administration",
    "admin",
    "admin0",
    ("10.20.0.0/16", "2001:db8:20::/48"),
    Place("admin-gateway", "10.20.0.1", "2001:db8:20::1"),
    (ADMIN_HOST, MANAGEMENT),
)
GUESTS = Zone(
    "guests",
    "guests",
    "guest0",
    ("10.30.0.0/16", "2001:db8:30::/48"),
    Place("guest-gateway", "10.30.0.1", "2001:db8:30::1"),
    (GUEST_HOST,),
)
ZONES = (CARE, ADMINISTRATION, GUESTS)

NAMES = {
    "results.lab.example": {"a": [LABORATORY.v4], "aaaa": [LABORATORY.v6], "ttl": 300},
    "pay.treasury.example": {"cname": "front.treasury.example", "ttl": 600},
    "front.treasury.example": {"a": [TREASURY.v4], "aaaa": [TREASURY.v6], "ttl": 60},
    "relay.mail.example": {"a": [MAIL_RELAY.v4], "aaaa": [MAIL_RELAY.v6], "ttl": 300},
    "www.web.example": {"a": [WEB.v4], "aaaa": [WEB.v6], "ttl": 300},
}
"""What the DNS server answers at first (see inside/wire.dns_answer for the shape)."""
