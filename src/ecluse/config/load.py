"""The configuration directory as a policy: all of it right, or every fault of every file at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Lock
from typing import TypeVar

from ecluse.config.cross_checks import (
    PlacedService,
    gate_faults,
    in_order,
    level_faults,
    name_faults,
    protocol_faults,
    service_faults,
    zone_faults,
)
from ecluse.config.lint import LintResult, find_reviews, find_warnings
from ecluse.config.models import (
    AllowlistModel,
    DnsGateModel,
    LevelModel,
    SiteModel,
    Strict,
    ZoneModel,
)
from ecluse.config.read_files import allowlist_files, file_name, loose_mode, read_file
from ecluse.config.size_limits import service_bounds, site_bounds, zone_bounds
from ecluse.config.validate import MAX_FAULTS, service_at, validate
from ecluse.config.yaml_tree import Document, Entry, Items, Node, compose
from ecluse.errors import ConfigError
from ecluse.faults import Fault
from ecluse.gc_pause import without_gc
from ecluse.policy import CUT, ISOLATE, OPEN, Policy, Site
from ecluse.policy.network_index import NetworkIndex

M = TypeVar("M", bound=Strict)

SITE_FILE = "site.yaml"
ALLOWLIST = "allowlist.d"


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """A policy, and where its parts stand, for remarks with a place."""

    policy: Policy
    site: Document
    services: tuple[PlacedService, ...]
    remarks: tuple[Fault, ...]


def load_policy(directory: Path) -> Policy:
    """Read and validate `site.yaml` and `allowlist.d/*.yaml`.

    ConfigError with every fault of every file.

    Looks at no clock, asks no resolver, and waits for nothing but the disk.
    """
    return read_directory(directory).policy


@without_gc()
def remarks_of(loaded: ParsedConfig) -> LintResult:
    """Find what is odd but not wrong: review dates passed, services that overlap, and more."""
    always = (*loaded.remarks, *find_warnings(loaded.policy, loaded.site, loaded.services))
    return LintResult(always, tuple(find_reviews(loaded.services)))


def warnings_of(loaded: ParsedConfig, today: date) -> tuple[Fault, ...]:
    """Say what is odd but not wrong on that day, sorted by place."""
    return remarks_of(loaded).on(today)


class ConfigDirectory:
    """The configuration directory as the controller's `ports.PolicySource`."""

    def __init__(self, directory: Path, today: Callable[[], date] | None = None) -> None:
        """Name the directory.

        today: gives the day for review dates; the machine's own by default.
        """
        self._directory = directory
        self._today = today or (lambda: datetime.now(tz=UTC).astimezone().date())
        self._lock = Lock()
        self._unread: ParsedConfig | None = None
        self._remarks = LintResult((), ())
        self._warnings: tuple[date, tuple[Fault, ...]] = (date.min, ())

    def load(self) -> Policy:
        """Read and validate the files.

        ConfigError with every fault; the warnings then stay those of before.
        """
        loaded = read_directory(self._directory)
        with self._lock:
            self._unread = loaded
        return loaded.policy

    def fault_at(self, service: str, wrong: str, expected: str) -> Fault:
        """Give a fault at a service of what was just loaded; of the whole allowlist where it is not
        known.
        """
        with self._lock:
            loaded = self._unread
        for placed in loaded.services if loaded else ():
            if placed.model.name == service:
                return placed.fault(("name",), wrong, expected)
        return Fault(file_name(self._directory / ALLOWLIST), 0, 0, wrong, expected)

    def warnings(self) -> Sequence[Fault]:
        """Give what is odd but not wrong in what was loaded last, as of today; nothing before the
        first good load.

        The first call after a load looks for it (0.2 s for 100,000 addresses), so call it on a
        thread. It is not part of the load, because nothing waits for it.
        """
        with self._lock:
            today = self._today()
            if self._unread is not None:
                # Only this is kept: the places of all values are as large as the policy.
                self._remarks, self._unread = remarks_of(self._unread), None
            elif self._warnings[0] == today:
                return self._warnings[1]
            self._warnings = (today, self._remarks.on(today))
            return self._warnings[1]


@without_gc()
def read_directory(directory: Path) -> ParsedConfig:
    """Read and validate the files, keeping the places.

    ConfigError with every fault (at most 1,000 are listed).
    """
    faults: list[Fault] = []
    site_document = _document(directory / SITE_FILE, faults)
    site, zones, zones_complete = _site(site_document, faults)
    names = [zone.name for zone in zones] if zones_complete else None
    subnets = _subnets(zones) if zones_complete else None

    paths, bad_names, remarks = allowlist_files(directory / ALLOWLIST)
    faults += bad_names
    services: list[PlacedService] = []
    readable = _read_all(paths, services, remarks, faults) and not bad_names
    if readable and not services and not _any_service_fault(faults, paths):
        where = file_name(directory / ALLOWLIST)
        faults.append(
            Fault(
                where,
                0,
                0,
                "the allowlist is empty: 'cut' would keep nothing",
                "at least one service",
            )
        )
    faults += service_faults(services, names, subnets)
    gate = (_gate(site_document) if site_document else None) or DnsGateModel()
    faults += [*name_faults(services, gate), *protocol_faults(services)]
    own = site.levels if site else ()
    faults += service_bounds(
        services, gate, [each.keeps for each in own if each not in (OPEN, CUT, ISOLATE)]
    )
    if site_document is not None:
        faults += gate_faults(site_document, gate, subnets)
    if faults or site is None or site_document is None:
        raise ConfigError(_bounded(faults, directory))
    made = tuple(service.model.service() for service in services)
    needed = any(destination.wildcards for one in made for destination in one.destinations)
    policy = Policy(replace(site, dns=gate.gate(needed=needed)), made)
    loose = filter(
        None, map(loose_mode, (directory, directory / SITE_FILE, directory / ALLOWLIST, *paths))
    )
    return ParsedConfig(policy, site_document, tuple(services), (*remarks, *loose))


