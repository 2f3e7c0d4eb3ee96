"""Addresses that a DNS answer may not lead to."""

from ipaddress import ip_address

import pytest

from ecluse.policy import private_kind, reserved_kind


@pytest.mark.parametrize(
    "text, reserved, private",
    [
        ("203.0.113.1", "", ""),
        ("2001:db8::1", "", ""),
        ("10.1.2.3", "", "a private address"),
        ("fd00::1", "", "a private address"),
        ("100.64.0.1", "", "a private address of a provider"),
        ("127.0.0.1", "a loopback address", ""),
        ("::1", "a loopback address", ""),
        ("169.254.169.254", "a link-local address", ""),
        ("224.0.0.1", "a multicast address", ""),
        ("::ffff:10.0.0.1", "a reserved address", ""),
        # NAT64 and 6to4 stand for the IPv4 address in them.
        ("64:ff9b::10.0.0.1", "", "a private address inside an IPv6 one"),
        ("64:ff9b::203.0.113.1", "", ""),
        ("2002:7f00:1::", "a loopback address inside an IPv6 one", ""),
    ],
)
def test_the_kind_of_an_address(text, reserved, private):
    assert (reserved_kind(ip_address(text)), private_kind(ip_address(text))) == (reserved, private)
