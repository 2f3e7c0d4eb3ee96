"""The seven promises of docs/security.md, by packets, watched from the internet side, each with its
positive control.
"""

import json
import sys
import time

import pytest

from tests.lab import netns, places
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital

pytestmark = pytest.mark.system

FAMILIES = (4, 6)
GRE, ESP, SCTP = 47, 50, 132


def everything_that_must_end(hospital: Hospital, family: int) -> dict:
    """Flows that no service of the lab keeps at `cut`.

    Name -> a try that says whether it came through.
    """
    web, lab = places.WEB.address(family), places.LABORATORY.address(family)
    mail, treasury = places.MAIL_RELAY.address(family), places.TREASURY.address(family)
    care, admin, guest, gateway = hospital.care, hospital.admin, hospital.guest, hospital.gateway
    return {
        "guest tcp": lambda: guest.tcp(web, timeout=0.3),
        "guest udp": lambda: guest.udp(web, timeout=0.3),
        "guest icmp": lambda: guest.icmp(web, 0.3),
        "care sctp to nobody's service": lambda: care.raw(SCTP, web, 0.3, port=2905),
        "care gre to nobody's service": lambda: care.raw(GRE, web, 0.3),
        "care https to the web": lambda: care.tcp(web, timeout=0.3),
        "care to the laboratory, port not kept": lambda: care.tcp(lab, 8443, timeout=0.3),
        "guest to the laboratory, zone not kept": lambda: guest.tcp(lab, timeout=0.3),
        "care to the treasury, zone not kept": lambda: care.tcp(treasury, timeout=0.3),
        "administration mail, important only": lambda: admin.tcp(mail, 25, timeout=0.3),
        "gateway tcp": lambda: gateway.tcp(web, timeout=0.3),
        "gateway udp": lambda: gateway.udp(web, timeout=0.3),
        "gateway icmp": lambda: gateway.icmp(web, 0.3),
        "gateway mail": lambda: gateway.tcp(mail, 25, timeout=0.3),
        "stranger through the port forward": lambda: hospital.stranger.tcp(
            places.GATEWAY_WAN.v4 if family == 4 else places.CARE_SERVER.v6,
            places.FORWARDED_PORT,
            timeout=0.3,
        ),
        "stranger pings the gateway": lambda: hospital.stranger.icmp(gateway.address(family), 0.3),
    }


def everything_that_is_kept(hospital: Hospital, family: int) -> dict:
    """Flows that the lab's vital services keep: name -> a try."""
    lab, treasury = places.LABORATORY.address(family), places.TREASURY.address(family)
    health = places.HEALTH_DATA.address(family)
    care, admin, gateway = hospital.care, hospital.admin, hospital.gateway
    partner = places.GATEWAY_WAN.v4 if family == 4 else places.CARE_SERVER.v6
    return {
        "laboratory https": lambda: care.tcp(lab),
        "laboratory sftp": lambda: care.tcp(lab, 22),
        "laboratory udp": lambda: care.udp(lab),
        "laboratory icmp": lambda: care.icmp(lab),
        "treasury": lambda: admin.tcp(treasury),
        "health data ike": lambda: care.udp(health, 500),
        "health data sctp": lambda: care.raw(SCTP, health, port=2905),
        "health data gre": lambda: care.raw(GRE, health),
        "health data from the gateway": lambda: gateway.udp(health, 4500),
        "dns from the gateway": lambda: gateway.resolve(
            places.DNS_SERVER.address(family), "www.web.example"
        ),
        "partner comes in": lambda: hospital.partner.tcp(partner, places.FORWARDED_PORT),
    }


