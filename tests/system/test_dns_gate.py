"""The DNS gate by packets.

Names that are kept resolve and are reached at once, and nothing else leaves by DNS.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rdata
import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.dnsgate import DnsGate
from tests.lab.hospital import SITE_NAT, Hospital
from tests.lab.hosts import Host

pytestmark = pytest.mark.system

ROTATING = [f"203.0.113.{n}" for n in range(100, 200)]
ROTATING6 = [f"2001:db8:ffff::{n:x}" for n in range(0x100, 0x164)]
OPERATOR = {"a": ROTATING, "aaaa": ROTATING6, "ttl": 0, "rotate": True}
ZONE = places.NAMES | {
    "*.operator.example": OPERATOR,
    "*.tunnel.example": {"a": ["198.51.100.99"], "txt": ["come in"], "ttl": 0},
}
OPERATOR_SERVICE = policy.service(
    "secure-mail", "vital", ["care"], [{"to": "*.operator.example", "ports": ["tcp/443"]}]
)
ALLOWLIST = policy.ALLOWLIST | {"40-names.yaml": [OPERATOR_SERVICE]}
ROOM = {"limits": {"client_queries": 5000, "wildcard_names": 10}}
DNS = places.DNS_SERVER.v4
REFUSED = 5


def started(
    hospital: Hospital, dns_gate: dict, allowlist: dict = ALLOWLIST
) -> tuple[Daemon, DnsGate]:
    """Start a daemon, open, and its DNS gate; give both when the gate works."""
    daemon = hospital.daemon(site=policy.site(dns_gate=dns_gate), allowlist=allowlist)
    gate = hospital.dns_gate(daemon).start()
    daemon.start()
    gate.wait_until_well()
    return daemon, gate


@pytest.fixture
def gated(hospital: Hospital) -> Iterator[tuple[Daemon, DnsGate]]:
    """The daemon and its DNS gate, open; secure-mail of care is known by a wildcard."""
    hospital.dns(ZONE)
    daemon, gate = started(hospital, ROOM)
    yield daemon, gate
    daemon.stop()
    assert gate.stop() == 0


@pytest.mark.parametrize("family", [4, 6])
def test_a_rotating_wildcard_name_is_reached_at_once(hospital: Hospital, gated, family: int):
    """A thousand times in all: each answer another address, and the first packet to it passes."""
    daemon, gate = gated
    daemon.level("cut")
    server, kind = places.DNS_SERVER.address(family), {4: "a", 6: "aaaa"}[family]
    done = hospital.care.resolve_and_connect(server, "node.operator.example", 443, 500, kind)
    assert done == {"good": 500, "failed": {}, "addresses": 100}
    assert daemon.status()["last_tamper"] is None, "what the gate puts into its sets is its work"
    # The names below the wildcard alone: neither the domain nor another port, nor another zone's
    # machine.
    held = ROTATING[0] if family == 4 else ROTATING6[0]
    assert hospital.care.tcp(held).error == ""
    assert not hospital.care.tcp(held, 8443)
    assert not hospital.admin.tcp(held)
    assert hospital.care.resolve(server, "operator.example", kind).more["rcode"] == REFUSED
    # Kept connections of learned addresses outlast what follows a change: they are judged by what
    # was learned.
    talking = hospital.care.open(held)
    daemon.level("reduced")
    daemon.level("cut")
    wait_for_purge(daemon)
    assert talking.talk()
    assert gate.engine


def wait_for_purge(daemon: Daemon) -> None:
    deadline = time.monotonic() + 10
    while daemon.status()["purge"]["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.02)


def test_nothing_leaves_by_dns(hospital: Hospital, gated):
    """Straight to a server outside, in every way, and through the gate.

    Only kept names reach it, of kept types.
    """
    daemon, _ = gated
    care, guest, web = hospital.care, hospital.guest, places.WEB
    ways = {
        "udp": lambda: care.resolve(DNS, "a1.tunnel.example"),
        "udp v6": lambda: care.resolve(places.DNS_SERVER.v6, "a2.tunnel.example"),
        "tcp": lambda: care.resolve(DNS, "a3.tunnel.example", protocol="tcp"),
        "tcp v6": lambda: guest.resolve(places.DNS_SERVER.v6, "a4.tunnel.example", protocol="tcp"),
        "txt": lambda: guest.resolve(DNS, "a5.tunnel.example", "txt"),
        "null": lambda: guest.resolve(DNS, "a6.tunnel.example", "null"),
    }
    assert all(way() for way in ways.values()), "positive control: it is a tunnel while open"
    tunnelled = [name for name, _ in hospital.dns_asked() if name.endswith("tunnel.example")]
    assert len(tunnelled) == len(ways)
    assert care.tcp(DNS, 853), "positive control: DNS over TLS"
    assert care.tcp(web.v4, 443), "positive control: DNS over HTTPS to a known address"
    with hospital.sniff() as outside:
        daemon.level("cut")
        wait_for_purge(daemon)
        hospital.dns_asked()
        outside.clear()
        for way in ways.values():
            assert way().more["rcode"] == REFUSED, "refused at once, not silent"
        for protocol in ("udp", "tcp"):
            inside = care.resolve("10.10.0.1", "a7.tunnel.example", protocol=protocol)
            assert inside.more["rcode"] == REFUSED, "the gateway itself as the server"
        for port in (853, 443):
            assert not care.tcp(DNS if port == 853 else web.v4, port, timeout=0.3)
        # Kept names, and what a tunnel would make of them.
        assert care.resolve(DNS, "results.lab.example").more["addresses"] == [places.LABORATORY.v4]
        assert care.resolve(DNS, "ReSuLtS.LaB.example").more["addresses"] == [places.LABORATORY.v4]
        refused = [
            ("secret.results.lab.example", "a"),
            ("results.lab.example", "txt"),
            ("node.operator.example", "txt"),
            ("node.operator.example", "null"),
            ("www.web.example", "https"),
            (f"{'s' * 60}.operator.example", "a"),
            (".".join(["s" * 40] * 4) + ".operator.example", "a"),
        ]
        for name, kind in refused:
            for protocol in ("udp", "tcp"):
                assert care.resolve(DNS, name, kind, protocol=protocol).more["rcode"] == REFUSED, (
                    name,
                    kind,
                )
        # Not by the engine's own port either, nor from outside.
        assert not care.resolve("10.10.0.1", "node.operator.example", timeout=0.3, port=5300)
        assert not hospital.stranger.resolve(
            places.GATEWAY_WAN.v4, "node.operator.example", timeout=0.3, port=5300
        )
        left = outside.seen(from_gateway=True)
        asked = hospital.dns_asked()
    # The daemon itself asks for the names of the files, in both families.
    files = {"results.lab.example", "pay.treasury.example", "relay.mail.example"}
    assert {name for name, _ in asked} <= files
    assert {kind for _, kind in asked} <= {"a", "aaaa"}
    assert {(flow.destination, flow.destination_port) for flow in left} <= {(DNS, 53)}


def bindings(kind: str, *records: str) -> dict:
    """Say for a zone of the lab's DNS server that a name has these records."""
    wires = [dns.rdata.from_text("IN", kind.upper(), one).to_wire() for one in records]
    return {kind: [wire.hex() for wire in wires], "ttl": 86400}


