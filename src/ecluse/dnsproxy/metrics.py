"""Metrics of the DNS proxy, from its part of the status."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from ecluse.results import DnsState


def metrics(state: DnsState) -> Iterator[Metric]:
    """Yield its metrics."""
    yield GaugeMetricFamily(
        "ecluse_dns_gate_working",
        "1 when the DNS gate answers by its configuration.",
        float(state.working),
    )
    yield GaugeMetricFamily(
        "ecluse_dns_learned", "Addresses that the DNS gate holds for names.", state.learned
    )
    yield CounterMetricFamily(
        "ecluse_dns_removed", "Addresses of others that the DNS gate took out.", state.removed
    )
    yield CounterMetricFamily(
        "ecluse_dns_refused_questions", "Questions that the DNS gate refused.", state.refused
    )
