"""Which DNS servers of the inside validate answers (DNSSEC), and whether they can."""

from collections import OrderedDict

import dns.message
import dns.rcode
import dns.rdatatype

from ecluse.dns_cache_advice import INSECURE
from ecluse.dnsproxy.alias_chains import RECENT
from ecluse.dnsproxy.message_filter import DnsQuestion

MOST = 64
"""Servers; the one that asked longest ago is dropped."""


class ValidatingServers:
    """Machines that asked for keys of zones, and whether the resolvers send signatures."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, float] = OrderedDict()
        self._unsigned = False

    def add_client(self, client: str, now: float) -> None:
        """Add a machine that asked for keys; empty if dnsmasq does not say which."""
        if client:
            self._clients[client] = now
            self._clients.move_to_end(client)
        if len(self._clients) > MOST:
            self._clients.popitem(last=False)

    def check_answer(self, question: DnsQuestion, answer: dns.message.Message) -> None:
        """Check whether an answer about keys has signatures: without, nothing can be validated."""
        if question.keys and question.dnssec and answer.rcode() == dns.rcode.NOERROR:
            records = (*answer.answer, *answer.authority)
            self._unsigned = not any(one.rdtype == dns.rdatatype.RRSIG for one in records)

    def clients(self, now: float) -> list[str]:
        """Return the machines that asked within the last hour."""
        return sorted(one for one, last in self._clients.items() if now - last <= RECENT)

    def trouble(self, now: float) -> str:
        """Say which machines can validate nothing, and what to type there; empty if none."""
        who = ", ".join(self.clients(now)) if self._unsigned else ""
        return who and (
            f"{who}: validates DNSSEC, and the site's resolvers give no signatures, so every name"
            f" fails there; type there: {INSECURE}"
        )