WAYS = [
    {"protocol": protocol, "edns": edns, "kind": kind}
    for protocol in ("udp", "tcp")
    for edns in (False, True)
    for kind in ("https", "svcb")
]


def test_hints_are_reached_at_once_and_lead_nowhere_else(hospital: Hospital, gated):
    """A browser that asks for HTTPS records connects to what they hint at, and never asked for an
    address.
    """
    daemon, _ = gated
    care = hospital.care
    fresh = [f"203.0.113.{n}" for n in range(210, 210 + len(WAYS))]
    fresh6 = [f"2001:db8:ffff::{n:x}" for n in range(0x210, 0x210 + len(WAYS))]
    zone = {
        f"n{n}.operator.example": bindings(
            way["kind"],
            (
                f"1 . alpn=h2,h3 ipv4hint={fresh[n]},10.20.0.7,192.168.7.7 "
                f"ipv6hint={fresh6[n]},fd00::7"
            ),
        )
        for n, way in enumerate(WAYS)
    }
    many = [
        f"{n} . ipv4hint=" + ",".join(f"203.0.113.{m}" for m in range(1, 60)) for n in (1, 2, 3)
    ]
    zone["many.operator.example"] = bindings("https", *many)
    zone["away.operator.example"] = bindings(
        "https", "1 www.web.example. ipv4hint=203.0.113.9", "2 . port=8443 ipv4hint=203.0.113.8"
    )
    zone["www.web.example"] = bindings("https", "1 . alpn=h2")
    hospital.dns(ZONE | zone)
    daemon.level("cut")
    wait_for_purge(daemon)
    assert not care.tcp(fresh[0]), "a hint that nobody was given is not kept"
    for n, way in enumerate(WAYS):
        reply = asked(care, f"n{n}.operator.example", **way)
        assert [one.to_text().replace('"', "") for one in reply.answer[0]] == [
            f"1 . alpn=h2 ipv4hint={fresh[n]} ipv6hint={fresh6[n]}"
        ]
        assert care.tcp(fresh[n]).error == ""
        assert care.tcp(fresh6[n]).error == ""
        assert not care.tcp(fresh[n], 8443)
        assert not hospital.admin.tcp(fresh[n])
    assert not asked(care, "away.operator.example").answer
    assert not care.tcp("203.0.113.8")
    assert not care.tcp("203.0.113.9")
    # Without EDNS 512 bytes are what a client can take: the rest over TCP.
    short = asked(care, "many.operator.example")
    assert short.flags & dns.flags.TC
    assert not short.answer
    for way in ({"edns": True}, {"protocol": "tcp"}):
        assert len(asked(care, "many.operator.example", **way).answer[0]) == len(many)
    # dnsmasq caches none (it tells who asks), the forwarder keeps what it taught the kernel: over
    # long before the kernel's hour, as one that a client caches is.
    hospital.dns_asked()
    for _ in range(3):
        assert asked(care, "n0.operator.example").answer[0].ttl <= 300
    assert care.resolve(DNS, "www.web.example", "https").more["rcode"] == REFUSED
    left = hospital.dns_asked()
    assert ("n0.operator.example", "https") not in left
    assert "www.web.example" not in {name for name, _ in left}
    wait_until(lambda: daemon.status()["dns"]["strained"].get("private") == 3 * len(WAYS))
    assert daemon.status()["dns"]["strained"]["binding"] == 2


def asked(host: Host, name: str, kind: str = "https", **how) -> dns.message.Message:
    """Ask the DNS server outside; give the answer, from whatever server it is."""
    return dns.message.from_wire(bytes.fromhex(host.resolve(DNS, name, kind, **how).more["reply"]))


def test_questions_from_before_the_cut_are_answered_anew(hospital: Hospital, gated):
    """A DNS connection keeps where its first packet went, so the switch ends it, both ways."""
    daemon, _ = gated
    care = hospital.care
    port = care.worker.do("question", server=DNS, source=care.v4, name="www.web.example")
    assert port["rcode"] == 0, "open: the server outside answers"
    daemon.level("cut")
    wait_for_purge(daemon)
    again = {"server": DNS, "source": care.v4, "local": port["local"]}
    assert care.worker.do("question", name="www.web.example", **again)["rcode"] == REFUSED
    assert care.worker.do("question", name="x.operator.example", **again)["rcode"] == 0
    daemon.level("open")
    wait_for_purge(daemon)
    assert care.worker.do("question", name="www.web.example", **again)["rcode"] == 0


def test_rates_hold(hospital: Hospital):
    """One machine asks under an allowed wildcard as fast as it can.

    A bound for it, and a tighter one for new names.
    """
    hospital.dns(ZONE)
    limits = {"client_queries": 100, "wildcard_names": 5}
    daemon, _ = started(hospital, {"limits": limits})
    daemon.level("cut")
    hospital.dns_asked()
    done = hospital.care.ask_often(DNS, ["%.operator.example"], "a", 4.0, 2000)
    leaked = [name for name, _ in hospital.dns_asked() if name.endswith("operator.example")]
    assert done["sent"] > 4000
    assert 5 <= len(set(leaked)) <= 5 * (10 + 4 + 2), (
        "ten seconds' worth at once, then five a second"
    )
    answered = sum(done["rcodes"].values())
    assert answered <= 100 * (2 + 4 + 1), (
        "of each client so much a second, and twice as much at once"
    )
    assert hospital.admin.resolve(DNS, "results.lab.example"), "others are answered meanwhile"
    daemon.stop()


