"""The form of `site.yaml` and `allowlist.d/*.yaml`: which keys there are, and how each is read.

Each form makes the policy's own value; there is no second type for what stands in a file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from ecluse.config import address_parsers, parsers
from ecluse.config.messages import InvalidValueError, listed
from ecluse.config.parsers import Target
from ecluse.config.schema import Faults, Form, Key, ListOf, Scalar, Unread, form
from ecluse.config.yaml_tree import Entry, Node
from ecluse.policy import (
    CUT,
    GATEWAY,
    ISOLATE,
    OPEN,
    Criticality,
    Destination,
    Direction,
    DnsLimits,
    DnsMode,
    FastPath,
    InternalDomains,
    IPNetwork,
    Level,
    Lifeline,
    LinkProtocol,
    Preset,
    SecondLock,
    Service,
    Traffic,
    Zone,
)
from ecluse.ruleset.table_names import ELSEWHERE

E = TypeVar("E", bound=StrEnum)

TITLE_LIMIT = 120
CONTACT_LIMIT = 200
NOTE_LIMIT = 2000


def _choice(words: type[StrEnum]) -> Scalar:
    return Scalar(lambda text: words(parsers.one_of(text, tuple(words))), listed(words))


def _number(low: int, high: int) -> Scalar:
    expected = f"a whole number, {low} to {high}"

    def parse(number: int) -> int:
        if not low <= number <= high:
            raise InvalidValueError(str(number), expected)
        return number

    return Scalar(parse, expected, (int,))


def _name_but(*reserved: str) -> Scalar:
    def parse(text: str) -> str:
        if text in reserved:
            raise InvalidValueError(f"the name '{text}' is Écluse's own", "another name")
        return parsers.name(text)

    return Scalar(parse, "a name")


def _management_networks(unbounded: bool) -> ListOf:
    def parse(text: str) -> IPNetwork:
        return address_parsers.unicast(address_parsers.prefix(text), unbounded=unbounded)

    return ListOf(Scalar(parse, "an address or a prefix"))


_NAME = Scalar(parsers.name, "a name")
_TITLE = Scalar(partial(parsers.line, limit=TITLE_LIMIT), "a text")
_CONTACT = Scalar(partial(parsers.line, limit=CONTACT_LIMIT), "a text")
_NOTE = Scalar(partial(parsers.paragraph, limit=NOTE_LIMIT), "a text")
_CRITICALITY = _choice(Criticality)
_FLAG = Scalar(bool, "true or false", (bool,))
_DAY = Scalar(parsers.day, parsers.DAY_FORM, (date, str))
_INTERFACE = Scalar(parsers.interface, "an interface name")
_SUBNET = Scalar(address_parsers.subnet, "an address or a prefix")
_PREFIX = Scalar(address_parsers.prefix, "an address or a prefix")
_SERVER = Scalar(address_parsers.resolver, "the address of a DNS server")
_DOMAIN = Scalar(parsers.domain, "a domain such as hospital.example or 10.in-addr.arpa")
_RECORD = Scalar(parsers.record_type, listed(parsers.RECORD_TYPES))
_TRAFFIC = Scalar(parsers.traffic, "a protocol and port such as tcp/443")
_PORTS = Key(ListOf(_TRAFFIC), required=True)
_MANAGEMENT_PORT = Scalar(parsers.management_port, "a protocol and port such as tcp/22")


@dataclass(frozen=True, slots=True)
class _ByUnbounded:
    """A mapping whose networks are judged by its own key `unbounded`."""

    bounded: Form
    unbounded: Form

    @property
    def keys(self) -> Mapping[str, Key]:
        """Return every key that it may have."""
        return self.bounded.keys

    def value_at(self, node: Node, faults: Faults) -> Any:
        """Return the value, or INVALID after its faults were added."""
        entry = node.content.get("unbounded") if isinstance(node.content, dict) else None
        # A wrong `unbounded` has its own fault; the networks beside it are not judged by a guess.
        bounded = entry is None or entry.node.content is False
        return (self.bounded if bounded else self.unbounded).value_at(node, faults)


def _by_unbounded(make: Callable[[bool], Form]) -> _ByUnbounded:
    return _ByUnbounded(make(False), make(True))


def _zone(name: str, **values: Any) -> Zone:
    return Zone(**{"name": name, "title": name, **values})


def _level(name: str, keeps: tuple[Criticality, ...], title: str = "") -> Level:
    return Level(name, title or name, frozenset(keeps))


def _lifeline(
    management: Mapping[str, Any] | None = None,
    presets: tuple[Preset, ...] = (),
    link: tuple[LinkProtocol, ...] = (),
) -> Lifeline:
    if management is None:
        return Lifeline((), (), presets, link)
    return Lifeline(management["networks"], management["ports"], presets, link)


ZONE = form(
    _zone,
    name=Key(_name_but(GATEWAY, ELSEWHERE), required=True),
    title=Key(_TITLE),
    interfaces=Key(ListOf(_INTERFACE), required=True),
    subnets=Key(ListOf(_SUBNET), required=True),
)
LEVEL = form(
    _level,
    name=Key(_name_but(OPEN.name, CUT.name, ISOLATE.name), required=True),
    title=Key(_TITLE),
    keeps=Key(ListOf(_CRITICALITY), required=True),
)
MANAGEMENT = _by_unbounded(
    lambda unbounded: form(
        dict,
        unbounded=Key(_FLAG),
        networks=Key(_management_networks(unbounded), required=True),
        ports=Key(ListOf(_MANAGEMENT_PORT), required=True),
    )
)
LIFELINE = form(
    _lifeline,
    management=Key(MANAGEMENT, null=True),
    presets=Key(ListOf(_choice(Preset), empty=True)),
    link=Key(ListOf(_choice(LinkProtocol), empty=True)),
)
INTERNAL = form(
    InternalDomains,
    names=Key(ListOf(_DOMAIN), required=True),
    servers=Key(ListOf(_SERVER), required=True),
)
LIMITS = form(
    DnsLimits,
    client_queries=Key(_number(1, 10_000)),
    wildcard_names=Key(_number(1, 10_000)),
    label=Key(_number(1, 63)),  # RFC 1035, 2.3.4
    name=Key(_number(10, 253)),
)
DNS_GATE = form(
    dict,  # of DnsProxySettings: without `mode` it takes a look at the services
    mode=Key(_choice(DnsMode), null=True),
    # Above what needs a privilege; the next one is taken too.
    port=Key(_number(1024, 65534)),
    internal=Key(ListOf(INTERNAL, empty=True)),
    limits=Key(LIMITS),
)
SITE = form(
    dict,  # zones and levels are read one by one: the right ones count where others are at fault
    site=Key(_NAME, required=True),
    title=Key(_TITLE),
    zones=Key(ListOf(Unread()), required=True),
    lifeline=Key(LIFELINE),
    resolvers=Key(ListOf(_SERVER, empty=True)),
    levels=Key(ListOf(Unread(), empty=True)),
    dns_gate=Key(DNS_GATE),
    fast_path=Key(_choice(FastPath)),
    second_lock=Key(_choice(SecondLock)),
)


def _destination(
    ports: tuple[Traffic, ...],
    unbounded: bool = False,
    **values: Any,
) -> tuple[Destination, tuple[Target, ...]]:
    """Return the policy's value, and the targets in the order of the file."""
    del unbounded
    outward, inward = values.pop("to", None), values.pop("from", ())
    targets = inward if outward is None else outward
    hosts: list[str] = []
    wildcards: list[str] = []
    networks: list[IPNetwork] = []
    for target in targets:
        if isinstance(target, tuple):
            networks += target
        elif not isinstance(target, str):
            networks.append(target)
        elif target.startswith(parsers.WILDCARD):
            wildcards.append(target.removeprefix(parsers.WILDCARD))
        else:
            hosts.append(target)
    value = Destination(
        Direction.INBOUND if outward is None else Direction.OUTBOUND,
        tuple(hosts),
        tuple(networks),
        ports,
        wildcards=tuple(wildcards),
        **values,
    )
    return value, targets


