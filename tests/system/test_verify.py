"""`ecluse verify` on a real gateway: equal while all is well, and the packet where it is not."""

import json

import pytest

from tests.lab import places
from tests.lab.dnsgate import USER
from tests.lab.hospital import Hospital
from tests.system.test_alone import alone
from tests.system.test_dns_gate import ROOM, ZONE, started

pytestmark = pytest.mark.kernel


@pytest.fixture
def daemon(hospital: Hospital):
    return hospital.daemon().start()


def verified(hospital, daemon, *more):
    done = alone(hospital, daemon, "verify", "--json", more=more)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["equal"] == (done.returncode == 0)
    return found


def test_it_is_proved_at_every_level_with_and_without_the_daemon(hospital, daemon):
    for level in ("open", "cut", "isolate", "cut"):
        if level != "open":
            daemon.level(level)
        found = verified(hospital, daemon)
        assert found["equal"], found
        assert set(found["levels"].values()) == {level}
        assert found["from_daemon"]
    daemon.kill9()
    found = verified(hospital, daemon)
    assert found["equal"], found
    assert not found["from_daemon"]
    said = alone(hospital, daemon, "verify").stdout
    assert "proved" in said and "does not answer" in said


def test_a_rule_that_somebody_put_in_is_found_with_its_packet(hospital, daemon):
    daemon.level("cut")
    daemon.kill9()
    for end in ("saddr", "daddr"):
        rule = ["forward", "ip", end, places.WEB.v4, "accept"]
        hospital.run("gw", ["nft", "insert", "rule", "inet", "ecluse", *rule])
    assert hospital.care.tcp(places.WEB.v4), "the control: it passes by that rule"
    found = verified(hospital, daemon)
    assert not found["equal"]
    rows = [row for row in found["differences"] if row["place"] == "forward" and row["kernel"]]
    assert any("forward rule 1" in row["path"] for row in rows)
    assert any(f"towards {places.WEB.v4}" in row["packet"] for row in rows)
    assert {row["place"] for row in found["differences"]} == {"forward"}


def test_a_closing_without_the_daemon_is_what_it_says(hospital, daemon):
    daemon.kill9()
    assert alone(hospital, daemon, "cut", "--no-daemon", "--reason", "test").returncode in {0, 6}
    found = verified(hospital, daemon)
    assert found["equal"], found
    assert set(found["levels"].values()) == {"cut"}


def test_without_a_table_it_says_that_the_gate_does_not_stand(hospital, daemon):
    daemon.level("cut")
    daemon.kill9()
    hospital.run("gw", ["nft", "delete", "table", "inet", "ecluse"])
    done = alone(hospital, daemon, "verify")
    assert done.returncode == 5
    assert "does not stand" in done.stderr


def test_learned_addresses_and_the_redirect_are_part_of_it(hospital):
    hospital.dns(ZONE)
    daemon, gate = started(hospital, ROOM)
    try:
        daemon.level("cut")
        asked = hospital.care.resolve(places.DNS_SERVER.v4, "node.operator.example")
        learned = asked.more["addresses"][0]
        assert hospital.care.tcp(learned), "the control: what was learned passes"
        found = verified(hospital, daemon, f"ECLUSE_DNS_USER={USER}")
        assert found["equal"], found
        # By the daemon's user alone the gate's own questions would be nobody's.
        other = verified(hospital, daemon, "ECLUSE_DNS_USER=64090")
        assert {row["place"] for row in other["differences"]} == {"output", "postrouting"}
    finally:
        daemon.stop()
        gate.stop()