def test_whoever_is_beyond_the_bound_is_named_until_it_may_ask_more(hospital: Hospital):
    """A server of the inside loses kept names by the bound of one machine.

    `status` says whose, and what to type.
    """
    hospital.dns(ZONE)
    limits = {"client_queries": 20, "wildcard_names": 5}
    daemon, _ = started(hospital, {"limits": limits})
    daemon.level("cut")
    assert not daemon.status()["dns"]["limited"], "nobody asked too much yet"
    assert hospital.admin.resolve(DNS, "results.lab.example"), (
        "asks within its bound, and is not named"
    )
    done = hospital.care.ask_often(DNS, ["n%.blocked.example"], "a", 2.0, 300)
    dropped = done["sent"] - sum(done["rcodes"].values())
    assert dropped > 300
    status = daemon.status()
    (one,) = status["dns"]["limited"]
    assert (one["source"], one["zone"]) == (hospital.care.v4, "care")
    assert dropped / 2 <= one["questions"] <= done["sent"]
    (said,) = [text for text in status["warnings"] if "beyond 20 questions a second" in text]
    assert hospital.care.v4 in said
    assert "internal: servers" in said
    servers = [{"names": ["hospital.example"], "servers": [hospital.care.v4]}]
    daemon.write_config(policy.site(dns_gate={"limits": limits, "internal": servers}), ALLOWLIST)
    assert daemon.cli("reload", "--yes").returncode == 0
    assert not daemon.status()["dns"]["limited"], (
        "it is a server of the inside now, without that bound"
    )
    again = hospital.care.ask_often(DNS, ["m%.blocked.example"], "a", 2.0, 100)
    assert sum(again["rcodes"].values()) > 20 * (2 + 2 + 1), "more than one machine may"
    daemon.stop()


SENDS = """
import socket, struct, sys
server, port, protocol, flags, *labels = sys.argv[1:]
name = b"".join(bytes([len(one)]) + one for one in (bytes.fromhex(text) for text in labels))
question = struct.pack("!6H", 7, int(flags), 1, 0, 0, 0) + name + b"\\0\\0\\1\\0\\1"
kind = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}[protocol]
with socket.socket(socket.AF_INET, kind) as sock:
    sock.settimeout(1.0)
    try:
        sock.connect((server, int(port)))
        sock.send(question if protocol == "udp" else struct.pack("!H", len(question)) + question)
        reply = sock.recv(2048)[2 * (protocol == "tcp"):]
    except OSError:
        reply = b""
print(reply[3] & 15 if len(reply) > 3 else "silence")
"""


def ask(
    hospital: Hospital,
    role: str,
    server: str,
    port: int,
    labels: list[bytes],
    protocol: str = "udp",
    flags: int = 0x100,
) -> str:
    """Ask for a name of these labels, whatever stands in them.

    Give the answer's code, or `silence`.
    """
    told = (server, str(port), protocol, str(flags), *(label.hex() for label in labels))
    return hospital.run(role, [sys.executable, "-c", SENDS, *told]).stdout.strip()


def test_the_forwarder_answers_dnsmasq_alone_and_names_are_what_their_labels_are(
    hospital: Hospital, gated
):
    """A program on the gateway asks past the engine, a machine hides a dot in a label or another
    question in a name.
    """
    daemon, gate = gated
    daemon.level("cut")
    hospital.dns_asked()
    below = [b"here", b"operator", b"example"]
    assert ask(hospital, "care", DNS, 53, below) == "0", "positive control"
    assert ask(hospital, "care", DNS, 53, below, "tcp") == "0", "positive control, by TCP"
    assert ask(hospital, "gw", "127.0.0.1", 5300, [b"there", *below[1:]]) == "0", (
        "the engine answers on loopback too"
    )
    asked = {name for name, _ in hospital.dns_asked()}
    assert asked >= {"here.operator.example", "there.operator.example"}
    for protocol in ("udp", "tcp"):
        assert ask(hospital, "gw", "127.0.0.1", 5301, [b"past", *below[1:]], protocol) == "silence"
        assert (
            ask(hospital, "gw", "127.0.0.1", 5301, [b"past", *below[1:]], protocol, 0x8100)
            == "silence"
        )
    for labels in (
        [b"evil.operator", b"example"],
        [b"x.operator.example"],
        [b"a\\.operator", b"example"],
    ):
        assert ask(hospital, "care", DNS, 53, labels) == str(REFUSED)
    forged = [b"x query[A] innocent", b"example from 10", b"30", b"5", b"30"]
    assert ask(hospital, "care", DNS, 53, forged) == str(REFUSED)
    kept = {"results.lab.example"}
    assert not {name for name, _ in hospital.dns_asked()} - kept, "nothing of it left"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        names = daemon.api("GET", "/v1/refused").body["names"]
        if any("innocent" in row["name"] for row in names):
            break
        time.sleep(0.1)
    (row,) = [row for row in names if "innocent" in row["name"]]
    assert (row["client"], row["zone"]) == (hospital.care.v4, "care"), (
        "whose the packet was, not what its name says"
    )
    assert "Traceback" not in gate.log.read_text()
    assert (gate.rundir / "dnsmasq.conf").stat().st_mode & 0o077 == 0, "the word is between the two"


ASKS_FOR_NEW_NAMES = """
import socket, sys, time
import dns.edns, dns.message
server, source, forged = sys.argv[1:]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((source, 0))
sock.connect((server, 53))
for n in range(300):
    options = [dns.edns.ECSOption(f"10.10.9.{n % 250 + 1}", 32)] if forged == "forged" else []
    query = dns.message.make_query(f"x{n}.operator.example", "A", use_edns=0, options=options)
    try:
        sock.send(query.to_wire())
    except OSError:
        pass
    time.sleep(0.02)
"""


