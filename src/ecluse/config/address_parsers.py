"""A written address or prefix -> one value of the policy. Pure, as `parsers.py`."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

from ecluse.config.messages import InvalidValueError, shown
from ecluse.policy import IPAddress, IPNetwork, network_interval, parse_network

_PREFIX_FORM = "an address or a prefix such as 10.10.4.7, 10.10.0.0/16 or 2001:db8:10::/48"
_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")


def prefix(text: str) -> IPNetwork:
    """Read an address (a network of full length) or a prefix without host bits."""
    return not_mapped(parse_network(text) or _spelled_out(text), text)


def not_mapped(network: IPNetwork, text: str) -> IPNetwork:
    """Refuse an IPv4 address that is written as an IPv6 one (RFC 4291, 2.5.5.2)."""
    first = int(network.network_address)
    if network.version == 6 and network.prefixlen >= 96 and first >> 32 == 0xFFFF:
        plain = IPv4Network((first & 0xFFFFFFFF, network.prefixlen - 96))
        raise InvalidValueError(f"{shown(text)} is IPv4 written as IPv6", written(plain))
    return network


def _spelled_out(text: str) -> IPNetwork:
    """Parse as `parse_network` does, more slowly, and say what is wrong."""
    base, slash, length = text.partition("/")
    if "%" in text:
        raise InvalidValueError(f"a scope in {shown(text)}", "the address without '%'")
    try:
        start = ip_address(base)
    except ValueError:
        raise InvalidValueError(f"{shown(text)} is no address or prefix", _PREFIX_FORM) from None
    if not slash:
        length = str(start.max_prefixlen)
    if not _LENGTH.fullmatch(length) or int(length) > start.max_prefixlen:
        raise InvalidValueError(f"the prefix length in {shown(text)}", _length_hint(text, start))
    network = ip_network((start, int(length)), strict=False)
    if network.network_address != start:
        raise InvalidValueError(
            f"{shown(text)} has bits set after the first {length}",
            f"{network} (the network) or {start} (the address alone)",
        )
    return network


def written(network: IPNetwork) -> str:
    """Return a network as a person writes it: a network of full length is an address."""
    return str(network if network.prefixlen < network.max_prefixlen else network.network_address)


def _length_hint(text: str, start: IPAddress) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return f"0 to {start.max_prefixlen}"


_NO_HOSTS = (
    ("0.0.0.0/8", "the unspecified address"),
    ("127.0.0.0/8", "loopback"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved or broadcast"),
    ("::/128", "the unspecified address"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "IPv4 written as IPv6"),
    ("ff00::/8", "multicast"),
)
# By version, as numbers: first and last address, and what they are.
_SPECIAL = {
    version: [
        (*network_interval(n), what)
        for n, what in ((ip_network(text), what) for text, what in _NO_HOSTS)
        if n.version == version
    ]
    for version in (4, 6)
}


def is_wide(network: IPNetwork) -> bool:
    """Say whether a prefix amounts to "the internet": shorter than /8 (IPv4) or /16 (IPv6)."""
    return network.prefixlen < (8 if network.version == 4 else 16)


def unicast(network: IPNetwork, *, unbounded: bool) -> IPNetwork:
    """Check that a network names hosts, and not the whole internet unless that is meant."""
    first, last = network_interval(network)
    # Prefixes are disjoint, or one lies in the other.
    met = next(
        (
            special
            for special in _SPECIAL[network.version]
            if special[0] <= last and first <= special[1]
        ),
        None,
    )
    within = met is not None and met[0] <= first and last <= met[1]
    if is_wide(network) and not within:
        if unbounded:
            return network
        raise InvalidValueError(
            f"'{written(network)}' is the whole internet, or much of it",
            "the partner's prefixes, or 'unbounded: true' beside it",
        )
    if met:
        raise InvalidValueError(
            f"'{written(network)}' is or contains {met[2]}", "addresses of single hosts (unicast)"
        )
    return network


_LINK_GROUPS = tuple(map(ip_network, ("224.0.0.0/24", "ff02::/16")))
"""Groups that no router passes on (RFC 5771, 4; RFC 4291, 2.7)."""


def is_link_group(network: IPNetwork) -> bool:
    """Say whether a network is one multicast group of the link."""
    return network.prefixlen == network.max_prefixlen and any(
        network.version == groups.version and network.network_address in groups
        for groups in _LINK_GROUPS
    )


def subnet(text: str) -> IPNetwork:
    """Read a subnet of the inside."""
    network = prefix(text)
    if is_wide(network):
        raise InvalidValueError(
            f"'{written(network)}' is far more than one zone", "the subnets of this zone"
        )
    return unicast(network, unbounded=False)


def resolver(text: str) -> IPAddress:
    """Read the address of a DNS server; one on the machine itself (loopback) may be meant."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        raise InvalidValueError(
            f"{shown(text)} is no address", "the address of a DNS server, such as 192.0.2.53"
        ) from None
    if "%" in text:
        raise InvalidValueError(f"a scope in {shown(text)}", "the address without '%'")
    if not address.is_loopback:
        unicast(ip_network(address), unbounded=False)
    return address
