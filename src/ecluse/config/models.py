"""The files' form as strict models; `validate.py` turns what they refuse into faults with a place."""

from collections.abc import Callable, Iterator
from datetime import date
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from ecluse.config import address_parsers, parsers
from ecluse.config.messages import InvalidValueError, listed, shown
from ecluse.config.parsers import Target
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
    DnsProxySettings,
    InternalDomains,
    IPAddress,
    IPNetwork,
    Level,
    Lifeline,
    Preset,
    Service,
    Traffic,
    Zone,
)
from ecluse.ruleset.table_names import ELSEWHERE

T = TypeVar("T")

_GATE = DnsProxySettings()

TITLE_LIMIT = 120
CONTACT_LIMIT = 200
NOTE_LIMIT = 2000


def _wrong(wrong: str, expected: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "wrong", {"wrong": wrong, "expected": expected})


def _kind(expected: str) -> PydanticCustomError:
    return PydanticCustomError("kind", "kind", {"expected": expected})


def _read(parse: Callable[[str], T], expected: str) -> PlainValidator:
    """Make a validator from a function that reads text; anything but text is the wrong kind."""

    def validate(value: object) -> T:
        if not isinstance(value, str):
            raise _kind(expected)
        try:
            return parse(value)
        except InvalidValueError as error:
            raise _wrong(error.wrong, error.expected) from None

    return PlainValidator(validate)


def _day(value: object) -> date:
    try:
        return parsers.day(value)
    except InvalidValueError as error:
        raise _wrong(error.wrong, error.expected) from None
    except TypeError:
        raise _kind("a date such as 2027-01-31") from None


def _target(value: object, info: ValidationInfo) -> Target:
    if not isinstance(value, str):
        raise _kind("a host name, an address or a prefix")
    # A wrong `unbounded` has its own fault; what it was meant to say is not guessed.
    unbounded = bool(info.data.get("unbounded", True))
    try:
        return parsers.target(value, unbounded=unbounded)
    except InvalidValueError as error:
        raise _wrong(error.wrong, error.expected) from None


def _management(value: object, info: ValidationInfo) -> IPNetwork:
    if not isinstance(value, str):
        raise _kind("an address or a prefix")
    try:
        return address_parsers.unicast(
            address_parsers.prefix(value), unbounded=bool(info.data.get("unbounded", True))
        )
    except InvalidValueError as error:
        raise _wrong(error.wrong, error.expected) from None


def _not_empty(value: object) -> object:
    if value == ():
        raise _wrong("an empty list", "at least one")
    return value


def _list_of_one(value: object) -> object:
    return value if value is None or isinstance(value, tuple) else (value,)


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) == len(values):
        return values
    seen: set[T] = set()
    twice: list[tuple[int, str]] = []
    for place, value in enumerate(values):
        if value in seen:
            twice.append((place, f"{shown(_written(value))} stands twice in this list"))
        seen.add(value)
    # One error for all of them, as pydantic takes one of a validator; `validate.py` gives each its
    # place.
    raise PydanticCustomError("twice", "twice", {"twice": twice})


def _written(value: object) -> str:
    """Give a parsed value as a person would write it."""
    if isinstance(value, Traffic):
        names = {
            number: word for word, number in (parsers.WITH_PORTS | parsers.WITHOUT_PORTS).items()
        }
        ports = f"/{value.first}" + (f"-{value.last}" if value.last != value.first else "")
        return names[value.protocol] + (ports if value.first else "")
    if isinstance(value, tuple):
        return " and ".join(map(_written, value))
    return (
        address_parsers.written(value)
        if isinstance(value, IPv4Network | IPv6Network)
        else str(value)
    )


