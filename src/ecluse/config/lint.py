"""Warnings: what is right in the files and may fail on the night of a cut."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import chain

from ecluse.config.address_parsers import is_wide, written
from ecluse.config.cross_checks import AH, PlacedService
from ecluse.config.lint_dns import dns_warnings
from ecluse.config.lint_overlaps import find_overlaps
from ecluse.config.parsers import WITHOUT_PORTS, written_traffic
from ecluse.config.yaml_tree import Document, Loc
from ecluse.extensions import EXTENSIONS, Extension
from ecluse.faults import Fault
from ecluse.policy import (
    GATEWAY,
    Criticality,
    Direction,
    DnsMode,
    IPAddress,
    IPNetwork,
    Policy,
    Preset,
    Service,
    network_interval,
)
from ecluse.policy.network_index import NetworkIndex
from ecluse.ruleset.lifeline import OSPF
from ecluse.ruleset.service_maps import subnet_index


@dataclass(frozen=True, slots=True)
class LintResult:
    """The warnings about a policy: always, and those once the day of a review has passed."""

    always: tuple[Fault, ...]
    reviews: tuple[tuple[date, Fault], ...]

    def on(self, today: date) -> tuple[Fault, ...]:
        """Return the warnings of that day, sorted by place."""
        late = (fault for due, fault in self.reviews if due < today)
        return tuple(sorted((*self.always, *late)))


def find_warnings(
    policy: Policy, site: Document, services: Sequence[PlacedService]
) -> Iterator[Fault]:
    """Yield every warning that no day changes."""
    yield from _about_site(policy, site)
    yield from find_examples(policy, site, services)
    yield from dns_warnings(policy, site)
    for extension in EXTENSIONS:
        if extension.lint and extension.is_used(policy):
            yield from _of_extension(extension, policy, site)
    inside = subnet_index(policy)
    for placed in services:
        yield from _about_people(placed)
        yield from _about_names(placed)
        yield from _about_wildcards(placed, policy)
        yield from _about_destinations(placed, policy, inside)
        yield from _about_protocols(placed, policy)
    yield from find_overlaps(policy, services, inside)


def _of_extension(extension: Extension, policy: Policy, site: Document) -> Iterator[Fault]:
    """Yield the warnings of an extension; where it fails, one that says so."""
    try:
        yield from import_module(extension.lint).find_warnings(policy, site)
    except Exception as error:  # noqa: BLE001 - the other warnings, and the status, still come
        why = f"{type(error).__name__}: {error}"
        yield site.fault((), f"{extension.name} could not look for warnings ({why})")


_EXAMPLES = tuple(
    ip_network(text)
    # RFC 5737, RFC 3849, RFC 9637
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
)
# RFC 2606, RFC 6761
_EXAMPLE_NAME = re.compile(r"(?:.*\.)?(?:example|invalid|test|example\.(?:com|net|org))")


def is_example(value: str | IPNetwork | IPAddress) -> bool:
    """Say whether an address, a prefix or a name is reserved for documentation."""
    if isinstance(value, str):
        return _EXAMPLE_NAME.fullmatch(value) is not None
    first = int(value.network_address if isinstance(value, IPv4Network | IPv6Network) else value)
    return any(
        n.version == value.version and low <= first <= high for n, low, high in _EXAMPLE_RANGES
    )


_EXAMPLE_RANGES = [(network, *network_interval(network)) for network in _EXAMPLES]


def find_examples(
    policy: Policy, document: Document, services: Sequence[PlacedService]
) -> Iterator[Fault]:
    """Yield one warning, at the first value that is still as the example has it."""
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
        wrong = (
            f"{many} of the documentation, which {leads} nowhere: what {they} should keep is"
            " refused at a cut"
        )
        better = "write the partners' own, before these files are put into service"
        yield places[0].here(_advice(wrong, better))


def _advice(wrong: str, better: str) -> str:
    return f"{wrong}. Better: {better}"


def _examples_of(placed: PlacedService) -> Iterator[Loc]:
    for index in range(len(placed.targets)):
        for place, one in placed.each_target(index):
            if is_example(one.removeprefix("*.") if isinstance(one, str) else one):
                yield placed.target_loc(index, place)


def find_reviews(services: Sequence[PlacedService]) -> Iterator[tuple[date, Fault]]:
    """Yield the day of each review, and the warning from the day after it."""
    for placed in services:
        if (due := placed.service.review) is not None:
            wrong = f"the review of '{placed.service.name}' was due on {due}"
            better = "check the addresses with the partner, and write a new date"
            yield due, placed.fault(("review",), _advice(wrong, better))


def _about_site(policy: Policy, document: Document) -> Iterator[Fault]:
    site = policy.site
    if not site.lifeline.management_networks:
        wrong = (
            "no management network: at 'isolate' and 'cut' nobody reaches the gateway from afar,"
            " only its console"
        )
        better = "lifeline: {management: {networks: [...], ports: [tcp/22]}}"
        yield document.fault(("lifeline",), _advice(wrong, better))
    if any(is_wide(network) for network in site.lifeline.management_networks):
        wrong = "management is open to the whole internet at every level"
        yield document.fault(("lifeline", "management", "unbounded"), wrong)
    six = any(network.version == 6 for zone in site.zones for network in zone.subnets)
    if six and Preset.ND not in site.lifeline.presets:
        wrong = (
            "zones have IPv6 subnets and the lifeline has no 'nd': without neighbour discovery"
            " IPv6 stops at a cut"
        )
        yield document.fault(("lifeline", "presets"), _advice(wrong, "presets: [nd]"))
    names = sum(
        len(d.hosts) + len(d.wildcards) for service in policy.services for d in service.destinations
    )
    if names and not site.resolvers:
        wrong = f"{names} destinations are host names and there are no resolvers to look them up"
        yield document.fault(("resolvers",), _advice(wrong, "add the addresses of DNS servers"))
    for place, resolver in enumerate(site.resolvers):
        if resolver.is_loopback:
            wrong = (
                f"the resolver {resolver} is this machine: the lifeline does not keep what it asks"
                " outside"
            )
            better = "add a vital service with zones: [gateway] for it"
            yield document.fault(("resolvers", place), _advice(wrong, better))
    if not any(service.criticality is Criticality.VITAL for service in policy.services):
        yield document.fault((), "no service is vital: 'cut' keeps nothing but the lifeline")


def _about_people(placed: PlacedService) -> Iterator[Fault]:
    service = placed.service
    if not service.contact:
        wrong = f"'{service.name}' has no contact: nobody to call when it fails"
        yield placed.fault((), _advice(wrong, "add a phone number"))
    if not service.owner:
        wrong = f"'{service.name}' has no owner: nobody to ask whether it may be cut"
        yield placed.fault((), _advice(wrong, "add who needs it"))
    if service.review is None:
        wrong = f"'{service.name}' has no review date"
        yield placed.fault((), _advice(wrong, "review: YYYY-MM-DD"))


def _about_names(placed: PlacedService) -> Iterator[Fault]:
    service = placed.service
    hosts = any(destination.hosts for destination in service.destinations)
    networks = any(destination.networks for destination in service.destinations)
    if any(d.wildcards for d in service.destinations) and set(service.zones) == {GATEWAY}:
        wrong = (
            f"'{service.name}' has a wildcard and is used by the gateway alone, but the DNS gate"
            " does not answer the gateway itself"
        )
        yield placed.fault(("destinations",), _advice(wrong, "write host names, or add zones"))
    if service.criticality is Criticality.VITAL and hosts and not networks:
        wrong = (
            f"vital service '{service.name}' has no fixed address: if DNS fails, only the last"
            " addresses seen are kept"
        )
        better = "add its addresses, if the partner has fixed ones"
        yield placed.fault(("destinations",), _advice(wrong, better))


def _about_wildcards(placed: PlacedService, policy: Policy) -> Iterator[Fault]:
    """Yield the wildcards whose live connections a cut ends, as it does not know the addresses."""
    service, site = placed.service, policy.site
    kept = any(not level.passes_all and service.criticality in level.keeps for level in site.levels)
    if site.dns.mode is not DnsMode.CUT or not kept or set(service.zones) == {GATEWAY}:
        return
    for index, destination in enumerate(service.destinations):
        if destination.wildcards and not destination.networks:
            wrong = (
                f"a cut ends live connections of '{service.name}' to"
                f" '*.{destination.wildcards[0]}'; they work again once the machine has asked DNS"
                " again. To keep them: dns_gate: {mode: always} in site.yaml, or the partner's"
                " fixed addresses beside the wildcard"
            )
            yield placed.fault(("destinations", index, "to"), wrong)


def _about_destinations(
    placed: PlacedService, policy: Policy, inside: NetworkIndex[str]
) -> Iterator[Fault]:
    service = placed.service
    families = _families(service, policy)
    for index, destination in enumerate(service.destinations):
        names = destination.hosts or destination.wildcards
        if destination.private and not names:
            wrong = "'private' is about host names, and this destination has none: drop it"
            yield placed.fault(("destinations", index, "private"), wrong)
        if names and any(traffic.protocol == AH for traffic in destination.traffic):
            wrong = (
                f"'ah' of '{service.name}' is kept over IPv4 alone: over IPv6 it can't be told"
                " from what it carries"
            )
            better = "esp, or a name that has no IPv6 address"
            yield placed.fault(("destinations", index, "ports"), _advice(wrong, better))
        # One warning of each kind for a destination, at the first network that it is about.
        found: dict[str, list[tuple[int, str, str]]] = {}
        for place, network in placed.each_target(index):
            if isinstance(network, str):
                continue
            if warning := _about_network(service, network, families, inside):
                found.setdefault(warning[0], []).append((place, *warning[1:]))
        for places in found.values():
            place, wrong, better = places[0]
            others = len(places) - 1
            more = f" (and {others} more of this destination alike)" if others else ""
            text = _advice(wrong + more, better) if better else wrong + more
            yield placed.fault(placed.target_loc(index, place), text)


def _about_network(
    service: Service, network: IPNetwork, families: set[int], inside: NetworkIndex[str]
) -> tuple[str, str, str] | None:
    """Return the kind of warning, its text, and what would be better; None when there is none."""
    text = written(network)
    if is_wide(network):
        wrong = (
            f"'{service.name}' keeps '{text}' open, the whole internet or much of it, for these"
            " ports"
        )
        return text, wrong, ""
    zone = next((zone for _, zone in inside.containing(network)), None)
    if zone is not None:
        wrong = f"'{text}' lies inside zone '{zone}': traffic to it never crosses the gate"
        return "inside", wrong, "the partner's address outside"
    if network.version not in families:
        wrong = (
            f"'{text}' is of no use: the inside of '{service.name}' has no"
            f" IPv{network.version} subnet"
        )
        return "family", wrong, ""
    return None


def _about_protocols(placed: PlacedService, policy: Policy) -> Iterator[Fault]:
    """Yield what a gateway that names a protocol by number may have forgotten."""
    service = placed.service
    if GATEWAY not in service.zones:
        return
    heard = {
        traffic.protocol
        for destination in service.destinations
        if destination.direction is Direction.INBOUND
        for traffic in destination.traffic
    }
    groups = any(n.is_multicast for d in service.destinations for n in d.networks)
    for index, destination in enumerate(service.destinations):
        if destination.direction is Direction.INBOUND:
            continue
        peers = destination.hosts or any(not n.is_multicast for n in destination.networks)
        for place, traffic in enumerate(destination.traffic):
            if traffic.first is not None or traffic.protocol in WITHOUT_PORTS.values():
                continue
            loc, text = ("destinations", index, "ports", place), written_traffic(traffic)
            preset = Preset.OSPF in policy.site.lifeline.presets
            if traffic.protocol == OSPF and not preset and not groups:
                wrong = f"'{text}' of '{service.name}': OSPF finds its neighbours by groups"
                yield placed.fault(loc, _advice(wrong, "lifeline: {presets: [ospf]}"))
            elif peers and traffic.protocol not in heard:
                wrong = (
                    f"'{text}' of '{service.name}': a peer that speaks first, or after ten silent"
                    " minutes, is refused"
                )
                yield placed.fault(loc, _advice(wrong, "a second destination with 'from'"))


def _families(service: Service, policy: Policy) -> set[int]:
    """Return the address families of the service's inside (the gateway may have both)."""
    if GATEWAY in service.zones:
        return {4, 6}
    subnets = [n for zone in policy.site.zones if zone.name in service.zones for n in zone.subnets]
    return {network.version for network in chain(subnets, service.hosts)}
