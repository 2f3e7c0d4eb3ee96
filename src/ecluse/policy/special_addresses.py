"""Addresses that a DNS answer may not lead to.

Some never; some only where a destination says `private: true`.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from ecluse.policy.values import IPAddress

_Kinds = tuple[tuple[IPv4Network | IPv6Network, str], ...]


def _kinds(*rows: tuple[str, tuple[str, ...]]) -> _Kinds:
    return tuple((ip_network(prefix), kind) for kind, prefixes in rows for prefix in prefixes)


_PRIVATE = _kinds(
    (
        "a private address",
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"),
    ),
    ("a private address of a provider", ("100.64.0.0/10",)),  # RFC 6598
    (
        "a private address of a translator",
        ("64:ff9b:1::/48",),
    ),  # RFC 8215: what it stands for is the site's own affair
    ("an address for measurements", ("198.18.0.0/15", "2001:2::/48")),  # RFC 2544, RFC 5180
)
_NEVER = _kinds(
    ("an unspecified address", ("0.0.0.0/8", "::/128")),
    ("a loopback address", ("127.0.0.0/8", "::1/128")),
    ("a link-local address", ("169.254.0.0/16", "fe80::/10")),
    ("a multicast address", ("224.0.0.0/4", "ff00::/8")),
    ("a reserved address", ("192.0.0.0/24", "240.0.0.0/4", "::ffff:0:0/96", "::/96", "100::/64")),
)
_CARRIERS = ((IPv6Network("64:ff9b::/96"), 0), (IPv6Network("2002::/16"), 80))
"""NAT64 (RFC 6052) and 6to4 (RFC 3056): addresses that stand for the IPv4 address in them, and how
far left it is.
"""


def reserved_kind(address: IPAddress) -> str:
    """Name the kind of an address that cannot be a destination; empty when it may be one.

    Source: IANA's special-purpose address registries.
    """
    return _find_kind(_NEVER, address)


def private_kind(address: IPAddress) -> str:
    """Name the kind of an address that is not public; empty when it is public."""
    return _find_kind(_PRIVATE, address)


def _find_kind(kinds: _Kinds, address: IPAddress) -> str:
    found = next(
        (kind for net, kind in kinds if net.version == address.version and address in net), ""
    )
    carried = next((int(address) >> bits for net, bits in _CARRIERS if address in net), None)
    if found or carried is None:
        return found
    inner = _find_kind(kinds, IPv4Address(carried & 0xFFFFFFFF))
    return f"{inner} inside an IPv6 one" if inner else ""
