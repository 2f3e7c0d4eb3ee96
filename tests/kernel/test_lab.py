"""The lab itself: what it shows open, what it sees cut, that it notices loss, and that nothing is
left of it.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import netns, places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT
from tests.lab.sniffer import Sniffer, WitnessBlindError

pytestmark = pytest.mark.kernel

FAMILIES = (4, 6)
GRE, ESP, SCTP = 47, 50, 132

# Keeps care's traffic with the laboratory and the treasury's HTTPS, by the original tuple, and ends
# all else.
CUT = """
table inet ecluse {
  set inside { type ifname; elements = { "care0", "admin0", "guest0" } }
  set kept4 { type ipv4_addr; elements = { 203.0.113.10 } }
  set kept6 { type ipv6_addr; elements = { 2001:db8:ffff::10 } }
  chain level {
    meta nfproto ipv4 ct original ip daddr @kept4 accept
    meta nfproto ipv6 ct original ip6 daddr @kept6 accept
    meta l4proto icmpv6 icmpv6 type \\
      { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
    iifname @inside meta l4proto tcp reject with tcp reset
    iifname @inside reject with icmpx admin-prohibited
    drop
  }
  chain forward {
    type filter hook forward priority filter - 10; policy accept;
    iifname @inside oifname @inside accept
    goto level
  }
  chain output { type filter hook output priority filter - 10; oifname "wan0" goto level; }
  chain input { type filter hook input priority filter - 10; iifname "wan0" goto level; }
}
"""
# What a careless ruleset does: one packet in a hundred of a kept flow is lost.
LOSSY = """
table inet ecluse {
  chain forward {
    type filter hook forward priority filter - 10; policy accept;
    iifname "care0" numgen inc mod 100 0 drop
  }
}
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_while_nothing_is_cut_everybody_reaches_everything(hospital: Hospital, family: int) -> None:
    for host in (hospital.care, hospital.admin, hospital.guest, hospital.gateway):
        for place in (places.LABORATORY, places.TREASURY, places.WEB):
            to = place.address(family)
            for answer in (
                host.tcp(to),
                host.udp(to),
                host.icmp(to),
                host.http(to),
                host.raw(SCTP, to),
            ):
                assert answer, (host.place.name, place.name, answer)
    for protocol in (
        GRE,
        ESP,
    ):  # without ports, one machine at a time can be told apart behind the masquerade
        assert hospital.care.raw(protocol, places.HEALTH_DATA.address(family))


def test_the_partner_comes_in_through_the_port_forward_and_over_ipv6(hospital: Hospital) -> None:
    with hospital.sniff("care", "eth0") as inside:
        assert hospital.partner.tcp(places.GATEWAY_WAN.v4, places.FORWARDED_PORT)
        assert inside.count(
            port=places.SERVER_PORT, destination=places.CARE_SERVER.v4, from_gateway=True
        )
    assert hospital.partner.tcp(places.CARE_SERVER.v6, places.FORWARDED_PORT)
    assert hospital.stranger.tcp(places.GATEWAY_WAN.v4, 2576).error == "ECONNREFUSED"


def test_ipv4_leaves_masqueraded_and_ipv6_as_it_is(hospital: Hospital) -> None:
    with hospital.sniff() as outside:
        for family in FAMILIES:
            assert hospital.care.tcp(places.LABORATORY.address(family))
        sources = {flow.source for flow in outside.seen(protocol="tcp", from_gateway=True)}
    assert sources == {places.GATEWAY_WAN.v4, places.CARE_HOST.v6}


def test_dns_answers_with_the_ttls_it_was_told_and_is_silent_when_told(hospital: Hospital) -> None:
    ask = hospital.gateway.resolve
    for server, kind in ((places.DNS_SERVER.v4, "a"), (places.DNS_SERVER.v6, "aaaa")):
        answer = ask(server, "pay.treasury.example", kind)
        assert answer.more["addresses"] == [places.TREASURY.address(4 if kind == "a" else 6)]
    assert ask(places.DNS_SERVER.v4, "no-such.example").more["rcode"] == 3
    hospital.dns({"quiet.example": {"silent": True}, "broken.example": {"rcode": 2}})
    assert ask(places.DNS_SERVER.v4, "quiet.example", timeout=0.2).error == "timeout"
    assert ask(places.DNS_SERVER.v4, "broken.example").more["rcode"] == 2


def test_dns_is_what_dnspython_understands(hospital: Hospital) -> None:
    code = (
        "import dns.resolver; r = dns.resolver.Resolver(configure=False)\n"
        f"r.nameservers = ['{places.DNS_SERVER.v4}']\n"
        "for tcp in (False, True):\n"
        "    a = r.resolve('pay.treasury.example', tcp=tcp)\n"
        "    print(a[0].address, a.chaining_result.minimum_ttl, a.canonical_name)"
    )
    done = hospital.run("gw", [sys.executable, "-c", code])
    assert done.stdout == f"{places.TREASURY.v4} 60 front.treasury.example.\n" * 2, done.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_flow_that_is_cut_the_witness_sees_nothing_more(
    hospital: Hospital, family: int
) -> None:
    kept, cut = places.LABORATORY.address(family), places.WEB.address(family)
    stranger = hospital.stranger.address(family)
    with hospital.sniff() as outside, hospital.sniff("guests", "eth0") as inside:
        kept_line, cut_line = hospital.care.open(kept), hospital.guest.open(cut)
        cut_udp = hospital.guest.open(cut, 5000, "udp")
        assert all(line.talk() for line in (kept_line, cut_line, cut_udp))
        assert hospital.guest.icmp(cut, ident=7)
        assert outside.count(destination=cut, from_gateway=True) >= 8

        hospital.nft(CUT)
        since = time.time_ns()

        assert cut_line.talk().error == "ECONNRESET"
        assert cut_udp.talk(timeout=0.2).error in {
            "EHOSTUNREACH",
            "EACCES",
        }  # ip(7), ipv6(7): prohibited
        assert hospital.guest.tcp(cut).error == "ECONNREFUSED"
        tries = [
            hospital.guest.icmp(cut, 0.2, ident=7),
            hospital.guest.raw(GRE, cut, 0.2),
            hospital.guest.raw(SCTP, cut, 0.2),
            hospital.gateway.tcp(cut, timeout=0.2),
            hospital.stranger.icmp(hospital.gateway.address(family), 0.2),
        ]
        assert not any(tries), tries
        assert kept_line.talk()
        assert hospital.care.icmp(kept)

        assert outside.count(since, destination=cut) == 0
        assert outside.count(since, destination=stranger) == 0
        assert outside.count(since, destination=kept, from_gateway=True) > 0
        assert inside.count(since, source=cut, protocol="udp") == 0
        kept_line.close()
        cut_line.close()
        cut_udp.close()


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_kept_stream_loses_nothing_when_the_cut_comes(hospital: Hospital, protocol: str) -> None:
    stream = hospital.care.stream(places.LABORATORY.v4, 5000, protocol, rate=5000)
    time.sleep(0.3)
    hospital.nft(CUT)
    time.sleep(0.5)
    report = stream.stop()
    assert report.whole, report
    assert report.sent > 3000, report


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_noticed(hospital: Hospital, protocol: str, family: int) -> None:
    stream = hospital.care.stream(places.LABORATORY.address(family), 5000, protocol, rate=2000)
    time.sleep(0.2)
    assert stream.report().errors == {}
    hospital.nft(LOSSY)
    time.sleep(0.5)
    report = stream.stop()
    assert not report.whole, report
    assert report.lost if protocol == "udp" else report.resent, report


def test_a_stream_that_is_cut_says_so(hospital: Hospital) -> None:
    tcp = hospital.guest.stream(places.WEB.v4, 443, "tcp", rate=200)
    udp = hospital.guest.stream(places.WEB.v6, 5000, "udp", rate=200)
    time.sleep(0.2)
    hospital.nft(CUT)
    time.sleep(0.2)
    assert tcp.stop().ended == "ECONNRESET"
    report = udp.stop(grace=0.1)
    assert report.lost > 10, report
    assert report.errors, report


def test_a_machine_that_calls_out_is_counted(hospital: Hospital) -> None:
    beacon = hospital.guest.beacon(
        [("tcp", places.WEB.v4, 443), ("udp", places.WEB.v4, 5000)], rate=100
    )
    time.sleep(0.3)
    before = beacon.tally()
    hospital.nft(CUT)
    cut = beacon.tally()
    deadline = time.monotonic() + 10.0  # a call that is refused in silence takes 0.3 s
    while beacon.tally().get("ECONNREFUSED", 0) <= 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    after = beacon.tally(stop=True)
    assert before["ok"] > 10
    assert set(before) == {"ok"}
    assert after["ECONNREFUSED"] > 5
    assert after["ok"] <= cut["ok"] + 5, "answers that were under way"


def test_the_witness_misses_nothing_of_twenty_thousand_packets_a_second(hospital: Hospital) -> None:
    with hospital.sniff() as outside:
        streams = [
            hospital.care.stream(places.LABORATORY.v4, 5000, "udp", rate=5000) for _ in range(2)
        ]
        time.sleep(1.0)
        reports = [stream.stop() for stream in streams]
        seen = outside.count(protocol="udp", port=5000, from_gateway=True)
        echoes = outside.count(protocol="udp", source=places.LABORATORY.v4, from_gateway=False)
    assert all(report.whole for report in reports), reports
    assert seen == echoes == sum(report.sent for report in reports)
    assert seen > 9000


def test_a_blind_witness_says_so(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = hospital.sniff()
    monkeypatch.setattr(Sniffer, "drops", lambda _: 3)
    with pytest.raises(WitnessBlindError, match="lost 3 packets"):
        outside.seen()
    with pytest.raises(WitnessBlindError), outside:
        pass


def test_hospitals_side_by_side_do_not_meet() -> None:
    with Hospital() as one, Hospital() as other, one.sniff() as first, other.sniff() as second:
        assert one.care.tcp(places.LABORATORY.v4)
        assert first.count(protocol="tcp")
        assert second.count(protocol="tcp") == 0
        one.nft(CUT)
        assert not one.guest.tcp(places.WEB.v4)
        assert other.guest.tcp(places.WEB.v4)


def test_after_an_exception_nothing_is_left() -> None:
    with pytest.raises(ZeroDivisionError), Hospital() as built:
        assert len(netns.namespaces(built.prefix)) == 5
        assert built.directory.is_dir()
        raise ZeroDivisionError
    assert netns.namespaces(built.prefix) == []
    assert not built.directory.exists()


_CHILD = """
import time
from tests.lab.hospital import Hospital
with Hospital() as h:
    h.care.beacon([("udp", "203.0.113.10", 5000)], rate=5)
    print(h.prefix, h.worker("client-care", "care")._process.pid, flush=True)
    time.sleep(60)
"""


def _child() -> tuple[subprocess.Popen[str], str, int]:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    prefix, worker = child.stdout.readline().split()
    assert len(netns.namespaces(prefix)) == 5
    return child, prefix, int(worker)


def _gone(pid: int, patience: float = 3.0) -> bool:
    deadline = time.monotonic() + patience
    while netns.start_time(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not netns.start_time(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_nothing_is_left(number: signal.Signals) -> None:
    child, prefix, worker = _child()
    child.send_signal(number)
    child.stdout.close()
    assert child.wait(10) != 0
    assert netns.namespaces(prefix) == []
    assert netns.directories(prefix) == []
    assert _gone(worker)


def test_what_a_killed_run_left_is_swept_and_the_living_are_spared(hospital: Hospital) -> None:
    child, prefix, worker = _child()
    child.kill()
    child.wait()
    child.stdout.close()
    assert _gone(worker), "a worker outlived its hospital"
    assert set(netns.namespaces(prefix)) <= set(netns.leftovers())
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.sweep"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert f"removed {prefix}-gw" in done.stdout
    assert netns.namespaces(prefix) == []
    assert netns.directories(prefix) == []
    assert len(netns.namespaces(hospital.prefix)) == 5


# A daemon that knows nothing but /v1/status: the helper is tested without the real one.
_STUB = """
import http.server, json, os, socketserver, sys
path = sys.argv[sys.argv.index("--socket") + 1]
print("stub begins", sorted(os.listdir("/sys/class/net")), flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"pid": os.getpid(), "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "unix"
if os.path.exists(path):
    os.unlink(path)
socketserver.UnixStreamServer(path, Handler).serve_forever()
"""


def test_the_daemon_helper_starts_kills_and_restarts(hospital: Hospital) -> None:
    daemon = hospital.daemon(argv=("-c", _STUB)).start()
    first = daemon.status()["pid"]
    assert first == daemon.pid
    assert "wan0" in daemon.tail(), "it does not run in the gateway's namespace"
    assert (daemon.config / "site.yaml").exists()
    assert sorted(p.name for p in (daemon.config / "allowlist.d").iterdir()) == sorted(
        policy.ALLOWLIST
    )
    daemon.kill9()
    assert _gone(first)
    with pytest.raises(OSError):
        daemon.api("GET", "/v1/status")
    daemon.start()
    assert daemon.status()["pid"] != first
    assert daemon in Daemon.running
    assert daemon.stop() == -signal.SIGTERM
    assert daemon not in Daemon.running


def test_a_daemon_that_dies_at_start_shows_its_log(hospital: Hospital) -> None:
    daemon = hospital.daemon(argv=("-c", "import sys; sys.exit('no kernel today')"))
    with pytest.raises(RuntimeError, match=r"ended with 1 (?s:.*)no kernel today"):
        daemon.start()


def test_a_daemon_dies_with_who_started_it() -> None:
    code = (
        "import os, sys\n"
        "from tests.lab.hospital import Hospital\n"
        f"stub = {_STUB!r}\n"
        "h = Hospital(); h.__enter__()\n"
        "print(h.daemon(argv=('-c', stub)).start().pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == -signal.SIGKILL
    assert _gone(int(done.stdout)), "the daemon outlived the run"
    netns.sweep()


def test_the_configuration_is_written_whole(tmp_path: Path) -> None:
    policy.write(tmp_path)
    policy.write(tmp_path, policy.site(site="chu-other"), {"50-one.yaml": policy.FINANCE})
    assert [p.name for p in (tmp_path / "allowlist.d").iterdir()] == ["50-one.yaml"]
    assert "review: 2031-01-31" in (tmp_path / "allowlist.d/50-one.yaml").read_text()
    assert "site: chu-other" in (tmp_path / "site.yaml").read_text()


def test_names_tell_the_living_from_the_dead() -> None:
    assert netns.start_time(os.getpid()) > 0
    assert netns.start_time(2**22 + 1) == 0
    assert f"-{os.getpid()}-{netns.start_time(os.getpid())}-" in netns.unique()