def tries(table: dict) -> dict[str, bool]:
    return {name: bool(attempt()) for name, attempt in table.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_promise_1_after_cut_nothing_that_is_not_kept_crosses(
    hospital: Hospital, daemon: Daemon, family: int
):
    ending, kept = (
        everything_that_must_end(hospital, family),
        everything_that_is_kept(hospital, family),
    )
    outsiders = [places.WEB, places.MAIL_RELAY, places.STRANGER]
    with hospital.sniff() as outside:
        assert all(tries(ending).values()), "positive control: all of it passes while open"
        assert all(tries(kept).values()), tries(kept)
        lines = [
            hospital.guest.open(places.WEB.address(family)),
            hospital.gateway.open(places.WEB.address(family)),
        ]
        lines.append(hospital.guest.open(places.WEB.address(family), 5000, "udp"))
        assert all(line.talk() for line in lines)
        assert outside.count(destination=places.WEB.address(family), from_gateway=True) > 20

        change = daemon.level("cut")
        since = time.time_ns()
        assert change["verified"]

        assert not any(line.talk(timeout=0.3) for line in lines), "an open connection went on"
        after = tries(ending)
        assert not any(after.values()), after
        assert all(tries(kept).values()), tries(kept)
        for place in outsiders:
            address = place.address(family)
            assert outside.seen(since, destination=address) == []
        # Towards the laboratory and the treasury only what is kept has left.
        allowed = {(6, 443), (6, 22), (17, 5000), (17, 5001)}
        for flow in outside.seen(
            since, destination=places.LABORATORY.address(family), from_gateway=True
        ):
            assert flow.protocol in {1, 58} or (flow.protocol, flow.destination_port) in allowed, (
                flow
            )
        for line in lines:
            line.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_promise_1_at_isolate_the_lifeline_alone_is_left(
    hospital: Hospital, daemon: Daemon, family: int
):
    daemon.level("isolate")
    since = time.time_ns()
    with hospital.sniff() as outside:
        everything = everything_that_must_end(hospital, family) | everything_that_is_kept(
            hospital, family
        )
        own = everything.pop("dns from the gateway")
        after = tries(everything)
        assert not any(after.values()), after
        # Daemon and test are both root here; the site names no resolver in IPv6.
        assert bool(own()) == (family == 4), "the daemon's own look-ups are lifeline"
        ask = (
            f"import socket; s = socket.socket(socket.AF_INET{'6' if family == 6 else ''}, "
            f"socket.SOCK_DGRAM); s.sendto(b'x', ('{places.DNS_SERVER.address(family)}', 53))"
        )
        somebody = ["setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", ask]
        before = outside.count(since, destination=places.DNS_SERVER.address(family))
        assert hospital.run("gw", somebody).returncode != 0, "another user's look-ups are a way out"
        assert outside.count(since, destination=places.DNS_SERVER.address(family)) == before
        # The daemon's own look-ups are lifeline; nothing else has left.
        # (ff02::16: the kernel's own listener reports, part of the preset nd.)
        left = [
            f
            for f in outside.seen(since, from_gateway=True)
            if f.destination_port != 53 and f.destination != "ff02::16"
        ]
        assert left == []
    assert hospital.care.tcp(places.ADMIN_HOST.address(family), 9).error == "ECONNREFUSED", (
        "inside to inside"
    )


def test_promise_1_what_the_gateway_says_in_answer_is_judged_too(
    hospital: Hospital, daemon: Daemon
):
    """An infected host that writes an outside address into its packets must not have the gateway
    answer to it.
    """
    target = places.WEB.v4
    code = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\n"
        "import struct\n"
        "def ip(src, dst, proto, ttl, body):\n"
        "    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(body), 7, 0, ttl, proto, 0, "
        "socket.inet_aton(src), socket.inet_aton(dst))\n"
        "    return head + body\n"
        "def icmp(body):\n"
        "    raw = struct.pack('!BBHHH', 8, 0, 0, 9, 9) + body\n"
        "    total = sum(struct.unpack('!%dH' % (len(raw) // 2), raw)); "
        "total = (total >> 16) + (total & 0xffff); total += total >> 16\n"
        "    return raw[:2] + struct.pack('!H', 0xffff - total & 0xffff) + raw[4:]\n"
        f"evil = '{target}'\n"
        "echo = icmp(b'secretsecret')\n"
        "udp = struct.pack('!HHHH', 5000, 5000, 8 + 12, 0) + b'secretsecret'\n"
        "syn = struct.pack('!HHIIBBHHH', 5000, 443, 1, 0, 0x50, 2, 1024, 0, 0)\n"
        "for packet in (ip(evil, '10.30.0.1', 1, 64, echo), ip(evil, '198.51.100.9', 17, 1, "
        "udp), ip(evil, '198.51.100.9', 17, 64, udp), ip(evil, '198.51.100.9', 6, 64, "
        "syn))[int(sys.argv[1]):]:\n"
        "    for _ in range(3): s.sendto(packet, ('10.30.0.1', 0))\n"
    )
    # Reverse path filters would hide what the gate does.
    hospital.shell("gw", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done\n")
    with hospital.sniff() as outside:
        done = hospital.run("guests", [sys.executable, "-c", code, "0"])
        assert done.returncode == 0, done.stderr
        time.sleep(0.3)
        assert outside.count(destination=target), (
            "positive control: while open the gateway answers outwards"
        )
        # The gateway itself still open: what is refused of the guests is not answered to an address
        # outside.
        daemon.level("cut", zones=["guests"])
        since = time.time_ns()
        hospital.run("guests", [sys.executable, "-c", code, "2"])
        time.sleep(0.3)
        assert outside.seen(since, destination=target) == []
        daemon.level("cut")
        since = time.time_ns()
        hospital.run("guests", [sys.executable, "-c", code, "0"])
        time.sleep(0.3)
        assert outside.seen(since, destination=target) == []
        assert outside.seen(since, destination="198.51.100.0/24") == []


def test_promise_1_an_exit_that_appears_at_night_is_closed(hospital: Hospital, daemon: Daemon):
    """A 4G stick: a new interface with a better default route."""
    gateway, inet = hospital.namespace("gw"), hospital.namespace("inet")
    netns.run(
        "ip",
        "link",
        "add",
        "stick0",
        "netns",
        gateway,
        "type",
        "veth",
        "peer",
        "name",
        "far0",
        "netns",
        inet,
    )
    hospital.shell(
        "inet",
        (
            "ip addr add 100.64.0.1/30 dev far0\nip link set far0 up\n"
            "ip route add 10.30.0.0/16 via 100.64.0.2\n"
        ),
    )
    hospital.shell(
        "gw",
        (
            "ip addr add 100.64.0.2/30 dev stick0\nip link set stick0 up\n"
            "ip route replace 198.51.100.0/24 via 100.64.0.1\n"
        ),
    )
    with hospital.sniff("inet", "far0") as stick:
        assert hospital.guest.tcp(places.WEB.v4), "positive control"
        assert stick.count(destination=places.WEB.v4)
        daemon.level("cut", zones=["administration"])
        since = time.time_ns()
        assert hospital.guest.tcp(places.WEB.v4, timeout=0.3), (
            "guests are open, whatever way they leave by"
        )
        assert not hospital.admin.tcp(places.WEB.v4, timeout=0.3)
        daemon.level("cut")
        since = time.time_ns()
        assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
        assert not hospital.gateway.tcp(places.WEB.v4, timeout=0.3)
        assert stick.seen(since, protocol="tcp") == []
    assert any("stick0" in warning for warning in daemon.status()["warnings"]), "and it is said"
    zones = {flow["zone"] for flow in daemon.api("GET", "/v1/refused").body["sources"]}
    assert {"guests", "gateway"} <= zones


@pytest.mark.parametrize("family", FAMILIES)
def test_levels_by_zone(hospital: Hospital, daemon: Daemon, family: int):
    web, mail = places.WEB.address(family), places.MAIL_RELAY.address(family)
    daemon.level("cut", zones=["guests"])
    assert not hospital.guest.tcp(web, timeout=0.3)
    assert hospital.care.tcp(web)
    daemon.level("reduced", zones=["administration"])
    assert hospital.admin.tcp(mail, 25)
    assert not hospital.admin.tcp(web, timeout=0.3)
    assert daemon.status()["levels"] == {
        "care": "open",
        "administration": "reduced",
        "guests": "cut",
        "gateway": "open",
    }
    daemon.level("cut", zones=["administration"])
    assert not hospital.admin.tcp(mail, 25, timeout=0.3)


def test_promise_3_no_time_out_stop_or_restart_opens(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    with hospital.sniff() as outside:
        since = time.time_ns()
        beacon = hospital.guest.beacon(
            [("tcp", places.WEB.v4, 443), ("udp", places.WEB.v4, 5000)], rate=200
        )
        daemon.stop()
        time.sleep(0.2)
        daemon.start()
        daemon.kill9()
        time.sleep(0.2)
        daemon.start()
        (daemon.config / "site.yaml").write_text("broken: [")
        daemon.hang_up()
        time.sleep(0.2)
        daemon.restart()
        tally = beacon.tally(stop=True)
        assert tally.get("ok", 0) == 0
        assert sum(tally.values()) > 20
        assert outside.seen(since, destination=places.WEB.v4) == []
    assert daemon.status()["levels"]["guests"] == "cut"
    assert any("fault" in warning for warning in daemon.status()["warnings"])


def test_promise_4_a_ruleset_that_the_kernel_refuses_changes_nothing(
    hospital: Hospital, daemon: Daemon
):
    daemon.level("cut")
    before = daemon.status()
    (daemon.config / "allowlist.d/20-finance.yaml").write_text("services: [{name: x}]")
    reply = daemon.api("POST", "/v1/reload", {"reason": "broken"})
    assert reply.status in {400, 409, 422}
    assert "20-finance.yaml:1" in json.dumps(reply.body)
    after = daemon.status()
    assert (after["generation"], after["levels"]) == (before["generation"], before["levels"])
    assert hospital.admin.tcp(places.TREASURY.v4)


def test_promise_5_what_was_answered_is_on_disk(hospital: Hospital, daemon: Daemon):
    number = daemon.level("cut", reason="encryption seen", authorised_by="the director")[
        "generation"
    ]["number"]
    daemon.kill9()
    last = (daemon.state / "audit.log").read_text().splitlines()[-1]
    assert "the director" in last
    boot = (daemon.state / "boot.nft").read_text()
    assert '"care": "cut"' in boot or '"care":"cut"' in boot
    assert f"# generation: {number}\n" in boot
    assert "encryption seen" in boot
    # The boot ruleset alone, on a machine that has just started:
    hospital.nft("delete table inet ecluse")
    assert hospital.guest.tcp(places.WEB.v4), "positive control: without the table all passes"
    done = hospital.run("gw", ["nft", "-f", str(daemon.state / "boot.nft")])
    assert done.returncode == 0, done.stderr
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    assert hospital.care.tcp(places.LABORATORY.v4)
    daemon.start()
    assert "encryption seen" in (daemon.state / f"generations/{number:08d}.json").read_text()


def test_promise_6_the_data_path_does_not_need_the_daemon(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    line = hospital.care.open(places.LABORATORY.v4)
    daemon.kill9()
    assert line.talk()
    assert hospital.care.tcp(places.LABORATORY.v6)
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    line.close()
    daemon.start()


def test_promise_7_whoever_may_not_command_changes_nothing(hospital: Hospital):
    daemon = hospital.daemon(
        flags=["--socket-mode", "0666", "--readers-group", "60001", "--operators-group", "60002"]
    ).start()
    nobody = daemon.cli("cut", user=60010, groups=[60010])
    assert nobody.returncode == 3, nobody.stderr
    reader = daemon.cli("cut", "--reason", "let me", user=60011, groups=[60001])
    assert reader.returncode == 3, reader.stderr
    assert daemon.cli("status", user=60011, groups=[60001]).returncode == 0
    assert set(daemon.status()["levels"].values()) == {"open"}
    assert hospital.guest.tcp(places.WEB.v4)
    lines = [json.loads(line) for line in (daemon.state / "audit.log").read_text().splitlines()]
    assert [(x["event"], x["actor"]["uid"]) for x in lines if x["event"] == "forbidden"] == [
        ("forbidden", 60010),
        ("forbidden", 60011),
    ]
    operator = daemon.cli("cut", "--reason", "attack", user=60012, groups=[60002])
    assert operator.returncode == 0, operator.stderr
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    daemon.stop()


def test_the_ruleset_of_last_resort_keeps_management_alone(hospital: Hospital, daemon: Daemon):
    hospital.gateway.listen("tcp", 22)
    daemon.kill9()
    done = hospital.run("gw", ["nft", "-f", str(daemon.state / "closed.nft")])
    assert done.returncode == 0, done.stderr
    assert not hospital.care.tcp(places.LABORATORY.v4, timeout=0.3)
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    assert hospital.management.tcp(places.ADMINISTRATION.gateway.v4, 22)
    for level in ("cut", "isolate", "reduced"):
        done = hospital.run("gw", ["nft", "-f", str(daemon.state / "ruleset" / f"{level}.nft")])
        assert done.returncode == 0, done.stderr
        assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
        assert bool(hospital.care.tcp(places.LABORATORY.v4, timeout=0.3)) == (level != "isolate")
    daemon.start()
    assert daemon.status()["levels"]["care"] == "reduced", (
        "a level that was loaded by hand is followed"
    )
