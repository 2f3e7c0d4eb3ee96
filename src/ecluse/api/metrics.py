"""`GET /metrics`: the status as Prometheus reads it (text exposition format 0.0.4)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ecluse.extensions import EXTENSIONS, Extension
from ecluse.results import ServiceStatus, Status

MEDIA = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class SocketCounts:
    """What the server counts about its socket.

    connections: open now, by pool. `turned_away`, `forbidden`: since it started.
    """

    connections: Mapping[str, int]
    turned_away: int
    forbidden: int


def metrics_text(status: Status, socket: SocketCounts) -> bytes:
    """Write every metric of one status."""
    # A registry of its own: the library's collectors of this process stay out.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(status, socket))
    return generate_latest(registry)


@dataclass(frozen=True, slots=True, eq=False)
class _Snapshot(Collector):
    status: Status
    socket: SocketCounts

    def collect(self) -> Iterator[Metric]:
        yield from _gate(self.status)
        yield from _services(self.status.services)
        yield from _names(self.status.services)
        yield from _socket(self.socket)


def _gate(status: Status) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "ecluse", "The site and this version.", {"site": status.site, "version": status.version}
    )
    level = GaugeMetricFamily(
        "ecluse_level", "1 for the level that the zone has.", labels=("zone", "level")
    )
    is_open = GaugeMetricFamily(
        "ecluse_zone_open", "1 when everything of the zone passes.", labels=("zone",)
    )
    for zone, name in sorted(status.levels.items()):
        level.add_metric((zone, name), 1)
        is_open.add_metric((zone,), float(name == "open"))
    yield level
    yield is_open
    yield _gauge("ecluse_generation", "Number of the state that is applied.", status.generation)
    yield _gauge(
        "ecluse_generation_since_seconds", "When it was applied, UNIX time.", _unix(status.since)
    )
    yield _gauge(
        "ecluse_armed", "1 when every level is loaded, so that a switch is instant.", status.armed
    )
    yield _gauge("ecluse_in_step", "1 when the kernel shows what it should.", status.in_step)
    yield _gauge(
        "ecluse_checked_seconds",
        "When the kernel was last compared, UNIX time.",
        _unix(status.checked),
    )
    yield _gauge("ecluse_recorded", "1 when the state is on disk.", status.recorded)
    yield from _tables(status)
    yield from _second_lock(status)
    refused = CounterMetricFamily(
        "ecluse_refused_packets", "Packets refused.", labels=("direction",)
    )
    refused.add_metric(("outbound",), status.refused_packets)
    refused.add_metric(("inbound",), status.refused_inbound_packets)
    yield refused
    for extension in EXTENSIONS:
        state = getattr(status, extension.status) if extension.metrics else None
        if state is not None:
            yield from _of_extension(extension, state)
    yield _gauge("ecluse_warnings", "How many warnings the status has.", len(status.warnings))
    alert = GaugeMetricFamily("ecluse_alert", "1 while it stands.", labels=("code", "severity"))
    for code, severity in sorted({(one.code, one.severity) for one in status.alerts}):
        alert.add_metric((code, severity), 1)
    yield alert
    yield _gauge(
        "ecluse_last_tamper_seconds",
        "When our table was last changed by another, UNIX time, 0: never.",
        _unix(status.last_tamper.at) if status.last_tamper else 0,
    )
    yield _gauge(
        "ecluse_last_leak_seconds",
        "When connections last leaked, UNIX time, 0: never.",
        _unix(status.last_leak.at) if status.last_leak else 0,
    )
    purge = status.purge
    yield _gauge(
        "ecluse_purge_failed",
        "1 when the last end of connections failed.",
        purge is not None and purge.state == "failed",
    )


def _of_extension(extension: Extension, state: object) -> Iterator[Metric]:
    """Yield the metrics of an extension; where it fails those of the core are still given."""
    try:
        found = [*import_module(extension.metrics).metrics(state)]
    except Exception:  # noqa: BLE001 - an extension is never the end of the monitoring
        found = [
            GaugeMetricFamily(
                "ecluse_extension_metrics_failed",
                "1 where an extension could not give its metrics.",
                labels=("extension",),
            )
        ]
        found[0].add_metric((extension.name,), 1)
    yield from found


def _tables(status: Status) -> Iterator[Metric]:
    used = GaugeMetricFamily(
        "ecluse_kernel_table_entries", "Entries of a table of the kernel's.", labels=("table",)
    )
    most = GaugeMetricFamily(
        "ecluse_kernel_table_most", "Entries that it can hold.", labels=("table",)
    )
    for one in status.tables:
        used.add_metric((one.name,), one.used)
        most.add_metric((one.name,), one.most)
    yield used
    yield most


def _second_lock(status: Status) -> Iterator[Metric]:
    lock = status.second_lock
    if lock is None:
        return
    yield _gauge("ecluse_second_lock_wanted", "1 when it is to stand.", lock.wanted)
    yield _gauge("ecluse_second_lock_stands", "1 when it was seen to stand.", lock.stands)
    packets = CounterMetricFamily(
        "ecluse_second_lock_packets",
        "Packets that it let out (kept, link) and dropped (lost) since it stands.",
        labels=("device", "went"),
    )
    for one in lock.devices:
        for went, count in (("kept", one.kept), ("link", one.link), ("lost", one.lost)):
            packets.add_metric((one.device, went), count)
    yield packets


def _services(services: tuple[ServiceStatus, ...]) -> Iterator[Metric]:
    packets = CounterMetricFamily(
        "ecluse_service_packets", "Packets, both directions.", labels=("service",)
    )
    size = CounterMetricFamily(
        "ecluse_service_bytes", "Bytes, both directions.", labels=("service",)
    )
    state = GaugeMetricFamily(
        "ecluse_service_state",
        "1 for the state that it has.",
        labels=("service", "criticality", "state"),
    )
    last = GaugeMetricFamily(
        "ecluse_service_last_packet_seconds",
        "When its counter last rose, UNIX time.",
        labels=("service",),
    )
    age = GaugeMetricFamily(
        "ecluse_service_address_age_seconds",
        "Age of the oldest resolved address.",
        labels=("service",),
    )
    for one in services:
        packets.add_metric((one.name,), one.packets)
        size.add_metric((one.name,), one.bytes)
        state.add_metric((one.name, one.criticality, one.state), 1)
        if one.last_packet is not None:
            last.add_metric((one.name,), _unix(one.last_packet))
        if one.addresses:
            age.add_metric((one.name,), max(address.age for address in one.addresses))
    yield from (packets, size, state, last, age)


def _names(services: tuple[ServiceStatus, ...]) -> Iterator[Metric]:
    count = GaugeMetricFamily(
        "ecluse_name_addresses", "Addresses that a host name has.", labels=("name", "state")
    )
    failing = GaugeMetricFamily(
        "ecluse_name_failing", "1 when the last look-up failed.", labels=("name",)
    )
    until = GaugeMetricFamily(
        "ecluse_name_kept_until_seconds",
        "When the last known good addresses of a name that is not resolved go, UNIX time.",
        labels=("name",),
    )
    answers = CounterMetricFamily(
        "ecluse_name_answers",
        "What came of the questions for a name.",
        labels=("name", "resolver", "outcome"),
    )
    for name, one in sorted(
        {one.name: one for service in services for one in service.names}.items()
    ):
        count.add_metric((name, "current"), one.addresses - one.left)
        count.add_metric((name, "left"), one.left)
        failing.add_metric((name,), float(bool(one.failure)))
        if one.kept_until is not None:
            until.add_metric((name,), _unix(one.kept_until))
        for resolver, outcomes in one.outcomes.items():
            for outcome, times in outcomes.items():
                answers.add_metric((name, resolver, outcome), times)
    yield from (count, failing, until, answers)


def _socket(socket: SocketCounts) -> Iterator[Metric]:
    connections = GaugeMetricFamily(
        "ecluse_api_connections", "Open connections to the socket.", labels=("pool",)
    )
    for pool, count in socket.connections.items():
        connections.add_metric((pool,), count)
    yield connections
    yield CounterMetricFamily(
        "ecluse_api_turned_away", "Connections refused for want of room.", socket.turned_away
    )
    yield CounterMetricFamily(
        "ecluse_api_forbidden", "Requests by those who may not.", socket.forbidden
    )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, float(value))


def _unix(at: datetime) -> float:
    return at.timestamp()