@pytest.mark.parametrize("how", ["plain", "forged"])
def test_one_machine_does_not_use_up_a_wildcard(hospital: Hospital, how: str):
    """A machine that asks for ever new names leaves room for the others', also when it says that
    others ask.
    """
    hospital.dns(ZONE)
    limits = {"client_queries": 50, "wildcard_names": 5}
    daemon, _ = started(hospital, {"limits": limits})
    daemon.level("cut")
    hospital.dns_asked()
    began = time.monotonic()
    infected = subprocess.Popen(
        [
            *(
                "ip",
                "netns",
                "exec",
                hospital.namespace("care"),
                sys.executable,
                "-c",
                ASKS_FOR_NEW_NAMES,
            ),
            *(DNS, hospital.care.v4, how),
        ]
    )
    time.sleep(3.0)
    others = [
        hospital.admin.resolve(DNS, f"mine{n}.operator.example").more["rcode"] for n in range(5)
    ]
    still_at_it = infected.poll() is None
    assert infected.wait(30) == 0
    assert still_at_it
    assert others == [0] * 5
    leaked = {name for name, _ in hospital.dns_asked() if re.match(r"x\d+\.operator", name)}
    seconds = time.monotonic() - began
    assert 25 < len(leaked) <= 5 * (5 + 1 + seconds), (
        "its own share, half of ten seconds' worth, then five a second"
    )
    daemon.stop()


@pytest.mark.parametrize("family", [4, 6])
def test_made_up_sources_are_not_answered_and_at_open_share_a_bound(
    hospital: Hospital, family: int
):
    """A source outside the zone's subnets.

    Refused before the engine at a cut, one machine's share for all of them at open.
    """
    hospital.dns(ZONE)
    limits = {"client_queries": 20, "wildcard_names": 1000}
    daemon, _ = started(hospital, {"mode": "always", "limits": limits})
    nobody, of_admin, another = {
        4: ("10.99.{}.7", "10.20.77.7", "10.20.77.8"),
        6: ("2001:db8:99::{}", "2001:db8:20::77:7", "2001:db8:20::77:8"),
    }[family]
    strangers = [nobody.format(n) for n in range(1, 41)]
    bits = {4: 32, 6: 128}[family]
    for one in (*strangers, of_admin, another):
        hospital.shell(
            "care", f"ip addr add {one}/{bits} dev eth0 {'nodad' if family == 6 else ''}"
        )
        hospital.shell(
            "gw", f"ip route add {one}/{bits} dev care0"
        )  # so that an answer would be seen
    server, own = places.DNS_SERVER.address(family), places.CARE.gateway.address(family)

    def ask(source: str, name: str, to: str = server, port: int = 53) -> int:
        return hospital.care.worker.do(
            "resolve", server=to, name=name, source=source, timeout=0.3, port=port
        )["rcode"]

    def answered_at_open() -> int:
        """Ask 6 times from each of forty sources, as fast as possible; count the answers."""
        codes = [
            hospital.care.worker.begin(
                "ask_often",
                server=server,
                source=one,
                names=["www.web.example"],
                kind="a",
                seconds=0.3,
                rate=20,
            )
            for one in strangers
        ]
        return sum(sum(code.result(60)["rcodes"].values()) for code in codes)

    wait_until(lambda: hospital.admin.resolve(DNS, "www.web.example").more["addresses"])
    began = time.monotonic()
    assert ask(of_admin, "www.web.example") == 0, "open shuts nothing"
    assert ask(strangers[0], "www.web.example") == 0
    assert hospital.care.resolve(server, "www.web.example").more["rcode"] == 0
    several = answered_at_open()
    assert 0 < several <= 5 + 20 * (time.monotonic() - began), (
        "one bound for all of them, however many"
    )
    assert hospital.care.resolve(server, "www.web.example").more["rcode"] == 0, (
        "and not that of the others"
    )
    inside = hospital.admin.worker
    inside.do("listen", protocol="udp", ports=[53])
    inside.do("dns", zone={"*.hospital.example": {"a": ["10.20.0.7"]}})
    daemon.level("cut")
    wait_for_purge(daemon)
    hospital.dns_asked()
    assert ask(strangers[0], "x.hospital.example", places.ADMIN_HOST.address(family)) == 0, (
        "inside to inside"
    )
    # An address of the outside, which the gateway does not track: no answer would come back.
    outside = {4: "198.51.100.230", 6: "2001:db8:51::230"}[family]
    hospital.shell(
        "care", f"ip addr add {outside}/{bits} dev eth0 {'nodad' if family == 6 else ''}"
    )
    for number, source in enumerate((strangers[0], another, outside)):
        for to, port in ((server, 53), (own, 53), (own, 5300)):
            assert ask(source, f"made-up{number}.operator.example", to, port) == -1
    assert hospital.care.resolve(server, "own.operator.example").more["rcode"] == 0, (
        "positive control"
    )
    assert hospital.care.resolve(own, "own2.operator.example").more["rcode"] == 0
    asked = {name for name, _ in hospital.dns_asked()}
    assert {"own.operator.example", "own2.operator.example"} <= asked
    assert not [name for name in asked if name.startswith("made-up")]
    rate = hospital.shell("gw", f"nft list set inet ecluse dns_rate_{family}")
    assert another not in rate.partition("elements")[2], (
        "nor was it counted as the machine of the other zone"
    )
    refused = hospital.shell("gw", f"nft list set inet ecluse refused_hosts{family}")
    assert another in refused
    daemon.stop()


