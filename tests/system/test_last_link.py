"""What the gateway itself sends is judged where its last link is known, and of its errors those
about kept flows pass.
"""

import json
import time

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital

pytestmark = pytest.mark.system

FAMILIES = (4, 6)
LOOPED = 7777
"""A port of an inside machine that the site's own output rules translate to one outside."""

BY_NAT = f"""
table inet site_out {{
  chain output {{
    type nat hook output priority -100;
    ip daddr {places.GUEST_HOST.v4} meta l4proto {{ tcp, udp }} th dport {LOOPED} \
      dnat ip to {places.WEB.v4}:5000
    ip6 daddr {places.GUEST_HOST.v6} meta l4proto {{ tcp, udp }} th dport {LOOPED} \
      dnat ip6 to [{places.WEB.v6}]:5000
  }}
}}
"""
BY_MARK = f"""
table inet site_out {{
  chain output {{
    type route hook output priority mangle;
    ip daddr {places.GUEST_HOST.v4} meta mark set 7
    ip6 daddr {places.GUEST_HOST.v6} meta mark set 7
  }}
}}
"""
SECOND_WAY = "".join(
    f"ip -{family} rule add fwmark 7 table 99\n"
    f"ip -{family} route add default via {places.INTERNET_ROUTER.address(family)} dev wan0 table "
    "99\n"
    for family in FAMILIES
)


def left(outside, since: int, *towards: str) -> list:
    """Give what went out to these addresses, whatever program reads it there."""
    return [f for to in towards for f in outside.seen(since, destination=to, from_gateway=True)]


