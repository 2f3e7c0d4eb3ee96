"""What is said of a zone is what comes by its interfaces.

No zone without a living one is ever "kept".
"""

import json
from collections.abc import Iterator

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.system.test_exits import check_host
from tests.system.test_tamper import wait_until

pytestmark = pytest.mark.system

CARE = ("laboratory", "partner-results")  # vital, of zone care alone
BRIDGE = """
ip link add br-lan type bridge
ip link set br-lan up
ip addr flush dev care0
ip link set care0 master br-lan
ip addr add 10.10.0.1/16 dev br-lan
ip -6 addr add 2001:db8:10::1/48 dev br-lan nodad
"""


def with_interface(name: str) -> dict:
    site = policy.site()
    site["zones"][0]["interfaces"] = [name]
    return site


def words(daemon: Daemon, *command: str) -> str:
    done = daemon.cli(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def reaches_laboratory(hospital: Hospital) -> bool:
    return bool(hospital.care.tcp(places.LABORATORY.v4))


def says_dead(hospital: Hospital, daemon: Daemon, why: str) -> None:
    """See that each answer says it, before the cut and after.

    That packets bear it out; that the machines are named.
    """
    assert reaches_laboratory(hospital), "positive control: at open it is reached"
    plan = daemon.api("POST", "/v1/plan", {"level": "cut"}).body
    assert set(CARE) <= set(plan["no_link"])
    assert not set(CARE) & set(plan["services_kept"])
    assert any(why in text for text in plan["warnings"])
    assert any(why in text for text in daemon.status()["warnings"])
    change = daemon.level("cut")
    assert set(CARE) <= set(change["no_link"])
    assert not set(CARE) & set(change["kept"])
    assert "treasury" in change["kept"], "a zone that lives is kept"
    assert any(why in text for text in change["warnings"])
    assert not reaches_laboratory(hospital)
    assert hospital.admin.tcp(places.TREASURY.v4)
    states = {one["name"]: one for one in daemon.status()["services"]}
    assert states["laboratory"]["state"] == "no link"
    assert states["laboratory"]["kept_in"] == []
    assert states["health-data"]["state"] == "partly kept", "the gateway itself has it"
    refused = daemon.api("GET", "/v1/refused").body
    assert places.CARE_HOST.v4 in {one["source"] for one in refused["sources"]}
    assert "NO LINK laboratory, partner-results: not kept" in words(daemon, "cut")


def test_a_wrong_interface_name_is_never_kept(hospital: Hospital):
    daemon = hospital.daemon(site=with_interface("care9")).start()
    assert "no interface is called care9" in check_host(hospital, daemon).stdout
    why = "zone care: no interface is called care9; no packet of this zone is kept"
    says_dead(hospital, daemon, why)
    meant = "10.10.0.1/16 on care0 is in the subnets of zone care, but care0 is in no zone"
    assert any(meant in text for text in daemon.status()["warnings"])
    daemon.write_config()
    reload = json.loads(daemon.cli("--json", "reload", "--yes").stdout)
    assert "laboratory" in reload["kept"]
    assert not any("care9" in text for text in reload["warnings"]), (
        "mended at once, and said at once"
    )
    assert not any("care9" in text or "care0" in text for text in daemon.status()["warnings"])
    assert reaches_laboratory(hospital)
    daemon.write_config(with_interface("care8"))
    plan = daemon.api("POST", "/v1/plan", {"reload": True}).body
    assert any("no interface is called care8" in text for text in plan["warnings"]), (
        "of the files that are to come"
    )
    assert "laboratory" in plan["no_link"]


def test_a_port_of_a_bridge_is_never_kept(hospital: Hospital):
    hospital.shell("gw", BRIDGE)
    daemon = hospital.daemon().start()
    says_dead(hospital, daemon, "zone care: care0 is a port of br-lan")
    daemon.write_config(with_interface("br-lan"))
    assert daemon.cli("reload", "--yes").returncode == 0
    assert reaches_laboratory(hospital)
    assert not any("care" in text or "br-lan" in text for text in daemon.status()["warnings"])


def test_a_link_that_goes_is_told_at_once_and_so_is_its_return(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    for shut, open_, why in (
        ("ip link set care0 down", "ip link set care0 up", "care0 is down"),
        (
            "ip addr flush dev care0",
            "ip addr add 10.10.0.1/16 dev care0",
            "care0 has no address and no route",
        ),
    ):
        hospital.shell("gw", shut)
        status = daemon.status()
        assert any(why in text for text in status["warnings"])
        assert {one["name"]: one["state"] for one in status["services"]}["laboratory"] == "no link"
        hospital.shell("gw", open_)
        wait_until(
            lambda: "NO-CARRIER" not in hospital.run("gw", ["ip", "link", "show", "care0"]).stdout,
            5,
        )
        assert not any(why in text for text in daemon.status()["warnings"])


def test_an_outsider_puts_no_inside_machine_into_the_evidence(hospital: Hospital, daemon: Daemon):
    """A guest forges a care machine's address; a source counts if the route back confirms it."""
    daemon.level("cut")
    hospital.shell(
        "inet",
        (
            f"ip addr add {places.CARE_HOST.v4}/32 dev lo; "
            f"ip route add 192.0.2.200 via {places.GATEWAY_WAN.v4}"
        ),
    )
    hospital.shell("gw", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done")
    before = daemon.status()["refused_inbound_packets"]
    hospital.run("inet", ["ping", "-c", "1", "-W", "1", "-I", places.CARE_HOST.v4, "192.0.2.200"])
    assert wait_until(lambda: daemon.status()["refused_inbound_packets"] > before, 5), (
        "positive control: it came"
    )
    assert daemon.api("GET", "/v1/refused").body["sources"] == []


@pytest.fixture
def ipv4_site(hospital: Hospital) -> Iterator[Daemon]:
    site = policy.site()
    for zone in site["zones"]:
        zone["subnets"] = zone["subnets"][:1]
    hospital.shell("gw", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")
    kept = policy.service(
        "laboratory", "vital", ["care"], [{"to": [places.LABORATORY.v4], "ports": ["tcp/443"]}]
    )
    yield hospital.daemon(site=site, allowlist={"1.yaml": [kept]})


def test_a_site_of_one_family_hears_nothing_of_the_other(hospital: Hospital, ipv4_site: Daemon):
    found = check_host(hospital, ipv4_site)
    assert "0 warnings" in found.stdout, found.stdout
    hospital.shell("gw", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    assert "2001:db8:10::1/48 on care0 is in none" in " ".join(
        check_host(hospital, ipv4_site).stdout.split()
    )
    ipv4_site.write_config()
    hospital.shell("gw", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")
    assert "net.ipv6.conf.all.forwarding is 0" in check_host(hospital, ipv4_site).stdout, (
        "positive control"
    )


def test_a_bridge_of_containers_is_told_before_the_cut(hospital: Hospital):
    hospital.shell(
        "gw",
        (
            "ip link add docker9 type bridge; ip addr add 192.168.9.1/24 dev docker9; "
            "ip link set docker9 up"
        ),
    )
    daemon = hospital.daemon().start()
    told = "will be closed as soon as any zone is: docker9"
    assert any(told in text for text in daemon.status()["warnings"])
    plan = daemon.api("POST", "/v1/plan", {"level": "cut"}).body
    assert any("closed while any zone is: docker9" in text for text in plan["warnings"])