def _read_all(
    paths: Sequence[Path], services: list[PlacedService], remarks: list[Fault], faults: list[Fault]
) -> bool:
    """Add the services of all files.

    False when one can't be read; stops where nobody reads more faults.
    """
    readable = True
    for path in paths:
        if len(faults) >= MAX_FAULTS:
            where = file_name(path)
            faults.append(Fault(where, 0, 0, "not read yet: there are too many faults before it"))
            return False
        document = _allowlist(path, remarks, faults)
        if document is None or not _services(document, services, faults):
            readable = False
    return readable


def _any_service_fault(faults: list[Fault], paths: list[Path]) -> bool:
    files = {file_name(path) for path in paths}
    return any(fault.file in files for fault in faults)


def _bounded(faults: list[Fault], directory: Path) -> tuple[Fault, ...]:
    listed = sorted(set(faults))
    if len(listed) <= MAX_FAULTS:
        return tuple(listed)
    rest = Fault(
        file_name(directory),
        0,
        0,
        f"more than {MAX_FAULTS} faults: the rest is not listed here, nor looked for",
    )
    return (*listed[:MAX_FAULTS], rest)


def _document(path: Path, faults: list[Fault]) -> Document | None:
    data = read_file(path)
    if isinstance(data, Fault):
        faults.append(data)
        return None
    document, found = compose(file_name(path), data)
    faults += found
    return document


def _allowlist(path: Path, remarks: list[Fault], faults: list[Fault]) -> Document | None:
    """Give a file of the allowlist; one of comments alone is remarked on, and counts as one without
    services.
    """
    data = read_file(path)
    if isinstance(data, Fault):
        faults.append(data)
        return None
    name = file_name(path)
    document, found = compose(name, data, comments=True)
    faults += found
    if document is None and not found:
        remarks.append(Fault(name, 1, 1, "nothing but comments: this file keeps no service"))
        return Document(name, Node(1, 1, {"services": Entry(1, 1, Node(1, 1, Items()))}))
    return document


def _site(
    document: Document | None, faults: list[Fault]
) -> tuple[Site | None, list[ZoneModel], bool]:
    """Give the site, the zones that are right in themselves, and whether that is all of them."""
    if document is None:
        return None, [], False
    model, found = validate(SiteModel, document)
    faults += found
    zones = _each(ZoneModel, document, "zones")
    levels = _each(LevelModel, document, "levels")
    faults += zone_faults(document, zones)
    faults += level_faults(document, levels)
    faults += zone_bounds(document, zones)
    faults += site_bounds(document, model) if model else ()
    if model is None:
        node = document.at(("zones",))
        complete = (
            node is not None
            and isinstance(node.content, Items)
            and 0 < len(node.content) == len(zones)
        )
        return None, [zone for _, zone in zones], complete
    site = Site(
        model.site,
        model.title or model.site,
        tuple(zone.zone() for zone in model.zones),
        model.lifeline.lifeline(),
        model.resolvers,
        in_order(model.levels),
    )
    return site, list(model.zones), True


def _gate(document: Document) -> DnsGateModel | None:
    """Give the DNS gate's part of the site's file where it is right in itself; None when it is
    absent or at fault.
    """
    return validate(DnsGateModel, document, ("dns_gate",))[0]


def _each(model: type[M], document: Document, key: str) -> list[tuple[int, M]]:
    """Give the items of a list that are right in themselves; the faults of the others are said
    elsewhere.
    """
    node = document.at((key,))
    count = len(node.content) if node and isinstance(node.content, Items) else 0
    read = ((index, validate(model, document, (key, index))[0]) for index in range(count))
    return [(index, item) for index, item in read if item is not None]


def _services(document: Document, services: list[PlacedService], faults: list[Fault]) -> bool:
    """Add a file's services. False when its list of services can't be read at all."""
    _, found = validate(AllowlistModel, document)
    faults += found
    node = document.at(("services",))
    if node is None or not isinstance(node.content, Items):
        return False
    for index in range(len(node.content)):
        if len(faults) > MAX_FAULTS:
            return False
        loc = ("services", index)
        model, found = service_at(document, loc)
        faults += found
        if model is not None:
            services.append(PlacedService(document, loc, model))
    return True


def _subnets(zones: Sequence[ZoneModel]) -> NetworkIndex[str]:
    index: NetworkIndex[str] = NetworkIndex()
    for zone in zones:
        for network in zone.subnets:
            index.add(network, zone.name)
    return index
