"""The query by which the DNS proxy says whether it works, and by which configuration."""

import dns.message

from ecluse.dns_exchange import exchange
from ecluse.dnsproxy.proxy_config import HEALTH

ATTEMPTS = 5
"""How often a query is sent: in a flood dnsmasq may lose one and be well."""


async def ask_health(digest: str, port: int, seconds: float) -> dns.message.Message:
    """Ask for a configuration by its digest, the whole way through, as a machine would.

    Only a proxy that works by that configuration answers NOERROR; REFUSED is one of another.

    Raises:
        dns.exception.DNSException: nothing came within `seconds`.
        OSError: nobody listens there.
    """
    query = dns.message.make_query(f"{digest}.{HEALTH}.", "A")
    reply, _ = await exchange(query, ("127.0.0.1", port), seconds, ATTEMPTS)
    return reply
