"""Commands to type on the DNS servers of the inside, for more than one message."""

INSECURE = "unbound-control insecure_add NAME (unbound), rndc nta -lifetime 1w NAME (BIND)"
"""Makes a server accept a name without DNSSEC."""


def flush(domain: str) -> str:
    """Return how a server drops its cache of a domain and of all names below it."""
    return (
        f"unbound-control flush_zone {domain} (unbound), rndc flushtree {domain} (BIND),"
        " Clear-DnsServerCache (Windows)"
    )
