"""The DNS proxy's metrics."""

import pytest

from ecluse.dnsproxy.metrics import metrics
from ecluse.results import DnsState


@pytest.mark.parametrize("working", [True, False])
def test_each_figure_of_its_part_of_the_status_is_a_metric(working):
    state = DnsState("cut", working, learned=3, refused=7, strained={}, removed=2)
    found = {sample.name: sample.value for family in metrics(state) for sample in family.samples}
    assert found == {
        "ecluse_dns_gate_working": float(working),
        "ecluse_dns_learned": 3,
        "ecluse_dns_removed_total": 2,
        "ecluse_dns_refused_questions_total": 7,
    }
