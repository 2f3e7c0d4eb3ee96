"""What dnsmasq is told: pure, the same orders give the same bytes. dnsmasq(8), 2.90."""

import string
from collections.abc import Iterator
from pathlib import Path

from ecluse.ruleset.dns_redirect import REFUSING
from ecluse.ruleset.proxy_config import HEALTH, ProxyConfig

CACHED = 300
"""Seconds that an answer is given again without asking: far below the time that its addresses are
kept in the kernel.
"""

WORD_OPTION = 65074
"""The EDNS option in which dnsmasq sends it (EDNS0_OPTION_NOMCPEID in its dns-protocol.h)."""
LOOPBACK = "127.0.0.1"
"""Where the strainer listens."""
ROOT = "."
_LAST_LETTERS = string.ascii_lowercase + string.digits + "-_"

_FIXED = f"""\
# Written by ecluse's DNS gate; changed by nobody else.
keep-in-foreground
pid-file=
no-resolv
no-hosts
no-poll
# Only whom the kernel redirects here: one who asks another port, or from outside, is refused before.
# What no line of the servers' file names is REFUSED at once: no list of a machine's DNS can hold a name that is not kept.
# Who asks is told to the strainer, which bounds each machine by it and makes the question that leaves anew; nobody can say
# it for another (strip-subnet). Answers that differ by it are not cached here: the strainer does it (answers.py).
add-subnet=32,128
strip-subnet
cache-size=0
max-ttl={CACHED}
dns-forward-max=500
edns-packet-max=1232
log-queries=extra
log-facility=-
log-async=100
"""


def config_text(orders: ProxyConfig, servers: Path, word: str) -> str:
    """Write the file that dnsmasq is started with.

    A change of it needs another dnsmasq; names stand in `servers`.

    word: what tells its questions from those of others (`add-cpe-id`, which replaces what a client
    wrote there).
    """
    lines = [f"port={orders.port}", f"servers-file={servers}", f"add-cpe-id={word}"]
    lines += [f"interface={name}" for name in ("lo", *orders.interfaces)]
    return _FIXED + "\n".join([*lines, ""])


def zones_above(name: str) -> Iterator[str]:
    """Give the name, what lies above it, and the root (`.`): each may be a zone."""
    while name and name != ROOT:
        yield name
        name = name.partition(".")[2]
    yield ROOT


def own_zones(orders: ProxyConfig) -> frozenset[str]:
    """Give the zones whose keys prove answers to the site's own names: what is written in its
    files, and all above.

    A machine adds nothing to them, whatever it asks. Names of the inside have their own servers.
    """
    inside = {name for each in orders.internal for name in each.names}
    every = {zone for name in (*orders.names, *orders.wildcards) for zone in zones_above(name)}
    return frozenset(zone for zone in every if inside.isdisjoint(zones_above(zone)))


def servers_text(
    orders: ProxyConfig, targets: frozenset[str] = frozenset(), zones: frozenset[str] = frozenset()
) -> str:
    """Write the list of names that are let through, and where to; dnsmasq reads it anew at SIGHUP,
    without a gap.

    targets, zones: what answers led to (chains.py). A zone is let through alone: without the second
    line all below it were too. The root is dnsmasq's empty name, which only a server for everything
    matches; so whatever ends in a letter that names end in is told apart from it, and refused.
    """
    strainer, refusing = (f"{address}#{orders.port + 1}" for address in (LOOPBACK, REFUSING))
    if not (orders.names or orders.wildcards):
        targets = zones = frozenset()
    every = own_zones(orders) | zones
    lines = [f"server=/{HEALTH}/{strainer}"]
    lines += [f"server=/{name}/{strainer}" for name in sorted(orders.names)]
    lines += [f"server=/*.{name}/{strainer}" for name in sorted(orders.wildcards)]
    for name in sorted((every | targets) - {ROOT}):
        if name in orders.names or orders.wildcard_of(name):
            continue
        lines.append(f"server=/{name}/{strainer}")
        if name not in orders.wildcards:
            lines.append(f"server=/*.{name}/{refusing}")
    lines += [
        f"server=/{name}/{server}"
        for each in orders.internal
        for name in each.names
        for server in each.servers
    ]
    if ROOT in every and not orders.everything:
        lines += [f"server=/*{letter}/{refusing}" for letter in _LAST_LETTERS]
    if ROOT in every or orders.everything:
        lines.append(f"server={strainer}")
    return "\n".join([*lines, ""])