def test_one_machine_does_not_take_all_places_with_names_that_are_slow(hospital: Hospital):
    """Questions that nobody answers wait for two seconds each.

    Of one machine only so many, so that others are asked for.
    """
    hospital.dns(ZONE | {"*.slow.example": {"silent": True}})
    slow = policy.service(
        "slow", "vital", ["care"], [{"to": "*.slow.example", "ports": ["tcp/443"]}]
    )
    limits = {
        "client_queries": 5000,
        "wildcard_names": 5000,
    }  # what ends the flood is the places alone
    allowlist = ALLOWLIST | {"50-slow.yaml": [slow]}
    daemon, _ = started(hospital, {"limits": limits}, allowlist)
    daemon.level("cut")
    asking = {"server": DNS, "names": ["%.slow.example"], "kind": "a", "seconds": 15.0, "rate": 900}
    infected = hospital.care.worker.begin("ask_often", source=hospital.care.v4, **asking)
    time.sleep(2.0)

    def asked() -> int:
        """Ask as a stub resolver does, again where nothing came.

        A loaded machine drops a datagram now and then.
        """
        tries = (
            hospital.admin.resolve(DNS, "node.operator.example").more["rcode"] for _ in range(5)
        )
        return next((rcode for rcode in tries if rcode == 0), -1)

    answers = []
    while len(answers) < 20 and not infected.done():
        answers.append(asked())
        time.sleep(0.06)
    if infected.done():
        answers.pop()  # the last may have been answered after the flood
    assert len(answers) > 1, "the flood was there meanwhile"
    assert answers == [0] * len(answers), answers
    assert infected.result(60)["rcodes"][str(REFUSED)] > 500, (
        "the flood was there, and its excess refused at once"
    )
    daemon.stop()


def test_the_record_tells_who_asked(hospital: Hospital, gated):
    daemon, _ = gated
    daemon.level("cut")
    for _ in range(3):
        hospital.guest.resolve(DNS, "beacon.tunnel.example")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        names = daemon.api("GET", "/v1/refused").body["names"]
        if any(one["times"] == 3 for one in names):
            break
        time.sleep(0.1)
    assert names[0] | {"last": 0} == {
        "client": hospital.guest.v4,
        "zone": "guests",
        "name": "beacon.tunnel.example",
        "type": "A",
        "why": "name",
        "times": 3,
        "last": 0,
    }
    shown = daemon.cli("refused").stdout
    assert "beacon.tunnel.example" in shown


def test_the_gate_dies_hangs_and_is_broken(hospital: Hospital, gated):
    """Nothing opens, kept services by names that were resolved before go on, and it is said within
    five seconds.
    """
    daemon, gate = gated
    care = hospital.care
    daemon.level("cut")
    held = care.resolve(DNS, "node.operator.example").more["addresses"][0]
    talking = care.open(held)
    with hospital.sniff() as outside:

        def still_shut() -> None:
            assert not care.resolve(DNS, "a.tunnel.example", timeout=0.5).more["addresses"]
            assert care.tcp(held)
            assert care.tcp(places.LABORATORY.v4)
            assert talking.talk()
            assert not outside.seen(destination=DNS, port=53, source=care.v4)

        # The engine is killed: the gate's own process starts another.
        first = gate.engine
        os.kill(first, signal.SIGKILL)
        still_shut()
        wait_until(
            lambda: gate.engine not in {0, first} and care.resolve(DNS, "node.operator.example")
        )
        gate.wait_until_well()
        # The engine hangs: said, and replaced.
        second = gate.engine
        os.kill(second, signal.SIGSTOP)
        still_shut()
        assert gate.wait_until_said() < 5
        gate.wait_until_well()
        assert gate.engine not in {0, second}
        # The process hangs, and goes on.
        gate.process.send_signal(signal.SIGSTOP)
        assert gate.wait_until_said() < 5
        still_shut()
        gate.process.send_signal(signal.SIGCONT)
        gate.wait_until_well()
        # The process is killed: what it started ends with it, and nothing answers until it is
        # started again.
        gate.kill9()
        still_shut()
        assert gate.wait_until_said() < 5
        gate.start()
        gate.wait_until_well()
        assert care.resolve(DNS, "node.operator.example")
        # Orders that nobody can read: those before stand.
        orders = daemon.rundir / "dns-orders.json"
        whole = orders.read_bytes()
        orders.write_bytes(whole[:100])
        assert gate.wait_until_said() < 5
        still_shut()
        assert care.resolve(DNS, "node.operator.example")
        orders.write_bytes(whole)
        gate.wait_until_well()
        # An engine that does not start.
        (gate.rundir / "dnsmasq.conf").write_text("no-such-option\n")
        os.kill(gate.engine, signal.SIGKILL)
        assert gate.wait_until_said() < 5
        still_shut()


def wait_until(true, patience: float = 5.0) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def test_learned_addresses_outlast_everything(hospital: Hospital, gated):
    """Reload, rollback, daemon's restart and crash, the gate's own restart, and the table made
    again.
    """
    daemon, gate = gated
    care = hospital.care
    daemon.level("cut")
    held = care.resolve(DNS, "node.operator.example").more["addresses"][0]
    assert care.tcp(held)
    number = daemon.status()["generation"]
    more = policy.service(
        "other", "vital", ["care"], [{"to": "203.0.113.250", "ports": ["tcp/22"]}]
    )
    daemon.write_config(policy.site(dns_gate=ROOM), ALLOWLIST | {"50-more.yaml": [more]})
    assert daemon.cli("reload", "--yes", "--reason", "test").returncode == 0
    assert care.tcp(held)
    assert daemon.cli("rollback", str(number), "--yes", "--reason", "test").returncode == 0
    assert care.tcp(held)
    daemon.restart()
    assert care.tcp(held)
    daemon.kill9()
    assert care.tcp(held)
    daemon.start()
    assert care.tcp(held)
    gate.stop()
    assert care.tcp(held)
    hospital.shell("gw", "nft flush ruleset")
    hospital.nft(SITE_NAT)
    gate.start()
    wait_until(lambda: care.tcp(held, timeout=0.3))
    # Without the reload's name nothing is left of what it learned: prune takes the sets of services
    # that are gone.
    assert "dns_svc_secure_mail_4" in hospital.shell("gw", "nft list sets")


