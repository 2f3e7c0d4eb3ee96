"""What is odd but not wrong. Each remark says what it means on the night of a cut."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import chain

from ecluse.config.address_parsers import is_wide, written
from ecluse.config.cross_checks import AH, PlacedService
from ecluse.config.lint_dns import about_dns
from ecluse.config.lint_overlaps import find_overlaps
from ecluse.config.yaml_tree import Document
from ecluse.faults import Fault
from ecluse.policy import (
    GATEWAY,
    Criticality,
    DnsMode,
    IPAddress,
    IPNetwork,
    Policy,
    Preset,
    Service,
    interval,
)
from ecluse.policy.network_index import NetworkIndex
from ecluse.ruleset.service_maps import homes


@dataclass(frozen=True, slots=True)
class LintResult:
    """All that is odd about a policy: always, and once the day of a review has passed."""

    always: tuple[Fault, ...]
    reviews: tuple[tuple[date, Fault], ...]

    def on(self, today: date) -> tuple[Fault, ...]:
        """Give what is odd on that day, sorted by place."""
        late = (fault for due, fault in self.reviews if due < today)
        return tuple(sorted((*self.always, *late)))


def find_warnings(
    policy: Policy, site: Document, services: Sequence[PlacedService]
) -> Iterator[Fault]:
    """Give every remark that no day changes. `services` stand in the order of `policy.services`."""
    yield from _about_site(policy, site)
    yield from find_examples(policy, site, services)
    yield from about_dns(policy, site)
    inside = homes(policy)
    for placed, service in zip(services, policy.services, strict=True):
        yield from _about_people(placed, service)
        yield from _about_names(placed, service)
        yield from _about_wildcards(placed, service, policy)
        yield from _about_destinations(placed, service, policy, inside)
    yield from find_overlaps(policy, services, inside)


_EXAMPLES = tuple(
    ip_network(text)
    # RFC 5737, RFC 3849, RFC 9637
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
)
# RFC 2606, RFC 6761
_EXAMPLE_NAME = re.compile(r"(?:.*\.)?(?:example|invalid|test|example\.(?:com|net|org))")


def is_example(value: str | IPNetwork | IPAddress) -> bool:
    """Say whether an address, a prefix or a name is one of those for documentation: it leads
    nowhere.
    """
    if isinstance(value, str):
        return _EXAMPLE_NAME.fullmatch(value) is not None
    first = int(value.network_address if isinstance(value, IPv4Network | IPv6Network) else value)
    return any(
        n.version == value.version and low <= first <= high for n, low, high in _EXAMPLE_RANGES
    )


_EXAMPLE_RANGES = [(network, *interval(network)) for network in _EXAMPLES]


def find_examples(
    policy: Policy, document: Document, services: Sequence[PlacedService]
) -> Iterator[Fault]:
    """Say once how much of a site is still as the example has it: nothing of it will be reached, or
    keep anything.
    """
    site = policy.site
    places = [placed.fault(loc, "") for placed in services for loc in _examples_of(placed)]
    places += [
        document.fault(("resolvers", n), "")
        for n, one in enumerate(site.resolvers)
        if is_example(one)
    ]
    if places:
        many, leads, they = f"{len(places)} addresses and names are examples", "lead", "they"
        if len(places) == 1:
            many, leads, they = "an example", "leads", "it"
        wrong = f"{many} of the documentation, which {leads} nowhere: what {they} should keep is refused at a cut"
        yield places[0].here(wrong, "the partners' own, before these files are put into service")


def _examples_of(placed: PlacedService) -> Iterator[tuple[str | int, ...]]:
    for index, destination in enumerate(placed.model.destinations):
        for place, one in destination.each():
            if is_example(one.removeprefix("*.") if isinstance(one, str) else one):
                yield ("destinations", index, destination.key, place)


def find_reviews(services: Sequence[PlacedService]) -> Iterator[tuple[date, Fault]]:
    """Give the day of each review, and what there is to say from the day after it."""
    for placed in services:
        if (due := placed.model.review) is not None:
            wrong = f"the review of '{placed.model.name}' was due on {due}"
            yield (
                due,
                placed.fault(
                    ("review",), wrong, "addresses checked with the partner, and a new date"
                ),
            )


def _about_site(policy: Policy, document: Document) -> Iterator[Fault]:
    site = policy.site
    if not site.lifeline.management_networks:
        wrong = "no management network: at 'isolate' and 'cut' nobody reaches the gateway from afar, only its console"
        yield document.fault(
            ("lifeline",), wrong, "lifeline: {management: {networks: [...], ports: [tcp/22]}}"
        )
    if any(is_wide(network) for network in site.lifeline.management_networks):
        wrong = "management is open to the whole internet at every level"
        yield document.fault(("lifeline", "management", "unbounded"), wrong)
    six = any(network.version == 6 for zone in site.zones for network in zone.subnets)
    if six and Preset.ND not in site.lifeline.presets:
        wrong = "zones have IPv6 subnets and the lifeline has no 'nd': without neighbour discovery IPv6 stops at a cut"
        yield document.fault(("lifeline", "presets"), wrong, "presets: [nd]")
    names = sum(
        len(d.hosts) + len(d.wildcards) for service in policy.services for d in service.destinations
    )
    if names and not site.resolvers:
        wrong = (
            f"{names} destinations are host names and there are no resolvers: these are never found"
        )
        yield document.fault(("resolvers",), wrong, "the addresses of DNS servers")
    for place, resolver in enumerate(site.resolvers):
        if resolver.is_loopback:
            wrong = f"the resolver {resolver} is this machine: its own questions to the outside are not the lifeline's"
            yield document.fault(
                ("resolvers", place), wrong, "a vital service with zones: [gateway] for them"
            )
    if not any(service.criticality is Criticality.VITAL for service in policy.services):
        yield document.fault((), "no service is vital: 'cut' keeps nothing but the lifeline")


def _about_people(placed: PlacedService, service: Service) -> Iterator[Fault]:
    if not service.contact:
        yield placed.fault(
            (), f"'{service.name}' has no contact: nobody to call when it fails", "a phone number"
        )
    if not service.owner:
        yield placed.fault(
            (),
            f"'{service.name}' has no owner: nobody to ask whether it may be cut",
            "who needs it",
        )
    if service.review is None:
        yield placed.fault((), f"'{service.name}' has no review date", "review: YYYY-MM-DD")


def _about_names(placed: PlacedService, service: Service) -> Iterator[Fault]:
    hosts = [host for destination in service.destinations for host in destination.hosts]
    networks = [n for destination in service.destinations for n in destination.networks]
    if any(d.wildcards for d in service.destinations) and set(service.zones) == {GATEWAY}:
        wrong = f"'{service.name}' has a wildcard and is used by the gateway alone, whose own DNS the gate does not answer"
        yield placed.fault(("destinations",), wrong, "host names, or zones")
    if service.criticality is Criticality.VITAL and hosts and not networks:
        wrong = (
            f"the vital service '{service.name}' is known by name only: without DNS, what is kept are the last"
            " addresses seen"
        )
        yield placed.fault(
            ("destinations",), wrong, "its addresses as well, where the partner keeps them fixed"
        )


def _about_wildcards(placed: PlacedService, service: Service, policy: Policy) -> Iterator[Fault]:
    """Say which connections end at a cut that the allowlist keeps: their addresses are not known
    before it.
    """
    site = policy.site
    kept = any(not level.passes_all and service.criticality in level.keeps for level in site.levels)
    if site.dns.mode is not DnsMode.CUT or not kept or set(service.zones) == {GATEWAY}:
        return
    for index, destination in enumerate(service.destinations):
        if destination.wildcards and not destination.networks:
            wrong = (
                f"connections of '{service.name}' to '*.{destination.wildcards[0]}' end when the gate shuts, and come back"
                " with the next question: with 'mode: cut' their addresses are learned only then"
            )
            yield placed.fault(
                ("destinations", index, "to"),
                wrong,
                "dns_gate: {mode: always} in site.yaml, or the partner's fixed addresses beside the wildcard",
            )


def _about_destinations(
    placed: PlacedService, service: Service, policy: Policy, inside: NetworkIndex[str]
) -> Iterator[Fault]:
    families = _families(service, policy)
    for index, destination in enumerate(placed.model.destinations):
        names = service.destinations[index].hosts or service.destinations[index].wildcards
        if destination.private and not names:
            wrong = "'private' is about what host names lead to, and there are none: addresses need no leave"
            yield placed.fault(("destinations", index, "private"), wrong)
        if names and any(traffic.protocol == AH for traffic in destination.ports):
            wrong = f"'ah' of '{service.name}' is kept over IPv4 alone: over IPv6 it can't be told from what it carries"
            yield placed.fault(
                ("destinations", index, "ports"), wrong, "esp, or a name that has no IPv6 address"
            )
        said: dict[str, list[tuple[int, str, str]]] = {}
        for place, network in destination.each():
            if isinstance(network, str):
                continue
            if odd := _about_network(service, network, families, inside):
                said.setdefault(odd[0], []).append((place, *odd[1:]))
        for places in said.values():
            place, wrong, expected = places[0]
            more = (
                f" (and {len(places) - 1} more of this destination alike)"
                if len(places) > 1
                else ""
            )
            yield placed.fault(
                ("destinations", index, destination.key, place), wrong + more, expected
            )


def _about_network(
    service: Service, network: IPNetwork, families: set[int], inside: NetworkIndex[str]
) -> tuple[str, str, str] | None:
    """Give what kind of oddity it is, what to say of it, and what was expected."""
    if is_wide(network):
        return (
            written(network),
            f"'{service.name}' keeps '{written(network)}' open, the whole internet or much of it, for these ports",
            "",
        )
    zone = next((zone for _, zone in inside.around(network)), None)
    if zone is not None:
        wrong = (
            f"'{written(network)}' lies inside zone '{zone}': traffic to it never crosses the gate"
        )
        return "inside", wrong, "the partner's address outside"
    if network.version not in families:
        return (
            "family",
            f"'{written(network)}' is of no use: the inside of '{service.name}' has no IPv{network.version} subnet",
            "",
        )
    return None


def _families(service: Service, policy: Policy) -> set[int]:
    """Give the address families that the service's inside has (the gateway may have both)."""
    if GATEWAY in service.zones:
        return {4, 6}
    subnets = [n for zone in policy.site.zones if zone.name in service.zones for n in zone.subnets]
    return {network.version for network in chain(subnets, service.hosts)}