def _between(low: int, high: int) -> PlainValidator:
    """Make a validator of whole numbers within bounds."""
    expected = f"a whole number, {low} to {high}"

    def validate(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _kind(expected)
        if not low <= value <= high:
            raise _wrong(str(value), expected)
        return value

    return PlainValidator(validate)


def _name_but(*reserved: str) -> PlainValidator:
    def parse(text: str) -> str:
        if text in reserved:
            raise InvalidValueError(f"the name '{text}' is Écluse's own", "another name")
        return parsers.name(text)

    return _read(parse, "a name")


_Name = Annotated[str, _read(parsers.name, "a name")]
_ZoneName = Annotated[str, _name_but(GATEWAY, ELSEWHERE)]
_LevelName = Annotated[str, _name_but(OPEN.name, CUT.name, ISOLATE.name)]
_Title = Annotated[str, _read(lambda text: parsers.line(text, TITLE_LIMIT), "a text")]
_Contact = Annotated[str, _read(lambda text: parsers.line(text, CONTACT_LIMIT), "a text")]
_Note = Annotated[str, _read(lambda text: parsers.paragraph(text, NOTE_LIMIT), "a text")]
_Criticality = Annotated[
    Criticality,
    _read(lambda text: Criticality(parsers.one_of(text, tuple(Criticality))), listed(Criticality)),
]
_Preset = Annotated[
    Preset, _read(lambda text: Preset(parsers.one_of(text, tuple(Preset))), listed(Preset))
]
_Interface = Annotated[str, _read(parsers.interface, "an interface name")]
_Subnet = Annotated[IPNetwork, _read(address_parsers.subnet, "an address or a prefix")]
_Prefix = Annotated[IPNetwork, _read(address_parsers.prefix, "an address or a prefix")]
_Resolver = Annotated[IPAddress, _read(address_parsers.resolver, "the address of a DNS server")]
_Mode = Annotated[
    DnsMode, _read(lambda text: DnsMode(parsers.one_of(text, tuple(DnsMode))), listed(DnsMode))
]
_Domain = Annotated[
    str, _read(parsers.domain, "a domain such as hospital.example or 10.in-addr.arpa")
]
_Record = Annotated[str, _read(parsers.record_type, listed(parsers.RECORD_TYPES))]
_Traffic = Annotated[Traffic, _read(parsers.traffic, "a protocol and port such as tcp/443")]
_Target = Annotated[Target, PlainValidator(_target)]
_Management = Annotated[IPNetwork, PlainValidator(_management)]
_Day = Annotated[date, PlainValidator(_day)]
_Number = Annotated[int, _between(1, 10_000)]
_Label = Annotated[int, _between(1, 63)]  # RFC 1035, 2.3.4
_Length = Annotated[int, _between(10, 253)]
_Port = Annotated[
    int, _between(1024, 65534)
]  # above what needs a privilege; the next one is taken too
# The order matters: the list is checked to be non-empty before its items, to be distinct after
# them.
_Some = Annotated[tuple[T, ...], AfterValidator(_distinct), BeforeValidator(_not_empty)]
_OneOrSome = Annotated[_Some[T], BeforeValidator(_list_of_one)]


class Strict(BaseModel):
    """No key but these, no conversion of types, no change afterwards."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True
    )


class ZoneModel(Strict):
    """A zone of `site.yaml`."""

    name: _ZoneName
    title: _Title = ""
    interfaces: _Some[_Interface]
    subnets: _Some[_Subnet]

    def zone(self) -> Zone:
        """Give the policy's value."""
        return Zone(self.name, self.title or self.name, self.interfaces, self.subnets)


class ManagementModel(Strict):
    """Who may always reach the gateway itself, and on which ports."""

    unbounded: bool = False  # first: the networks are judged by it
    networks: _Some[_Management]
    ports: _Some[_Traffic]


class LifelineModel(Strict):
    """What no level ever cuts."""

    management: ManagementModel | None = None
    presets: Annotated[tuple[_Preset, ...], AfterValidator(_distinct)] = ()

    def lifeline(self) -> Lifeline:
        """Give the policy's value."""
        if self.management is None:
            return Lifeline((), (), self.presets)
        return Lifeline(self.management.networks, self.management.ports, self.presets)


class LevelModel(Strict):
    """A level of the site's own, between `open` and `cut`."""

    name: _LevelName
    title: _Title = ""
    keeps: _Some[_Criticality]

    def level(self) -> Level:
        """Give the policy's value."""
        return Level(self.name, self.title or self.name, frozenset(self.keeps))


class InternalModel(Strict):
    """Names that the inside's own DNS servers answer for."""

    names: _Some[_Domain]
    servers: _Some[_Resolver]


class LimitsModel(Strict):
    """Bounds of what may be asked of the DNS gate."""

    client_queries: _Number = _GATE.limits.client_queries
    wildcard_names: _Number = _GATE.limits.wildcard_names
    label: _Label = _GATE.limits.label
    name: _Length = _GATE.limits.name


class DnsGateModel(Strict):
    """How the gateway answers the zones' DNS.

    No mode: `cut` where a service needs it, which has a wildcard.
    """

    mode: _Mode | None = None
    port: _Port = _GATE.port
    internal: tuple[InternalModel, ...] = ()
    limits: LimitsModel = LimitsModel()

    def gate(self, *, needed: bool) -> DnsProxySettings:
        """Give the policy's value. needed: a service has a wildcard."""
        limits = self.limits
        return DnsProxySettings(
            self.mode or (DnsMode.CUT if needed else DnsMode.NEVER),
            self.port,
            tuple(InternalDomains(each.names, each.servers) for each in self.internal),
            DnsLimits(limits.client_queries, limits.wildcard_names, limits.label, limits.name),
        )


class SiteModel(Strict):
    """The whole of `site.yaml`."""

    site: _Name
    title: _Title = ""
    zones: _Some[ZoneModel]
    lifeline: LifelineModel = LifelineModel()
    resolvers: Annotated[tuple[_Resolver, ...], AfterValidator(_distinct)] = ()
    levels: tuple[LevelModel, ...] = ()
    dns_gate: DnsGateModel = DnsGateModel()


class DestinationModel(Strict):
    """The outside end of a service, with exactly one of `to` and `from` (see validate.py)."""

    unbounded: bool = False  # first: the targets are judged by it
    private: bool = False
    to: _OneOrSome[_Target] = ()
    from_: _OneOrSome[_Target] = Field(default=(), alias="from")
    ports: _Some[_Traffic]
    records: Annotated[tuple[_Record, ...], AfterValidator(_distinct)] = ()

    @property
    def direction(self) -> Direction:
        """Say who opens the connection."""
        return Direction.OUTBOUND if self.to else Direction.INBOUND

    @property
    def key(self) -> str:
        """Name the key that holds the targets."""
        return "to" if self.to else "from"

    def each(self) -> Iterator[tuple[int, str | IPNetwork]]:
        """Give every target's position in the list and what it stands for (`any` stands for two
        networks).
        """
        for place, target in enumerate(self.to or self.from_):
            if isinstance(target, tuple):
                yield from ((place, network) for network in target)
            else:
                yield place, target

    def destination(self) -> Destination:
        """Give the policy's value."""
        values = [value for _, value in self.each()]
        written = [value for value in values if isinstance(value, str)]
        wild = [value for value in written if value.startswith(parsers.WILDCARD)]
        return Destination(
            self.direction,
            tuple(value for value in written if value not in wild),
            tuple(value for value in values if not isinstance(value, str)),
            self.ports,
            private=self.private,
            wildcards=tuple(value.removeprefix(parsers.WILDCARD) for value in wild),
            records=self.records,
        )


class ServiceModel(Strict):
    """A service of the allowlist, with at least one of `zones` and `hosts` (see validate.py)."""

    name: _Name
    title: _Title
    owner: _Title = ""
    contact: _Contact = ""
    criticality: _Criticality
    zones: _Some[_Name] = ()
    hosts: _Some[_Prefix] = ()
    destinations: Annotated[tuple[DestinationModel, ...], BeforeValidator(_not_empty)]
    review: _Day | None = None
    note: _Note = ""

    def service(self) -> Service:
        """Give the policy's value."""
        return Service(
            self.name,
            self.title,
            self.owner,
            self.contact,
            self.criticality,
            self.zones,
            self.hosts,
            tuple(model.destination() for model in self.destinations),
            self.review,
            self.note,
        )


class AllowlistModel(Strict):
    """A file of `allowlist.d/`; each service is validated by itself, so that one fault hides no
    other.
    """

    services: tuple[Any, ...]
