"""One DNS query to one server, by UDP and then TCP: what every DNS client here sends with."""

import socket

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.inet
import dns.message
import dns.rcode

Server = tuple[str, int]
"""Address and port of a DNS server."""

_BEFORE_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP)


async def exchange(
    query: dns.message.Message, server: Server, seconds: float, attempts: int = 1
) -> tuple[dns.message.Message, bool]:
    """Return the server's response, and whether UDP truncated it so that it came by TCP.

    All attempts use one socket: an answer to the first one still counts during the last. dnspython
    draws the query id, the kernel the port. A datagram from another sender, with another id or for
    another question is ignored, so that a forged one does not end the wait for the real one.

    Args:
        seconds: for all attempts by UDP together, and again for TCP.
        attempts: how often the query is sent. If there is one left after FORMERR or NOTIMP, it is
            sent without EDNS (RFC 6891, section 7).

    Raises:
        dns.exception.DNSException: no response (`Timeout`), or TCP gave one that cannot be parsed.
        OSError, EOFError: the server cannot be reached, or it closed the TCP connection.
    """
    address, port = server
    family = dns.inet.af_for_address(address)
    backend = dns.asyncbackend.get_default_backend()
    made = backend.make_socket(family, socket.SOCK_DGRAM)  # type: ignore[no-untyped-call]
    async with await made as sock:
        for left in reversed(range(attempts)):
            try:
                response = await dns.asyncquery.udp(
                    query,
                    address,
                    timeout=seconds / attempts,
                    port=port,
                    ignore_unexpected=True,
                    ignore_errors=True,
                    raise_on_truncation=True,
                    sock=sock,
                )
            except dns.exception.Timeout:
                continue
            except dns.message.Truncated:
                return await dns.asyncquery.tcp(query, address, timeout=seconds, port=port), True
            if response.rcode() not in _BEFORE_EDNS or query.edns < 0 or not left:
                return response, False
            query.use_edns(False)
    raise dns.exception.Timeout
