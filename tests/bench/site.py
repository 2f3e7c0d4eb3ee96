"""The site that is measured: one service that is kept, and an allowlist of any size beside it."""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from tests.lab import places, policy

KEPT, CUT_OFF = places.LABORATORY, places.WEB
BULK_PORT = 6001  # somebody reads there
SPARE_PORT = 6002  # as PORT; more ports to one partner, since masquerading has 64,512 for each
PORT = 6000  # nobody listens there; what arrives is dropped behind the witness
SIZES = (10, 1_000, 10_000, 100_000)
_EXACT = int(ipaddress.ip_address("198.18.0.0"))  # 198.18.0.0/15, for benchmarks (RFC 2544)
_PER_SERVICE = 500

DEAD_END = f"""
table inet bench {{
  chain in {{
    type filter hook prerouting priority -300;
    iifname "uplink" meta l4proto {{ tcp, udp }} th dport {{ {PORT}, {SPARE_PORT} }} drop
    iifname "uplink" ip daddr {CUT_OFF.v4} meta l4proto icmp drop
    iifname "uplink" ip6 daddr {CUT_OFF.v6} meta l4proto icmpv6 drop
  }}
}}
"""


def addresses(count: int, first: int = 0) -> list[str]:
    """Give so many exact addresses."""
    return [str(ipaddress.ip_address(_EXACT + first + n)) for n in range(count)]


def prefixes(count: int) -> list[str]:
    """Give so many prefixes, every second of them inside another."""
    found = []
    for number in range(count // 2):
        base = _EXACT + number * 64
        found += [f"{ipaddress.ip_address(base)}/26", f"{ipaddress.ip_address(base + 16)}/28"]
    return found


def _services(name: str, entries: list[str], zones: list[str]) -> Iterator[dict[str, Any]]:
    # A list of its own for each: YAML would write a shared one as an alias, which no site may have.
    for number, start in enumerate(range(0, len(entries), _PER_SERVICE)):
        to = entries[start : start + _PER_SERVICE]
        yield policy.service(
            f"{name}-{number}", "vital", [*zones], [{"to": to, "ports": ["tcp/443"]}]
        )


def allowlist(
    entries: list[str], *names: str, zones: Sequence[str] = ("care",)
) -> dict[str, list[dict[str, Any]]]:
    """Give the allowlist.

    What is kept in every measurement, host names, and these addresses or prefixes; for each of
    these zones.
    """
    inside = list(zones)
    ports = [
        f"udp/{PORT}",
        f"udp/{SPARE_PORT}",
        f"tcp/{PORT}",
        f"tcp/{BULK_PORT}",
        "udp/5000",
        "tcp/443",
        "tcp/5001",
        "icmp",
    ]
    kept = policy.service("kept", "vital", [*inside], [{"to": [KEPT.v4, KEPT.v6], "ports": ports}])
    listed = list(_services("entries", entries, inside))
    found = {"10-kept.yaml": [kept], "20-entries.yaml": listed}
    if names:
        to = [{"to": list(names), "ports": ["tcp/443"]}]
        found["30-names.yaml"] = [policy.service("names", "vital", [*inside], to)]
    return {name: services for name, services in found.items() if services}


def only_care() -> dict[str, Any]:
    """Give the lab's site."""
    return policy.site()


def zones(count: int) -> dict[str, Any]:
    """Give a site of so many zones: the lab's, and more behind interfaces that are not there."""
    there = policy.SITE["zones"][:count]
    more = [
        {
            "name": f"ward-{number}",
            "title": f"Ward {number}",
            "interfaces": [f"ward{number}"],
            "subnets": [f"10.{100 + number}.0.0/16", f"2001:db8:{100 + number}::/48"],
        }
        for number in range(count - len(there))
    ]
    return policy.site(zones=[*there, *more])


def with_both_locks() -> dict[str, Any]:
    """Give the lab's site with the second lock at `cut` too."""
    return policy.site(second_lock="cut")


def with_dns_gate() -> dict[str, Any]:
    """Give the lab's site with a DNS gate, its bounds as they are shipped."""
    return policy.site(dns_gate={})