def test_open_is_left_alone_and_always_is_not(hospital: Hospital, gated):
    daemon, gate = gated
    with hospital.sniff() as outside:
        assert hospital.care.resolve(DNS, "www.web.example").more["addresses"] == [places.WEB.v4]
        assert hospital.care.resolve(DNS, "node.operator.example")
        assert outside.seen(destination=DNS, port=53)
    daemon.write_config(policy.site(dns_gate=ROOM | {"mode": "always"}), ALLOWLIST)
    assert daemon.cli("reload", "--yes", "--reason", "test").returncode == 0
    wait_until(lambda: hospital.care.resolve("10.10.0.1", "www.web.example").more["addresses"])
    assert not hospital.care.resolve("10.10.0.1", "nobody.example").more["addresses"]
    # What is learned at open is there at the cut: a connection to a wildcard's address outlasts it.
    talking = hospital.care.open(
        hospital.care.resolve(DNS, "node.operator.example").more["addresses"][0]
    )
    hospital.dns_asked()
    daemon.level("cut")
    wait_for_purge(daemon)
    assert talking.talk()
    assert hospital.care.resolve(DNS, "x1.tunnel.example").more["rcode"] == REFUSED
    assert "x1.tunnel.example" not in [name for name, _ in hospital.dns_asked()]
    # A site that gives the gate up has neither redirect nor engine, and asks as any other.
    daemon.write_config(policy.site(), policy.ALLOWLIST)
    daemon.level("open")
    assert daemon.cli("reload", "--yes", "--reason", "test").returncode == 0
    wait_until(lambda: hospital.care.resolve(DNS, "www.web.example").more["addresses"])
    wait_until(lambda: not gate.engine)


def test_a_flood_at_open_is_bounded_for_each_machine(hospital: Hospital):
    """`mode: always`: one machine that floods the gate in peace time does not take the others' DNS
    away.
    """
    hospital.dns(ZONE)
    own = {"mode": "always", "limits": {"client_queries": 50, "wildcard_names": 10}}
    daemon, _ = started(hospital, own)
    wait_until(lambda: hospital.admin.resolve(DNS, "www.web.example").more["addresses"])

    def flood(server: str = DNS, port: int = 53, host: Host = hospital.guest) -> tuple[int, int]:
        """Flood for three seconds from a machine.

        Give how much was answered, and how often another was not.
        """
        asked = {
            "server": server,
            "names": ["www.web.example"],
            "kind": "a",
            "seconds": 3.0,
            "rate": 2000,
        }
        asking = host.worker.begin("ask_often", source=host.v4, port=port, **asked)
        others = [
            hospital.admin.resolve(DNS, "www.web.example").more["addresses"] for _ in range(100)
        ]
        done = asking.result(60)
        assert done["sent"] > 4000
        return sum(done["rcodes"].values()), others.count([])

    most = 50 * (2 + 3 + 1)
    answered, missed = flood()
    assert most / 3 < answered <= most, "so much a second, and twice as much at once"
    assert not missed, "others are answered meanwhile"
    assert flood("10.30.0.1", 5300)[0] <= most, "the engine's own port is no way round it"
    # Only questions are bounded: whatever else goes to the gateway is not looked at.
    assert hospital.guest.tcp(places.WEB.v4)
    # One zone cut, the others open: it has the same bound of the same set, and they ask as if there
    # were no gate.
    daemon.level("cut", zones=["care"])
    wait_for_purge(daemon)
    answered, missed = flood(host=hospital.care)
    assert 0 < answered <= most
    assert not missed
    with hospital.sniff() as outside:
        assert hospital.guest.resolve(DNS, "www.web.example").more["addresses"] == [places.WEB.v4]
        assert outside.seen(destination=DNS, port=53)
    # Positive control: with the bound taken out, and nobody there to put it back, the flood gets
    # through.
    daemon.level("open")
    assert flood()[0] <= most
    daemon.kill9()
    listed = hospital.shell("gw", "nft list chain inet ecluse input")
    stem = re.search(r"goto (k\d+_)dns\.open", listed)
    assert stem, listed
    hospital.shell("gw", f"nft flush chain inet ecluse {stem[1]}dns.bound")
    assert flood()[0] > 3 * most


@pytest.mark.parametrize(
    ("names", "rate"),
    [
        ([f"n{number}.nobody.example" for number in range(64)], 20_000),
        (["results.lab.example"], 5_000),
    ],
    ids=["in vain", "for a kept name"],
)
def test_a_crowd_that_asks_holds_nobody_up(hospital: Hospital, gated, names, rate):
    """500 machines that ask for names that nobody keeps, or all for the same one.

    Kept names are answered beside them.
    """
    daemon, gate = gated
    daemon.level("cut")
    crowd = [f"10.10.{100 + n // 250}.{1 + n % 250}" for n in range(500)]
    hospital.shell("care", "".join(f"ip addr add {one}/32 dev eth0\n" for one in crowd))
    asking = hospital.worker("crowd", "care").begin(
        "crowd", server=DNS, sources=crowd, names=names, rate=rate, seconds=8.0
    )
    time.sleep(1.0)
    before = memory_of(gate)
    times = []
    for number in range(300):
        name = ("pay.treasury.example", "results.lab.example", "node.operator.example")[number % 3]
        answer = hospital.admin.resolve(DNS, name, timeout=1.0)
        times.append(answer.ms if answer.more["addresses"] else 1000.0)
        time.sleep(0.01)
    done = asking.result(60)
    reached, slow = done["sent"] / done["seconds"], sorted(times)
    told = (
        f"{reached:.0f}/s, {done}, median {slow[150]:.1f} ms, worst {slow[-1]:.0f} ms, "
        f"{before} -> {memory_of(gate)} KiB"
    )
    print(told)
    assert reached > rate / 2, f"the crowd itself was too slow: {told}"
    assert slow[150] < 20, told
    assert memory_of(gate) < before + 20_000, told
    assert gate.engine


def memory_of(gate: DnsGate) -> int:
    """Give the KiB that the process and its engine hold."""
    both = (gate.process.pid, gate.engine)
    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in both)
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def test_new_names_come_without_a_gap(hospital: Hospital, gated):
    """Five reloads, each with another name, under a machine that asks all the time.

    No question is lost or refused.
    """
    daemon, gate = gated
    daemon.level("cut")
    engine = gate.engine
    asking = hospital.care.worker.begin(
        "ask_often",
        server=DNS,
        names=["pay.treasury.example", "node.operator.example"],
        kind="a",
        seconds=6.0,
        rate=200,
        source=hospital.care.v4,
    )
    for number in range(5):
        name = f"new{number}.lab.example"
        hospital.dns(ZONE | {name: {"a": [f"203.0.113.{30 + number}"]}})
        more = policy.service(
            f"new{number}", "vital", ["care"], [{"to": name, "ports": ["tcp/443"]}]
        )
        daemon.write_config(policy.site(dns_gate=ROOM), ALLOWLIST | {"50-more.yaml": [more]})
        assert daemon.cli("reload", "--yes", "--reason", "test").returncode == 0
        wait_until(lambda name=name: hospital.admin.resolve(DNS, name).more["addresses"])
        assert hospital.care.tcp(f"203.0.113.{30 + number}")
    done = asking.result(60)
    assert done["rcodes"] == {"0": done["sent"]}
    assert gate.engine == engine, "the engine was told of the names, not replaced"


