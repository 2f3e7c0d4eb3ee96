"""Which DNS servers of the inside prove what they are told (DNSSEC), and whether they can.

No clock of its own.
"""

from collections import OrderedDict

import dns.message
import dns.rcode
import dns.rdatatype

from ecluse.dns_cache_advice import INSECURE
from ecluse.dnsproxy.alias_chains import LATELY
from ecluse.dnsproxy.message_filter import DnsQuestion

MOST = 64
"""Servers that are known; the one that asked longest ago gives way."""


class ValidatingServers:
    """Machines that asked for keys of zones, and what the site's resolvers gave them."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, float] = OrderedDict()
        self._unsigned = False

    def note(self, client: str, now: float) -> None:
        """Take note of who asked for keys; empty where the engine does not say."""
        if client:
            self._clients[client] = now
            self._clients.move_to_end(client)
        if len(self._clients) > MOST:
            self._clients.popitem(last=False)

    def heard(self, question: DnsQuestion, answer: dns.message.Message) -> None:
        """Take note of what a resolver said: one that leaves signatures out gives nothing to prove
        an answer by.
        """
        if question.keys and question.dnssec and answer.rcode() == dns.rcode.NOERROR:
            records = (*answer.answer, *answer.authority)
            self._unsigned = not any(one.rdtype == dns.rdatatype.RRSIG for one in records)

    def told(self, now: float) -> list[str]:
        """Give the machines that asked within the last hour."""
        return sorted(one for one, last in self._clients.items() if now - last <= LATELY)

    def trouble(self, now: float) -> str:
        """Say who can prove nothing, and what to type there; empty where that is nobody."""
        who = ", ".join(self.told(now)) if self._unsigned else ""
        return who and (
            f"{who}: validates DNSSEC, and the site's resolvers give no signatures, so every name"
            f" fails there; type there: {INSECURE}"
        )