@pytest.mark.parametrize("level", ["cut", "isolate"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_nat_of_the_output_hook_sends_out_is_judged(
    hospital: Hospital, daemon: Daemon, family: int, level: str
):
    """The gateway writes an inside address.

    The site's rules make it an outside one, after the link was first chosen.
    """
    hospital.nft(BY_NAT)
    inside, web = places.GUEST_HOST.address(family), places.WEB.address(family)
    gateway = hospital.host(places.GUESTS.gateway, "gw")
    with hospital.sniff() as outside:
        assert gateway.tcp(inside, LOOPED), "positive control: translated and answered while open"
        assert gateway.udp(inside, LOOPED)
        assert outside.count(destination=web, from_gateway=True)
        assert daemon.level(level)["verified"]
        since = time.time_ns()
        assert not gateway.tcp(inside, LOOPED, timeout=0.3)
        assert not gateway.udp(inside, LOOPED, timeout=0.3)
        assert left(outside, since, web, inside) == []
    assert gateway.tcp(inside, 9).error == "ECONNREFUSED", "the gateway still reaches the inside"


@pytest.mark.parametrize("level", ["cut", "isolate"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_mark_sends_another_way_is_judged(
    hospital: Hospital, daemon: Daemon, family: int, level: str
):
    """Its own packets, and its refusals with what was refused in them (several links by mark, RFC
    5737 addresses).
    """
    hospital.nft(BY_MARK)
    hospital.shell("gw", SECOND_WAY)
    inside, web = places.GUEST_HOST.address(family), places.WEB.address(family)
    gateway = hospital.host(places.GUESTS.gateway, "gw")
    with hospital.sniff() as outside:
        gateway.udp(inside, 5000, timeout=0.2)
        assert left(outside, 0, inside), "positive control: the mark leads out while open"
        assert daemon.level(level)["verified"]
        since = time.time_ns()
        gateway.udp(inside, 5000, timeout=0.2)
        gateway.tcp(inside, 443, timeout=0.2)
        hospital.guest.udp(web, timeout=0.2)
        hospital.guest.tcp(web, timeout=0.2)
        hospital.guest.icmp(web, 0.2)
        assert left(outside, since, inside, web) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kept_flow_of_the_gateway_may_be_sent_another_way(
    hospital: Hospital, daemon: Daemon, family: int
):
    """Several providers by mark: what is kept is kept by whichever link."""
    health = places.HEALTH_DATA.address(family)
    ip = "ip" if family == 4 else "ip6"
    chain = f"type route hook output priority mangle; {ip} daddr {health} meta mark set 7"
    hospital.nft(f"table inet site_out {{\n chain output {{\n {chain}\n }}\n}}\n")
    hospital.shell("gw", SECOND_WAY)
    hospital.shell(
        "gw", f"ip -{family} route add unreachable {health}/{32 if family == 4 else 128} || true"
    )
    daemon.level("cut")
    hospital.shell(
        "gw", f"ip -{family} route del unreachable {health}/{32 if family == 4 else 128}"
    )
    assert hospital.gateway.udp(health, 4500)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrow_link_inside_is_told_to_kept_partners_alone(
    hospital: Hospital, daemon: Daemon, family: int
):
    """Both ends believe in 1,500 bytes, the link to care has 1,400.

    A sender of more has to be told by the gateway.
    """
    lab, web = places.LABORATORY.address(family), places.WEB.address(family)
    hospital.shell("gw", "ip link set care0 mtu 1400; ip link set guest0 mtu 1400\n")
    with hospital.sniff() as outside:
        with hospital.care.open(lab) as line:
            assert line.talk(60_000), "positive control: large answers come while open"
        assert outside.count(destination=lab, protocol="icmp" if family == 4 else "icmpv6")
        forget_widths(hospital)
        with hospital.guest.open(web) as line:
            assert line.talk(60_000)
        assert outside.count(destination=web, protocol="icmp" if family == 4 else "icmpv6")
        forget_widths(hospital)
        strange = hospital.guest.open(web)
        assert strange.talk()

        daemon.level("cut")
        since = time.time_ns()
        with hospital.care.open(lab) as line:
            assert line.talk(60_000, timeout=3.0), (
                "a black hole: the laboratory is not told how narrow the link is"
            )
        assert outside.count(since, destination=lab, protocol="icmp" if family == 4 else "icmpv6")
        # Somebody outside writes to a guest, or goes on with what was cut: no error goes out about
        # either.
        strange.talk(60_000, timeout=0.3)
        send_large(hospital, family, places.GUEST_HOST.v6 if family == 6 else places.GATEWAY_WAN.v4)
        strangers = [places.STRANGER.address(family), web]
        assert left(outside, since, *strangers) == []
        daemon.level("isolate")
        since = time.time_ns()
        send_large(hospital, family, places.CARE_HOST.v6 if family == 6 else places.GATEWAY_WAN.v4)
        assert left(outside, since, lab, *strangers) == []
        strange.close()


def forget_widths(hospital: Hospital) -> None:
    """Have the outside forget what it was told of paths."""
    hospital.shell("inet", "ip -4 route flush cache; ip -6 route flush cache\n")


def send_large(hospital: Hospital, family: int, to: str) -> None:
    """Have a stranger outside send a datagram that is too large for the inside, and not to be cut
    up.
    """
    kind, level, option = (
        ("AF_INET", 0, 10) if family == 4 else ("AF_INET6", 41, 23)
    )  # IP(V6)_MTU_DISCOVER
    code = (
        "import socket, sys\n"
        f"s = socket.socket(socket.{kind}, socket.SOCK_DGRAM)\n"
        f"s.setsockopt({level}, {option}, 3)\n"
        f"s.bind(('{places.STRANGER.address(family)}', 0))\n"
        f"s.sendto(bytes(1440), ('{to}', 5000))\n"
    )
    done = hospital.run("inet", ["/usr/bin/python3", "-c", code])
    assert done.returncode == 0, done.stderr


def test_link_housekeeping_does_not_reach_beyond_the_link(hospital: Hospital, daemon: Daemon):
    """With presets `nd` and `dhcp`.

    A server far away is no DHCP server of the link, a router is asked for on the link.
    """
    lifeline = policy.site()["lifeline"] | {"presets": ["nd", "dhcp"]}
    daemon.write_config(policy.site(lifeline=lifeline))
    daemon.api("POST", "/v1/reload", {"reason": "test"})
    far4, far6 = places.STRANGER.v4, places.STRANGER.v6
    code = (
        "import socket, time\n"
        "def send(s, data, to):\n"
        "    try:\n"
        "        s.sendto(data, to)\n"
        "    except PermissionError:\n"
        "        pass\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n"
        "s.bind(('0.0.0.0', 68))\n"
        f"send(s, b'x' * 300, ('{far4}', 67))\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'wan0')\n"
        "send(s, b'x' * 300, ('255.255.255.255', 67))\n"
        "s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)\n"
        "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)\n"
        "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)\n"
        "for kind, size in ((133, 8), (134, 64), (135, 300), (136, 300)):\n"
        f"    send(s, bytes([kind]) + bytes(size), ('{far6}', 0))\n"
        "send(s, bytes([133]) + bytes(7), ('ff02::2', 0, 0, socket.if_nametoindex('wan0')))\n"
    )

    def say(since: int) -> list:
        done = hospital.run("gw", ["/usr/bin/python3", "-c", code])
        assert done.returncode == 0, done.stderr
        return outside.seen(since, from_gateway=True, housekeeping=True)

    with hospital.sniff() as outside:
        far = [f for f in say(0) if f.destination in {far4, far6}]
        assert sum(f.packets for f in far) == 5, "positive control: all of it leaves while open"
        daemon.level("isolate")
        after = say(time.time_ns())
        assert [f for f in after if f.destination in {far4, far6}] == []
        assert {"255.255.255.255", "ff02::2"} <= {f.destination for f in after}, (
            "what the link needs leaves"
        )
        hospital.shell("gw", "ip -6 neigh flush dev wan0")
        daemon.level("cut")
        assert hospital.care.tcp(places.LABORATORY.v6), "neighbours find each other at cut"


def test_after_the_answer_a_queue_of_the_outside_link_holds_what_it_held_and_gets_no_more(
    hospital: Hospital, daemon: Daemon
):
    """The limit of promise 1.

    A shaper (64 kbit/s) sends what was in its queue, and nothing that is not kept enters it.
    """
    hospital.shell(
        "gw", "tc qdisc add dev wan0 root handle 1: tbf rate 64kbit burst 3000 limit 60000\n"
    )
    web = places.WEB.v4

    def waiting() -> int:
        listed = hospital.run("gw", ["tc", "-j", "-s", "qdisc", "show", "dev", "wan0"]).stdout
        return json.loads(listed)[0]["qlen"]

    with hospital.sniff() as outside:
        stream = hospital.guest.stream(web, 5000, rate=200, size=1200)
        deadline = time.monotonic() + 20
        while waiting() < 20:
            assert time.monotonic() < deadline, "positive control: the shaper has a queue"
        daemon.level("cut")
        since, held = time.time_ns(), waiting()
        while waiting():
            assert time.monotonic() < deadline + 40
        assert hospital.gateway.udp(places.HEALTH_DATA.v4, 4500, timeout=5.0), (
            "what is kept goes through the same queue"
        )
        stream.stop()
        # One packet may have left the queue and not be seen outside yet when it was counted.
        assert 0 < outside.count(since, destination=web) <= held + 1
