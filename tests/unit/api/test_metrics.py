"""The metrics of a status."""

from prometheus_client.parser import text_string_to_metric_families

from tests.unit.api.harness import (
    ask,
    running,
)


async def test_metrics():
    async with running() as (commands, path, *_):
        commands.levels["care"] = "cut"
        status, headers, text = await ask(path, "GET", "/metrics")
        assert (status, headers["content-type"]) == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
        )
        found = {
            (s.name, *sorted(s.labels.values())): s.value
            for family in text_string_to_metric_families(text.decode())
            for s in family.samples
        }
        assert found["ecluse_level", "care", "cut"] == 1
        assert ("ecluse_level", "care", "open") not in found
        assert (found["ecluse_zone_open", "care"], found["ecluse_zone_open", "guests"]) == (0, 1)
        assert found["ecluse_service_packets_total", "laboratory"] == 1200
        assert found["ecluse_service_bytes_total", "laboratory"] == 90_000
        assert found["ecluse_refused_packets_total", "outbound"] == 7
        assert (found["ecluse_in_step",], found["ecluse_generation",], found["ecluse_armed",]) == (
            1,
            1,
            1,
        )
        assert found["ecluse_alert", "routes-unknown", "warning"] == 1
        assert found["ecluse_second_lock_stands",] == found["ecluse_second_lock_wanted",] == 1
        assert found["ecluse_second_lock_packets_total", "lost", "wan0"] == 3
        assert found["ecluse_api_connections", "root"] == 1
        assert not [name for name, *_ in found if not name.startswith("ecluse")]


async def test_an_extension_that_fails_is_a_metric_and_hides_no_other(monkeypatch):
    def fail(_state):
        raise RuntimeError

    monkeypatch.setattr("ecluse.dnsproxy.metrics.metrics", fail)
    async with running() as (_, path, *_):
        status, _, text = await ask(path, "GET", "/metrics")
        assert status == 200
        assert b'ecluse_extension_metrics_failed{extension="dns_gate"} 1.0' in text
        assert b"ecluse_in_step 1.0" in text
        assert b"ecluse_dns_gate_working" not in text
