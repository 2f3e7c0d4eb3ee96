"""The question about the gate itself, which only orders in force answer: asked the whole way
through, as a machine would.
"""

import socket

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.message

from ecluse.ruleset.proxy_config import HEALTH

_LOOPBACK = "127.0.0.1"
TIMES = 5
"""A question is sent so often before nothing came: under a flood one may find the engine's queue
full, and the engine well.
"""


async def ask(word: str, port: int, seconds: float) -> dns.message.Message:
    """Ask for a word of the orders, for so long in all. DNSException when nothing came, OSError."""
    query = dns.message.make_query(f"{word}.{HEALTH}.", "A")
    backend = dns.asyncbackend.get_default_backend()
    sent = 0
    # One socket: an answer to an earlier sending counts too.
    made = backend.make_socket(socket.AF_INET, socket.SOCK_DGRAM)  # type: ignore[no-untyped-call]  # dnspython's own
    async with await made as sock:
        while True:
            sent += 1
            try:
                return await dns.asyncquery.udp(
                    query, _LOOPBACK, timeout=seconds / TIMES, port=port, sock=sock
                )
            except dns.exception.Timeout:
                if sent == TIMES:
                    raise
