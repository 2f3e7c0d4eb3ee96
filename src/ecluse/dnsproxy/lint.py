"""Warnings about the DNS proxy's own settings."""

from collections.abc import Iterator

from ecluse.config.yaml_tree import Document
from ecluse.faults import Fault
from ecluse.policy import Policy


def find_warnings(policy: Policy, document: Document) -> Iterator[Fault]:
    """Yield a warning if no DNS server of the inside is named: it has a limit then."""
    gate = policy.site.dns
    # 'internal: []' says that there is none.
    if gate.internal or document.at(("dns_gate", "internal")):
        return
    yield document.fault(
        ("dns_gate",),
        "the DNS gate knows no DNS server of the inside: one that asks outside has the limit of"
        f" one machine ({gate.limits.client_queries} questions a second) for all machines that"
        " ask it, and beyond it kept names fail. Better: internal: [{names: [...], servers:"
        " [...]}] with every DNS server of the inside, [] for none",
    )