def test_an_address_lives_as_long_as_it_is_answered_or_used(hospital: Hospital, gated):
    """Kept for an hour after it was answered, refreshed by each packet.

    A short time-out stands for the hour here.
    """
    daemon, gate = gated
    care = hospital.care
    daemon.level("cut")
    answered = care.resolve(DNS, "node.operator.example").more["addresses"][0]
    listed = hospital.shell("gw", "nft list set inet ecluse dns_svc_secure_mail_4")
    assert re.search(rf"{re.escape(answered)} expires (59m5\d|1h)", listed), listed
    idle, used = learn_two(hospital)
    gate.stop()  # it would put back what is over before its time
    for address in (idle, used):
        for name in LEARNED_SETS:
            element = f"inet ecluse {name} '{{ {address}"
            hospital.shell(
                "gw",
                f"nft delete element {element} }}' && nft add element {element} timeout 2s }}'",
            )
    talking = care.open(used)
    for _ in range(12):
        time.sleep(0.25)
        assert talking.talk()
    assert not care.tcp(idle), "over, and nobody asked for it again"
    assert care.tcp(used)
    assert "changed addresses of the DNS gate" in daemon.tail(200), (
        "what somebody else does to the sets is told"
    )
    gate.start()
    gate.wait_until_well()
    assert care.tcp(used), "known, although its time was short"


LEARNED_SETS = ("dns_svc_secure_mail_4", "dns_all_4")


def learn_two(hospital: Hospital) -> tuple[str, str]:
    """Have care ask until it was given two addresses; give them."""
    found: set[str] = set()
    while len(found) < 2:
        found.update(hospital.care.resolve(DNS, "node.operator.example").more["addresses"])
    first, second, *_ = sorted(found)
    return first, second


def put_in(hospital: Hospital, address: str) -> None:
    """Add an address to the gate's sets as somebody else would."""
    for name in LEARNED_SETS:
        hospital.shell("gw", f"nft add element inet ecluse {name} '{{ {address} }}'")


def test_what_somebody_else_puts_into_the_sets_is_taken_out(hospital: Hospital, gated):
    """It passes for a moment at most, as everything that root does to the table, and is no more
    saved as if it were ours.
    """
    daemon, gate = gated
    care, strange = hospital.care, "203.0.113.210"
    daemon.level("cut")
    held, _ = learn_two(hospital)
    talking = care.open(held)
    gate.process.send_signal(signal.SIGSTOP)
    put_in(hospital, strange)
    through = care.open(strange)
    assert through.talk(), "positive control: nobody is there to take it out"
    gate.process.send_signal(signal.SIGCONT)
    wait_until(lambda: not care.tcp(strange, timeout=0.3))
    assert not through.talk(), "and so does the connection that it let through"
    gate.wait_until_well()
    wait_until(lambda: daemon.status()["dns"]["removed"] == 2)
    assert strange in daemon.status()["dns"]["removed_last"]
    assert (
        "2 addresses that somebody else put into its sets taken out" in daemon.cli("status").stdout
    )
    wait_until(lambda: "somebody else's addresses out of its sets" in daemon.tail(200))
    # By the kernel's word, not by the save once a minute.
    for number in range(211, 214):
        put_in(hospital, f"203.0.113.{number}")
        wait_until(lambda number=number: not care.tcp(f"203.0.113.{number}", timeout=0.3))
    assert talking.talk()
    assert care.tcp(held)
    gate.stop()
    assert strange not in (gate.state / "learned.nft").read_text()


def test_a_gate_that_is_killed_right_after_it_learned_an_address_keeps_it(
    hospital: Hospital, gated
):
    """What it learned after its last snapshot stays in the kernel; connections notice nothing."""
    daemon, gate = gated
    care, strange = hospital.care, "203.0.113.210"
    daemon.level("cut")
    hospital.dns(ZONE | {"*.operator.example": OPERATOR | {"a": ["203.0.113.150"]}})
    held = care.resolve(DNS, "node.operator.example").more["addresses"][0]
    gate.kill9()
    assert held not in (gate.state / "learned.nft").read_text(), "not saved yet"
    talking = care.open(held)
    put_in(hospital, strange)
    gate.start()
    wait_until(lambda: not care.tcp(strange, timeout=0.3))
    assert talking.talk()
    assert care.tcp(held)
    gate.wait_until_well()
    assert talking.talk()
    # Killed, and the table gone as well: the record alone knows of it.
    gate.kill9()
    hospital.shell("gw", "nft flush ruleset")
    hospital.nft(SITE_NAT)
    gate.start()
    wait_until(lambda: care.tcp(held, timeout=0.3))


def test_names_of_the_inside_are_answered_by_the_inside(hospital: Hospital):
    server = places.CARE_SERVER.v4
    inside = hospital.care_server.worker
    inside.do("listen", protocol="udp", ports=[53])
    inside.do(
        "dns",
        zone={"*.hospital.example": {"a": ["10.20.0.7"]}, "other.example": {"a": ["192.0.2.9"]}},
    )
    own = {
        "internal": [{"names": ["hospital.example"], "servers": [server]}],
        "limits": {"client_queries": 5},
    }
    daemon, _ = started(hospital, own)
    daemon.level("cut")
    assert hospital.admin.resolve(DNS, "ehr.hospital.example").more["addresses"] == ["10.20.0.7"]
    assert hospital.admin.resolve(DNS, "other.example").more["rcode"] == REFUSED
    # Inside to inside is never touched, a DNS server of another zone neither.
    assert hospital.admin.resolve(server, "other.example").more["addresses"] == ["192.0.2.9"]
    # It asks for all the machines behind it: the bound of one machine is not meant for it.
    crowd = hospital.care_server.ask_often(DNS, ["nobody.example"], "a", 1.5, 100)
    assert crowd["rcodes"] == {"5": crowd["sent"]}
    alone = hospital.admin.ask_often(DNS, ["nobody.example"], "a", 1.5, 100)
    assert sum(alone["rcodes"].values()) < alone["sent"] / 2
    daemon.stop()


