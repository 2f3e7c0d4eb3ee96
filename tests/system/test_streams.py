"""Kept streams at 5,000 packets a second through everything that may happen to the gate.

Not one packet refused.
"""

import time

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SWITCHES, RELOADS, RATE = 1000, 20, 5000


def refused(daemon: Daemon, address: str) -> list[dict]:
    flows = daemon.api("GET", "/v1/refused?limit=1000").body["flows"]
    return [flow for flow in flows if address in (flow["source"], flow["destination"])]


def elsewhere(hospital: Hospital) -> str:
    """Where else than in our table the gateway's kernel may have dropped packets."""
    files = "/proc/net/softnet_stat /proc/net/stat/nf_conntrack /proc/net/snmp /proc/net/dev"
    return hospital.shell("gw", f"cat {files}; nft list counters table inet ecluse")


def test_kept_streams_lose_nothing(hospital: Hospital, daemon: Daemon):
    lab = places.LABORATORY
    # Kept at every level but `open`, which keeps all: levels that close and open take turns.
    streams = {
        f"{protocol}{family}": hospital.care.stream(
            lab.address(family), 5000 if protocol == "udp" else 443, protocol, rate=RATE // 2
        )
        for protocol in ("udp", "tcp")
        for family in (4, 6)
    }
    # What is not kept goes on knocking, so that the refused sets are at work.
    knocking = hospital.guest.beacon(
        [("udp", places.WEB.v4, 5000), ("tcp", places.WEB.v4, 443)], rate=100
    )
    time.sleep(0.3)
    daemon.level("cut")
    began = time.monotonic()
    for number in range(SWITCHES):
        daemon.level(("open", "cut", "reduced", "cut")[number % 4], reason=f"switch {number}")
    switched = time.monotonic() - began
    daemon.level("cut")
    for number in range(RELOADS):
        changed = {k: list(v) for k, v in policy.ALLOWLIST.items()}
        extra = [{"to": [f"198.51.100.{number + 100}"], "ports": ["tcp/443"]}]
        changed["40-more.yaml"] = [policy.service(f"more-{number}", "vital", ["care"], extra)]
        daemon.write_config(None, changed)
        reply = daemon.api("POST", "/v1/reload", {"reason": f"reload {number}"})
        assert reply.status == 200, reply.body
        assert reply.body["changed"]
    daemon.restart()
    daemon.kill9()
    time.sleep(0.2)
    daemon.start()
    daemon.level("open")
    daemon.level("cut")
    assert daemon.status()["generation"] > SWITCHES
    assert knocking.tally(stop=True).get("timeout", 0) >= 0
    reports = {name: stream.stop() for name, stream in streams.items()}
    for family in (4, 6):
        assert refused(daemon, lab.address(family)) == []
    assert refused(daemon, places.WEB.v4), "positive control: what is refused does show"
    for name, report in reports.items():
        assert report.sent > RATE, (name, report)
        assert not report.errors, (name, report)
        assert not report.ended, (name, report)
        assert not report.rig_drops, (name, report)
        assert report.lost == 0, (name, report, elsewhere(hospital))
    print(
        f"{SWITCHES} switches in {switched:.1f} s; "
        + "; ".join(
            f"{n}: {r.sent} sent, {r.lost} lost, {r.resent} resent" for n, r in reports.items()
        )
    )


def test_the_measurement_notices_a_flow_that_is_not_kept(hospital: Hospital, daemon: Daemon):
    stream = hospital.care.stream(places.LABORATORY.v4, 8443, "tcp", rate=1000)
    other = hospital.guest.stream(places.LABORATORY.v4, 5000, "udp", rate=1000)
    time.sleep(0.3)
    daemon.level("cut")
    time.sleep(0.3)
    assert stream.stop().ended
    assert other.stop(grace=0.1).lost
    assert {flow["port"] for flow in refused(daemon, places.LABORATORY.v4)} == {8443, 5000}
