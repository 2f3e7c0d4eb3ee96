"""A way past the gate is one: packets leave by it at isolate.

And it is named, in status, in the events, by `check --host`.
"""

import json
import subprocess
import sys
import time

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT
from tests.system.test_tamper import wait_until

pytestmark = pytest.mark.system

REDIRECT = """
tc qdisc add dev guest0 clsact
tc filter add dev guest0 ingress protocol ip u32 match ip dst 198.51.100.0/24 \
  action mirred egress redirect dev wan0
"""


def check_host(hospital: Hospital, daemon: Daemon, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            hospital.namespace("gw"),
            sys.executable,
            "-m",
            "ecluse.cli",
            "check",
            "--host",
            *more,
            str(daemon.config),
        ],
        env={"PYTHONPATH": f"{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )


def named(daemon: Daemon, words: str) -> bool:
    return any(words in warning for warning in daemon.status()["warnings"])


def test_a_tc_redirect_leaks_at_isolate_and_is_named(hospital: Hospital, daemon: Daemon):
    daemon.level("isolate")
    clean = check_host(hospital, daemon)
    assert clean.returncode == 0, clean.stdout
    assert "0 ways past the gate" in clean.stdout
    with hospital.sniff() as outside:
        stream = hospital.guest.stream(places.WEB.v4, 5000, "udp", rate=100)
        time.sleep(0.3)
        assert outside.count(destination=places.WEB.v4) == 0
        hospital.shell("gw", REDIRECT)
        time.sleep(0.3)
        assert outside.count(destination=places.WEB.v4), "positive control: they leave, at isolate"
        stream.stop(grace=0)
    found = check_host(hospital, daemon)
    assert found.returncode == 1
    assert "ingress of guest0) redirects to wan0" in " ".join(found.stdout.split())
    told = json.loads(check_host(hospital, daemon, "--json").stdout)["findings"]
    assert [one["kind"] for one in told if one["is_exit"]] == ["tc"]
    # A filter is no change of links: the daemon sees it at its next look, once a minute or when a
    # link changes.
    hospital.shell("gw", "ip link add late0 type veth peer name late1")
    assert wait_until(lambda: named(daemon, "redirects to wan0"), 5)
    assert '"event":"exit"' in (daemon.state / "audit.log").read_text()
    hospital.shell("gw", "tc qdisc del dev guest0 clsact; ip link del late0")
    assert wait_until(lambda: not named(daemon, "redirects to wan0"), 5)


def test_a_macvlan_of_the_outside_in_a_container_gets_out_and_is_named(hospital: Hospital):
    daemon = hospital.daemon(site=policy.site(second_lock="off")).start()
    daemon.level("isolate")
    hospital.shell(
        "gw",
        (
            "ip link add mv0 link wan0 type macvlan mode bridge; "
            f"ip link set mv0 netns {hospital.namespace('guests')}"
        ),
    )
    hospital.shell(
        "guests",
        (
            "ip addr add 192.0.2.9/28 dev mv0; ip link set mv0 up; "
            "ip route add 198.51.100.0/24 via 192.0.2.1 dev mv0 src 192.0.2.9"
        ),
    )
    with hospital.sniff() as outside:
        hospital.run("guests", ["ping", "-c", "1", "-W", "1", places.WEB.v4])
        assert outside.count(destination=places.WEB.v4, protocol="icmp"), (
            "positive control: it leaves"
        )
    assert wait_until(lambda: named(daemon, "mv0 in another network namespace"), 5)
    assert check_host(hospital, daemon).returncode == 1


def test_a_way_out_that_a_zones_wildcard_takes_for_the_inside_is_named_as_one(hospital: Hospital):
    """As when somebody renames the outside interface into it.

    All that leaves by it goes from inside to inside.
    """
    site = policy.site()
    site["zones"][0]["interfaces"] = ["care0", "wan*"]
    daemon = hospital.daemon(site=site).start()
    daemon.level("isolate")
    assert hospital.care.udp(places.WEB.v4), "positive control: it leaves, at isolate"
    found = check_host(hospital, daemon)
    assert found.returncode == 1, found.stdout
    said = " ".join(found.stdout.split())
    assert "bypass: a default route leaves by wan0, which is in zone care (wan*)" in said
    assert "1 way past the gate" in said
    assert wait_until(lambda: named(daemon, "a default route leaves by wan0"), 5)