def test_the_engine_has_no_right_to_anything(hospital: Hospital, gated):
    _, gate = gated
    status = Path(f"/proc/{gate.engine}/status").read_text()
    assert set(re.findall(r"^Cap(?:Prm|Eff|Amb):\s+(\w+)", status, re.MULTILINE)) == {"0" * 16}
    assert "NoNewPrivs:\t1" in status
    done = hospital.run("gw", ["dnsmasq", "--test", f"--conf-file={gate.rundir / 'dnsmasq.conf'}"])
    assert "syntax check OK" in done.stderr


def test_at_isolate_no_name_is_answered(hospital: Hospital, gated):
    daemon, _ = gated
    daemon.level("isolate")
    wait_for_purge(daemon)
    hospital.dns_asked()
    for name in ("node.operator.example", "results.lab.example", "a.tunnel.example"):
        assert not hospital.care.resolve(DNS, name, timeout=0.3).more["addresses"]
        assert not hospital.care.resolve("10.10.0.1", name, timeout=0.3, port=5300).more[
            "addresses"
        ]
    assert "operator.example" not in str(hospital.dns_asked())


def test_a_connection_outlasts_the_cut_however_long_ago_its_name_was_asked_for(
    hospital: Hospital, gated
):
    """At open no packet comes by the gate's sets: the daemon looks at the connections.

    A short time-out stands for the hour.
    """
    daemon, gate = gated
    care = hospital.care
    daemon.write_config(policy.site(dns_gate=ROOM | {"mode": "always"}), ALLOWLIST)
    assert daemon.cli("reload", "--yes", "--reason", "test").returncode == 0
    wait_until(lambda: care.resolve("10.10.0.1", "node.operator.example").more["addresses"])
    held, idle = ROTATING[0], ROTATING[1]
    wait_until(lambda: {held, idle} <= addresses_in(hospital, care), 30.0)
    talking = care.open(held)
    assert talking.talk()
    gate.stop()
    for address in (held, idle):
        for name in ("dns_svc_secure_mail_4", "dns_all_4"):
            element = f"element inet ecluse {name} '{{ {address}"
            hospital.shell("gw", f"nft delete {element} }}'; nft add {element} timeout 10s }}'")
    daemon.restart()
    wait_until(lambda: idle not in addresses_in(hospital), 20.0)
    assert held in addresses_in(hospital)
    daemon.level("cut")
    wait_for_purge(daemon)
    assert talking.talk()
    assert care.tcp(held)
    assert not care.tcp(idle), "positive control: nobody used it, and nobody answered with it again"


def addresses_in(hospital: Hospital, asking: Host | None = None) -> set[str]:
    """Give what the gate's sets hold for the operator, after one more question of `asking`."""
    if asking:
        asking.resolve(DNS, "node.operator.example")
    return set(
        re.findall(
            r"203\.0\.113\.\d+",
            hospital.shell("gw", "nft list set inet ecluse dns_svc_secure_mail_4"),
        )
    )


def test_a_wildcard_that_is_taken_out_of_a_service_is_cut_off_by_the_reload(
    hospital: Hospital, gated
):
    daemon, _ = gated
    care = hospital.care
    also = policy.service(
        "secure-mail",
        "vital",
        ["care"],
        [{"to": name, "ports": ["tcp/443"]} for name in ("*.operator.example", "*.second.example")],
    )
    hospital.dns(ZONE | {"*.second.example": {"a": ["203.0.113.98"], "ttl": 0}})
    site = policy.site(dns_gate=ROOM)
    daemon.write_config(site, ALLOWLIST | {"40-names.yaml": [also]})
    daemon.level("cut")
    assert daemon.cli("reload", "--yes", "--reason", "test").returncode == 0
    wait_until(lambda: care.resolve(DNS, "n.second.example").more["addresses"])
    other = care.resolve(DNS, "n.second.example").more["addresses"][0]
    leaving = care.resolve(DNS, "node.operator.example").more["addresses"][0]
    stays, goes = care.open(other), care.open(leaving)
    assert stays.talk()
    assert goes.talk()
    less = also | {"destinations": also["destinations"][1:]}
    daemon.write_config(site, ALLOWLIST | {"40-names.yaml": [less]})
    assert daemon.cli("reload", "--yes", "--reason", "compromised").returncode == 0
    wait_until(lambda: not care.tcp(leaving, timeout=0.3))
    assert not goes.talk()
    assert stays.talk()
    assert daemon.status()["dns"]["removed"] == 0, "it was no stranger"
    # Back, as soon as it is asked for again.
    daemon.write_config(site, ALLOWLIST | {"40-names.yaml": [also]})
    assert daemon.cli("reload", "--yes", "--reason", "mended").returncode == 0
    wait_until(lambda: care.resolve(DNS, "node.operator.example").more["addresses"])
    assert care.tcp(care.resolve(DNS, "node.operator.example").more["addresses"][0])


_HOLDS_A_CONNECTION = """
import socket, sys
with socket.create_connection((sys.argv[1], 53), 5):
    print("connected", flush=True)
    sys.stdin.read()
"""


def test_what_the_engine_forked_for_a_connection_ends_with_it(hospital: Hospital, gated):
    """dnsmasq forks for TCP.

    Such a child held the log open, and the gate could not be stopped for minutes (Python 3.13).
    """
    daemon, gate = gated
    daemon.level("cut")
    command = [
        "ip",
        "netns",
        "exec",
        hospital.namespace("care"),
        sys.executable,
        "-c",
        _HOLDS_A_CONNECTION,
        DNS,
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"connected\n"
        children = Path(f"/proc/{gate.engine}/task/{gate.engine}/children")
        wait_until(lambda: children.read_text().split())
        forked = children.read_text().split()
        gate.stop()
        wait_until(lambda: not [pid for pid in forked if Path(f"/proc/{pid}/stat").exists()])
        client.stdin.close()
