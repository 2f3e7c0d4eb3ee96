"""The configuration directory -> a policy, or every fault of every file at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from ecluse.config.cross_checks import (
    PlacedService,
    dns_faults,
    group_faults,
    in_order,
    level_faults,
    name_faults,
    protocol_faults,
    service_faults,
    zone_faults,
)
from ecluse.config.file_schemas import ALLOWLIST_FILE, LEVEL, SERVICE, SITE, ZONE
from ecluse.config.lint import LintResult, find_reviews, find_warnings
from ecluse.config.read_files import allowlist_files, file_name, loose_mode, read_file
from ecluse.config.schema import INVALID, MAX_FAULTS, Faults, Form
from ecluse.config.size_limits import service_bounds, site_bounds, zone_bounds
from ecluse.config.yaml_tree import Document, Entry, Items, Node, compose
from ecluse.errors import ConfigError
from ecluse.faults import Fault
from ecluse.gc_pause import without_gc
from ecluse.policy import (
    DnsMode,
    DnsProxySettings,
    FastPath,
    Level,
    Lifeline,
    Policy,
    SecondLock,
    Site,
    Zone,
)
from ecluse.policy.network_index import NetworkIndex

SITE_FILE = "site.yaml"
ALLOWLIST = "allowlist.d"


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """A policy, and where its parts stand in the files, for warnings with a place."""

    policy: Policy
    site: Document
    services: tuple[PlacedService, ...]
    warnings: tuple[Fault, ...]


def load_policy(directory: Path) -> Policy:
    """Read and validate `site.yaml` and `allowlist.d/*.yaml`.

    It looks at no clock and asks no resolver.

    Raises:
        ConfigError: with every fault of every file.
    """
    return read_directory(directory).policy


@without_gc()
def lint_policy(loaded: ParsedConfig) -> LintResult:
    """Find what is right and may still fail at a cut: services that overlap, and more."""
    always = (*loaded.warnings, *find_warnings(loaded.policy, loaded.site, loaded.services))
    return LintResult(always, tuple(find_reviews(loaded.services)))


def warnings_of(loaded: ParsedConfig, today: date) -> tuple[Fault, ...]:
    """Return the warnings of that day, sorted by place."""
    return lint_policy(loaded).on(today)


class ConfigDirectory:
    """The configuration directory as the controller's `ports.PolicySource`."""

    def __init__(self, directory: Path, today: Callable[[], date] | None = None) -> None:
        """Remember the directory.

        Args:
            directory: with `site.yaml` and `allowlist.d`.
            today: returns the day that review dates are compared with; by default the machine's.
        """
        self._directory = directory
        self._today = today or (lambda: datetime.now(tz=UTC).astimezone().date())
        self._lock = Lock()
        self._unread: ParsedConfig | None = None
        self._lint = LintResult((), ())
        self._warnings: tuple[date, tuple[Fault, ...]] = (date.min, ())

    def load(self) -> Policy:
        """Read and validate the files.

        Raises:
            ConfigError: with every fault; the warnings then stay those of before.
        """
        loaded = read_directory(self._directory)
        with self._lock:
            self._unread = loaded
        return loaded.policy

    def fault_at(self, service: str, wrong: str, expected: str) -> Fault:
        """Return a fault at a service that was just loaded, or at the allowlist if it has none."""
        with self._lock:
            loaded = self._unread
        for placed in loaded.services if loaded else ():
            if placed.service.name == service:
                return placed.fault(("name",), wrong, expected)
        return Fault(file_name(self._directory / ALLOWLIST), 0, 0, wrong, expected)

    def warnings(self) -> Sequence[Fault]:
        """Return today's warnings about the files loaded last; none before the first good load.

        The first call after a load takes 0.2 s for 100,000 addresses, so call it on a thread. The
        load itself does without them, as no command waits for warnings.
        """
        with self._lock:
            today = self._today()
            if self._unread is not None:
                # Only this is kept: the places of all values are as large as the policy.
                self._lint, self._unread = lint_policy(self._unread), None
            elif self._warnings[0] == today:
                return self._warnings[1]
            self._warnings = (today, self._lint.on(today))
            return self._warnings[1]


