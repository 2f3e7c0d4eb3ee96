"""What lives in no zone's subnets, and what of it has to reach the outside all the same."""

import time
from dataclasses import replace

import pytest

from tests.kernel import simulator_packets
from tests.lab import forge, places
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.system.test_dns_gate import wait_for_purge
from tests.system.test_spoofed import ALLOWLIST, FAMILIES, HERE, LAB, SIP

pytestmark = pytest.mark.system

ROUTER = replace(places.CARE_HOST, v4="172.31.0.1", v6="2001:db8:31::1")
"""A router inside, by the address of a link of its own that the gateway has no route to."""


@pytest.fixture
def daemon(hospital: Hospital):
    started = hospital.daemon(allowlist=ALLOWLIST).start()
    yield started
    started.stop()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_router_inside_that_nobody_lists_tells_kept_partners_how_narrow_the_way_is(
    hospital: Hospital, daemon: Daemon, family: int
):
    """Its error has a source in no zone's subnets and of no route to the inside.

    A black hole, should it be refused.
    """
    lab, here, router = (one.address(family) for one in (LAB, HERE, ROUTER))
    ends = simulator_packets.Ends
    word = "icmp" if family == 4 else "icmpv6"

    def told(to: str, port: int, there: int) -> bool:
        answer = forge.packet("udp", to, there, here, port, turn=simulator_packets.ANSWER)
        outer = ends(forge.ip_address(router), forge.ip_address(to), 0, 0)
        before = outside.count(destination=to, protocol=word, from_gateway=True)
        forge.send(hospital, "care", simulator_packets.error_about(answer, outer, 1, too_big=True))
        assert forge.talk(hospital, "care", here, 4001, lab, SIP), (
            "behind the error on the same links"
        )
        return outside.count(destination=to, protocol=word, from_gateway=True) > before

    with hospital.sniff() as outside:
        web = places.WEB.address(family)
        assert forge.talk(hospital, "care", here, 4000, lab, SIP)
        assert forge.talk(hospital, "care", here, 4000, web, 5000)
        assert told(lab, 4000, SIP), "positive control: while open"
        assert told(web, 4000, 5000)
        daemon.level("cut")
        wait_for_purge(daemon)
        assert told(lab, 4000, SIP)
        assert not told(web, 4000, 5000)


@pytest.mark.parametrize("order", ["before", "after"])
def test_rules_of_the_site_that_name_a_helper_do_not_have_outside_names_tracked(
    hospital: Hospital, daemon: Daemon, order: str
):
    """`-j CT --helper` gives each packet a template at `raw`.

    One that has it can't be left untracked any more.
    """

    def name_helpers():
        for tool in ("iptables-nft", "ip6tables-nft"):
            hospital.shell(
                "gw", f"{tool} -t raw -A PREROUTING -p udp --dport {SIP} -j CT --helper sip\n"
            )

    if order == "before":
        name_helpers()
        daemon.level("cut")
    else:
        daemon.level("cut")
        name_helpers()
    wait_for_purge(daemon)
    for family in FAMILIES:
        lab, here = LAB.address(family), HERE.address(family)
        forge.send(hospital, "guests", forge.packet("udp", lab, SIP, here, SIP))
        assert forge.talk(hospital, "care", here, SIP, lab, SIP), "refused, by one frame of a guest"


def test_a_table_of_an_earlier_build_is_brought_up_without_a_gap(
    hospital: Hospital, daemon: Daemon
):
    """Cut, upgraded, started.

    An earlier build's table has no base chains but forward, input and output.
    """
    strange = [places.WEB.v4, places.WEB.v6]
    assert all(hospital.guest.udp(web, 5000) for web in strange), "positive control: while open"
    daemon.level("cut")
    wait_for_purge(daemon)
    daemon.stop()
    later = ("raw", "prerouting", "postrouting")
    hospital.nft("".join(f"delete chain inet ecluse {chain}\n" for chain in later))
    inside = hospital.host(places.GUESTS.gateway, "gw")
    with hospital.sniff() as outside:
        kept = [hospital.care.stream(LAB.address(f), SIP, rate=1000) for f in FAMILIES]
        for web in strange:
            hospital.guest.beacon([("udp", web, 5000)], rate=100)
        since = time.time_ns()
        daemon.start()
        table = hospital.shell("gw", "nft list table inet ecluse")
        assert [chain for chain in later if f"\tchain {chain} {{" not in table] == []
        assert daemon.status()["levels"]["care"] == "cut"
        for stream in kept:
            assert stream.stop().lost == 0
        assert not inside.udp(places.WEB.v4, 5000, timeout=0.2)
        assert [
            f for to in strange for f in outside.seen(since, destination=to, from_gateway=True)
        ] == []
