"""What to type on the DNS servers of the inside, told by more than one part: pure text."""

INSECURE = "unbound-control insecure_add NAME (unbound), rndc nta -lifetime 1w NAME (BIND)"
"""Have a server take a name without proof."""


def flush(domain: str) -> str:
    """Say how a server forgets what it holds of a domain and all below it."""
    return f"unbound-control flush_zone {domain} (unbound), rndc flushtree {domain} (BIND), Clear-DnsServerCache (Windows)"