@without_gc()
def read_directory(directory: Path) -> ParsedConfig:
    """Read and validate the files, and keep the place of each value.

    Raises:
        ConfigError: with every fault, of which 1,000 are listed at most.
    """
    faults: list[Fault] = []
    site_document = _document(directory / SITE_FILE, faults)
    site = _site(site_document, faults) if site_document else _SiteParts()
    names = [zone.name for zone in site.zones] if site.all_zones else None
    subnets = _subnets(site.zones) if site.all_zones else None

    paths, bad_names, warnings = allowlist_files(directory / ALLOWLIST)
    faults += bad_names
    services: list[PlacedService] = []
    readable = _add_services_of_all(paths, services, warnings, faults) and not bad_names
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
    wild = any(d.wildcards for one in services for d in one.service.destinations)
    # Without `mode`: on at a cut where a service needs it, which has a wildcard.
    mode = DnsMode.CUT if wild else DnsMode.NEVER
    dns = DnsProxySettings(**{"mode": mode, **site.dns_gate})
    faults += [*name_faults(services, dns), *protocol_faults(services), *group_faults(services)]
    faults += service_bounds(services, dns, [level.keeps for level in site.levels])
    if site_document is not None:
        faults += dns_faults(site_document, dns, subnets)
    if faults or site.whole is None or site_document is None:
        raise ConfigError(_bounded(faults, directory))
    policy = Policy(replace(site.whole, dns=dns), tuple(one.service for one in services))
    loose = filter(
        None, map(loose_mode, (directory, directory / SITE_FILE, directory / ALLOWLIST, *paths))
    )
    return ParsedConfig(policy, site_document, tuple(services), (*warnings, *loose))


def _add_services_of_all(
    paths: Sequence[Path], services: list[PlacedService], warnings: list[Fault], faults: list[Fault]
) -> bool:
    """Add the services of all files; False when one can't be read.

    It stops at 1,000 faults, since no more are listed.
    """
    readable = True
    for path in paths:
        if len(faults) >= MAX_FAULTS:
            where = file_name(path)
            faults.append(Fault(where, 0, 0, "not read yet: there are too many faults before it"))
            return False
        document = _allowlist(path, warnings, faults)
        if document is None or not _add_services(document, services, faults):
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


def _allowlist(path: Path, warnings: list[Fault], faults: list[Fault]) -> Document | None:
    """Return a file of the allowlist.

    A file of comments alone gets a warning, and counts as one without services.
    """
    data = read_file(path)
    if isinstance(data, Fault):
        faults.append(data)
        return None
    name = file_name(path)
    document, found = compose(name, data, comments=True)
    faults += found
    if document is None and not found:
        warnings.append(Fault(name, 1, 1, "nothing but comments: this file keeps no service"))
        return Document(name, Node(1, 1, {"services": Entry(1, 1, Node(1, 1, Items()))}))
    return document


@dataclass(slots=True)
class _SiteParts:
    """What is right in `site.yaml`.

    Attributes:
        whole: the site, less `dns`; None when anything in the file is at fault.
        all_zones: whether `zones` are all that the file has.
        levels: the site's own.
        dns_gate: the values that the file gives DnsProxySettings.
    """

    whole: Site | None = None
    zones: tuple[Zone, ...] = ()
    all_zones: bool = False
    levels: tuple[Level, ...] = ()
    dns_gate: dict[str, Any] = field(default_factory=dict)


def _site(document: Document, faults: list[Fault]) -> _SiteParts:
    here = Faults(document.file, faults)
    values, whole = SITE.values_at(document.root, here)
    zones = _each(ZONE, values.get("zones", ()), here)
    levels = _each(LEVEL, values.get("levels", ()), here)
    faults += zone_faults(document, zones)
    faults += level_faults(document, levels)
    faults += zone_bounds(document, zones)
    parts = _SiteParts(
        zones=tuple(zone for _, zone in zones),
        all_zones="zones" in values and len(zones) == len(values["zones"]),
        dns_gate=values.get("dns_gate", {}),
    )
    if whole and parts.all_zones and len(levels) == len(values.get("levels", ())):
        parts.levels = tuple(level for _, level in levels)
        parts.whole = Site(
            values["site"],
            values.get("title", values["site"]),
            parts.zones,
            values.get("lifeline", Lifeline((), (), ())),
            values.get("resolvers", ()),
            in_order(parts.levels),
            fast_path=values.get("fast_path", FastPath.CHAINS),
            second_lock=values.get("second_lock", SecondLock.ISOLATE),
        )
        faults += site_bounds(document, parts.whole, parts.dns_gate.get("internal", ()))
    return parts


def _each(form: Form, nodes: Sequence[Node], faults: Faults) -> list[tuple[int, Any]]:
    """Return the items of a list that are right in themselves, each with its position."""
    values = ((index, form.value_at(node, faults)) for index, node in enumerate(nodes))
    return [(index, value) for index, value in values if value is not INVALID]


def _add_services(document: Document, services: list[PlacedService], faults: list[Fault]) -> bool:
    """Add a file's services; False when its list of services can't be read at all."""
    here = Faults(document.file, faults)
    values, _ = ALLOWLIST_FILE.values_at(document.root, here)
    for index, node in enumerate(values.get("services", ())):
        if here.too_many():
            return False
        read = SERVICE.value_at(node, here)
        if read is not INVALID:
            services.append(PlacedService(document, ("services", index), *read))
    return "services" in values


def _subnets(zones: Sequence[Zone]) -> NetworkIndex[str]:
    index: NetworkIndex[str] = NetworkIndex()
    for zone in zones:
        for network in zone.subnets:
            index.add(network, zone.name)
    return index
