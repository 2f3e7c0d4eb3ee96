"""dnsmasq's two files, as text: the same configuration gives the same bytes (dnsmasq(8), 2.90)."""

import string
from collections.abc import Iterator
from pathlib import Path

from ecluse.dnsproxy.proxy_config import HEALTH, ProxyConfig
from ecluse.ruleset.dns_redirect import REFUSING

MAX_TTL = 300
"""Seconds, the longest TTL of an answer: far below the time that addresses are kept."""

SECRET_OPTION = 65074
"""The EDNS option of `add-cpe-id` (EDNS0_OPTION_NOMCPEID in dnsmasq's dns-protocol.h)."""
LOOPBACK = "127.0.0.1"
"""Where the forwarder listens."""
ROOT = "."
_LAST_LETTERS = string.ascii_lowercase + string.digits + "-_"

_FIXED = f"""\
# Written by ecluse's DNS gate; changed by nobody else.
keep-in-foreground
pid-file=
no-resolv
no-hosts
no-poll
# Only queries that the kernel redirects come here; all others are refused before.
# A name that the servers' file does not list is answered REFUSED at once.
# The forwarder is told which machine asks, so that it can limit each. No machine can name another
# (strip-subnet). Such answers differ by machine, so dnsmasq caches none: the forwarder does.
add-subnet=32,128
strip-subnet
cache-size=0
max-ttl={MAX_TTL}
dns-forward-max=500
edns-packet-max=1232
log-queries=extra
log-facility=-
log-async=100
"""


def config_text(config: ProxyConfig, servers: Path, secret: str) -> str:
    """Return the file that dnsmasq is started with; a change needs a restart.

    Args:
        config: what the proxy works by.
        servers: the file of names, see `servers_text`.
        secret: marks dnsmasq's own queries (`add-cpe-id` replaces what a client wrote there).
    """
    lines = [f"port={config.port}", f"servers-file={servers}", f"add-cpe-id={secret}"]
    lines += [f"interface={name}" for name in ("lo", *config.interfaces)]
    return _FIXED + "\n".join([*lines, ""])


def zones_above(name: str) -> Iterator[str]:
    """Yield the name, the names above it, and the root (`.`): each may be a zone."""
    while name and name != ROOT:
        yield name
        name = name.partition(".")[2]
    yield ROOT


def own_zones(config: ProxyConfig) -> frozenset[str]:
    """Return the zones whose keys prove answers to the names in the site's files.

    No machine can add to them by what it asks. Names of the inside have their own servers.
    """
    inside = {name for each in config.internal for name in each.names}
    every = {zone for name in (*config.names, *config.wildcards) for zone in zones_above(name)}
    return frozenset(zone for zone in every if inside.isdisjoint(zones_above(zone)))


def servers_text(
    config: ProxyConfig, targets: frozenset[str] = frozenset(), zones: frozenset[str] = frozenset()
) -> str:
    """Return the list of names that are let through, and where to; SIGHUP reloads it without a gap.

    A zone of `targets` or `zones` (see `alias_chains`) is let through alone: without its second
    line all names below it would be too. The root is dnsmasq's empty name, which only a server for
    everything matches; so names are told from it by their last letter, and refused.
    """
    forwarder, refusing = (f"{address}#{config.port + 1}" for address in (LOOPBACK, REFUSING))
    if not (config.names or config.wildcards):
        targets = zones = frozenset()
    every = own_zones(config) | zones
    lines = [f"server=/{HEALTH}/{forwarder}"]
    lines += [f"server=/{name}/{forwarder}" for name in sorted(config.names)]
    lines += [f"server=/*.{name}/{forwarder}" for name in sorted(config.wildcards)]
    for name in sorted((every | targets) - {ROOT}):
        if name in config.names or config.wildcard_of(name):
            continue
        lines.append(f"server=/{name}/{forwarder}")
        if name not in config.wildcards:
            lines.append(f"server=/*.{name}/{refusing}")
    lines += [
        f"server=/{name}/{server}"
        for each in config.internal
        for name in each.names
        for server in each.servers
    ]
    if ROOT in every and not config.everything:
        lines += [f"server=/*{letter}/{refusing}" for letter in _LAST_LETTERS]
    if ROOT in every or config.everything:
        lines.append(f"server={forwarder}")
    return "\n".join([*lines, ""])
