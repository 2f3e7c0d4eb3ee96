"""What dnsmasq is told: pure, the same orders give the same bytes. dnsmasq(8), 2.90."""

from pathlib import Path

from ecluse.ruleset.dnsorders import HEALTH, Orders

CACHED = 300
"""Seconds that an answer is given again without asking: far below the time that its addresses are kept in the kernel."""

WORD_OPTION = 65074
"""The EDNS option in which dnsmasq sends it (EDNS0_OPTION_NOMCPEID in its dns-protocol.h)."""

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


def config_text(orders: Orders, servers: Path, word: str) -> str:
    """Write the file that dnsmasq is started with. A change of it needs another dnsmasq; names stand in `servers`.

    word: what tells its questions from those of others (`add-cpe-id`, which replaces what a client wrote there).
    """
    lines = [f"port={orders.port}", f"servers-file={servers}", f"add-cpe-id={word}"]
    lines += [f"interface={name}" for name in ("lo", *orders.interfaces)]
    return _FIXED + "\n".join([*lines, ""])


def servers_text(orders: Orders) -> str:
    """Write the list of names that are let through, and where to; dnsmasq reads it anew at SIGHUP, without a gap."""
    strainer = f"127.0.0.1#{orders.port + 1}"
    lines = [f"server=/{HEALTH}/{strainer}"]
    lines += [f"server=/{name}/{strainer}" for name in sorted(orders.names)]
    lines += [f"server=/*.{name}/{strainer}" for name in sorted(orders.wildcards)]
    lines += [
        f"server=/{name}/{server}"
        for each in orders.internal
        for name in each.names
        for server in each.servers
    ]
    if orders.everything:
        lines.append(f"server={strainer}")
    return "\n".join([*lines, ""])