def _one_way(node: Node, entries: Mapping[str, Entry], faults: Faults) -> bool:
    if "to" in entries and "from" in entries:
        faults.add(entries["from"], "'to' and 'from' in one destination", "two destinations")
    elif "to" not in entries and "from" not in entries:
        faults.add(node, "neither 'to' nor 'from'", "one of the two")
    else:
        return True
    return False


def _service(
    destinations: tuple[tuple[Destination, tuple[Target, ...]], ...], **values: Any
) -> tuple[Service, tuple[tuple[Target, ...], ...]]:
    """Return the policy's value, and each destination's targets in the order of the file."""
    made, targets = zip(*destinations, strict=True)
    optional = {"owner": "", "contact": "", "zones": (), "hosts": ()}
    return Service(**{**optional, **values}, destinations=made), targets


def _for_somebody(node: Node, entries: Mapping[str, Entry], faults: Faults) -> bool:
    if "zones" in entries or "hosts" in entries:
        return True
    faults.add(node, "neither 'zones' nor 'hosts'", "who inside may use the service")
    return False


def _targets(unbounded: bool) -> ListOf:
    target = partial(parsers.target, unbounded=unbounded)
    return ListOf(Scalar(target, "a host name, an address or a prefix"), bare=True)


DESTINATION = _by_unbounded(
    lambda unbounded: form(
        _destination,
        _one_way,
        unbounded=Key(_FLAG),
        private=Key(_FLAG),
        **dict.fromkeys(("to", "from"), Key(_targets(unbounded))),
        ports=_PORTS,
        records=Key(ListOf(_RECORD, empty=True)),
    )
)
SERVICE = form(
    _service,
    _for_somebody,
    name=Key(_NAME, required=True),
    title=Key(_TITLE, required=True),
    owner=Key(_TITLE),
    contact=Key(_CONTACT),
    criticality=Key(_CRITICALITY, required=True),
    zones=Key(ListOf(_NAME)),
    hosts=Key(ListOf(_PREFIX)),
    destinations=Key(ListOf(DESTINATION), required=True),
    review=Key(_DAY, null=True),
    note=Key(_NOTE),
)
ALLOWLIST_FILE = form(dict, services=Key(ListOf(Unread(), empty=True), required=True))
"""A file of `allowlist.d/`; its services are read one by one, so that one fault hides no other."""
