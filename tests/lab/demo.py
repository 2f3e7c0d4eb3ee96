"""`make demo`: the day of the attack, played with real traffic.

Every figure printed was measured in this run.

Exit code 0 when everything behaved as it should, 1 when something did not (said in words), 130
after Ctrl-C.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.lab import netns, places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import Answer, Host, Stream, StreamReport
from tests.lab.places import Place
from tests.lab.sniffer import Sniffer

WIDTH = 80
STREAM_RATE = 200  # messages a second on each live connection: how finely the cut is timed
WILDCARD = "*.operator.example"
OPERATOR = ["203.0.113.130", "203.0.113.131", "203.0.113.132"]
NAMES = places.NAMES | {
    WILDCARD: {"a": OPERATOR, "ttl": 0, "rotate": True},
    "*.tunnel.example": {"a": [places.STRANGER.v4], "txt": ["go on"], "ttl": 0},
}
SECURE_MAIL = policy.service(
    "secure-mail", "vital", ["care"], [{"to": WILDCARD, "ports": ["tcp/443"]}]
)
REASON = "ransomware seen in guests, advised by the CERT"


@dataclass(frozen=True, slots=True)
class Way:
    """Who calls whom, and whether level `cut` should keep it.

    live: a connection stays open through the day.
    """

    client: str
    service: str
    host: Host
    place: Place
    family: int
    protocol: str
    port: int
    kept: bool
    live: bool = False

    @property
    def to(self) -> str:
        return self.place.address(self.family)

    @property
    def label(self) -> str:
        return f"{self.client} -> {self.service}"

    @property
    def how(self) -> str:
        return f"{self.protocol}/{self.port} v{self.family}"


@dataclass(slots=True)
class Line:
    """A live connection and what became of it."""

    way: Way
    stream: Stream
    report: StreamReport | None = None
    last_packet_ms: float | None = None
    """When its last packet reached the internet, after the cut was ordered."""
    late_packets: int = 0
    """Its packets that left for the internet after the cut had answered."""


def ways(lab: Hospital) -> list[Way]:
    """List what the demo tries, in the order of its tables."""
    lab_, pay, mail, web = places.LABORATORY, places.TREASURY, places.MAIL_RELAY, places.WEB
    return [
        Way("care", "laboratory", lab.care, lab_, 4, "tcp", 443, kept=True, live=True),
        Way("care", "laboratory", lab.care, lab_, 6, "tcp", 443, kept=True, live=True),
        Way("care", "laboratory", lab.care, lab_, 4, "udp", 5000, kept=True, live=True),
        Way(
            "care",
            "remote maintenance",
            lab.care,
            places.MAINTENANCE,
            4,
            "tcp",
            443,
            kept=False,
            live=True,
        ),
        Way("care", "web site", lab.care, web, 4, "tcp", 443, kept=False, live=True),
        Way("administration", "treasury", lab.admin, pay, 4, "tcp", 443, kept=True, live=True),
        Way("administration", "treasury", lab.admin, pay, 6, "tcp", 443, kept=True),
        Way("administration", "mail relay", lab.admin, mail, 4, "tcp", 25, kept=False, live=True),
        Way("administration", "laboratory", lab.admin, lab_, 4, "tcp", 443, kept=False),
        Way("guests", "web site", lab.guest, web, 4, "tcp", 443, kept=False, live=True),
        Way("guests", "web site", lab.guest, web, 6, "udp", 5000, kept=False),
        Way("guests", "treasury", lab.guest, pay, 4, "tcp", 443, kept=False),
        Way("gateway", "web site", lab.gateway, web, 4, "tcp", 80, kept=False),
        Way(
            "partner",
            "results in",
            lab.partner,
            places.GATEWAY_WAN,
            4,
            "tcp",
            2575,
            kept=True,
            live=True,
        ),
        Way("partner", "results in", lab.partner, places.CARE_SERVER, 6, "tcp", 2575, kept=True),
        Way("stranger", "results in", lab.stranger, places.GATEWAY_WAN, 4, "tcp", 2575, kept=False),
    ]


class Demo:
    """One run. What did not behave as it should gathers in `wrong`."""

    def __init__(self, lab: Hospital, daemon: Daemon, outside: Sniffer) -> None:
        self.lab, self.daemon, self.outside = lab, daemon, outside
        self.ways = ways(lab)
        self.wrong: list[str] = []
        self.lines: list[Line] = []

    def expect(self, good: bool, words: str) -> None:
        if not good:
            self.wrong.append(words)

    def command(self, *arguments: str) -> tuple[int, int]:
        """Run `ecluse` and show exactly what it prints.

        Give the nanoseconds of its begin and its end.
        """
        shown = " ".join(f"'{a}'" if " " in a else a for a in arguments)
        print(f"\n$ ecluse {shown}", flush=True)
        began = time.time_ns()
        done = self.daemon.cli(*arguments, stdin=f"{policy.SITE['site']}\n")
        ended = time.time_ns()
        for line in (done.stdout + done.stderr).splitlines():
            print(f"  {line}".rstrip())
        self.expect(
            done.returncode == 0,
            f"'ecluse {shown}' ended with {done.returncode}: {done.stderr.strip() or 'no message'}",
        )
        return began, ended

    def reach(self) -> list[str]:
        """Try every way at once; give the outcome of each."""
        tries: list[Future] = [
            way.host.begin_ping(way.protocol, way.to, way.port, timeout=0.7) for way in self.ways
        ]
        return [outcome(one.result(30)) for one in tries]

    def check_reach(self, outcomes: list[str], when: str, *, cut: bool) -> None:
        for way, result in zip(self.ways, outcomes, strict=True):
            wanted = way.kept or not cut
            self.expect(
                (result == "yes") == wanted,
                (
                    f"{when}: {way.label} ({way.how}) was to be "
                    f"{'reached' if wanted else 'refused'}: {result}"
                ),
            )

    def open_lines(self) -> None:
        for way in self.ways:
            if way.live:
                stream = way.host.stream(way.to, way.port, way.protocol, STREAM_RATE)
                self.lines.append(Line(way, stream))

    def close_lines(self, began: int, answered: int) -> None:
        """Say of each live connection what became of it, by its ends and by the witness outside."""
        for line in self.lines:
            report = line.report = line.stream.stop(grace=0.3)
            way = line.way
            if way.kept:
                self.expect(
                    report.whole,
                    f"the live connection {way.label} ({way.how}) was harmed: {report}",
                )
                continue
            leaving = {"destination": way.to, "port": way.port, "protocol": way.protocol}
            seen = self.outside.seen(began, from_gateway=True, **leaving)
            line.last_packet_ms = (max(flow.last for flow in seen) - began) / 1e6 if seen else 0.0
            line.late_packets = self.outside.count(answered, from_gateway=True, **leaving)
            self.expect(
                not line.late_packets, f"{way.label}: packets left after the cut had answered"
            )
            self.expect(
                report.lost > 0 or report.ended != "",
                f"the live connection {way.label} was not cut",
            )

    def show_names(self) -> None:
        """Use a service that is known by a wildcard alone, and send what a tunnel would.

        To every server, in every way.
        """
        server, care, guest = places.DNS_SERVER.v4, self.lab.care, self.lab.guest
        done = care.resolve_and_connect(server, "node7.operator.example", 443, 100)
        self.expect(done["good"] == 100, f"secure-mail was to be reached each time: {done}")
        print(
            f"care -> secure-mail, known as {WILDCARD} alone: resolved and reached {done['good']} "
            "times of 100,\n"
            f"at {done['addresses']} addresses."
        )
        self.lab.dns_asked()
        pieces = 0
        for kind in ("txt", "null", "a"):
            for protocol in ("udp", "tcp"):
                for to in (server, "10.30.0.1", places.DNS_SERVER.v6):
                    pieces += 1
                    reply = guest.resolve(
                        to, f"secret{pieces}.tunnel.example", kind, protocol=protocol
                    )
                    refused = reply.more["rcode"] == 5
                    self.expect(
                        refused,
                        f"a tunnel's question was not refused: {kind} over {protocol}: {reply}",
                    )
        leaked = [name for name, _ in self.lab.dns_asked() if name.endswith("tunnel.example")]
        self.expect(not leaked, f"a tunnel's questions left: {leaked[:3]}")
        print(
            f"guests -> a tunnel in DNS, {pieces} pieces, over UDP and TCP, to three servers: "
            f"{len(leaked)} left;\n"
            "each was refused at once."
        )

    def refused_sources(self) -> set[str]:
        reply = self.daemon.api("GET", "/v1/refused")
        self.expect(reply.status == 200, f"GET /v1/refused answered {reply.status}")
        return {flow["source"] for flow in reply.body["sources"]} if reply.status == 200 else set()


def outcome(answer: Answer) -> str:
    """Say in at most eleven characters how a try went.

    A refusal with the time until the client knew.
    """
    if answer:
        return "yes"
    return "silence" if answer.error == "timeout" else f"no, {answer.ms:.1f} ms"


def title(text: str) -> None:
    print(f"\n{'-' * WIDTH}\n{datetime.now():%H:%M:%S}  {text}\n{'-' * WIDTH}", flush=True)


def became(line: Line | None) -> str:
    """Say in a few words what became of a live connection."""
    if line is None or line.report is None:
        return ""
    if line.last_packet_ms is not None:
        return f"ended {line.last_packet_ms:.0f} ms"
    report = line.report
    if report.whole:
        return f"{report.received} of {report.sent}"
    return f"HARMED, lost {report.lost + report.resent}"


def table(demo: Demo, before: list[str], during: list[str], after: list[str]) -> None:
    """Print the day at a glance, 80 columns wide."""
    row = "{:<29}{:<12}{:<7}{:<12}{:<15}{}"
    print(row.format("who -> what", "how", "before", "cut", "live line", "after"))
    lines = {line.way: line for line in demo.lines}
    client = ""
    for way, *results in zip(demo.ways, before, during, after, strict=True):
        if way.client != client:
            print("-" * WIDTH)
            client = way.client
        first, middle, last = results
        print(row.format(way.label, way.how, first, middle, became(lines.get(way)), last))


def play(demo: Demo) -> None:
    lab = demo.lab
    title("A normal day: the gate is open")
    before = demo.reach()
    demo.check_reach(before, "before", cut=False)
    print(f"{before.count('yes')} of {len(before)} ways were tried and found open.")
    demo.open_lines()
    print(f"{len(demo.lines)} live connections now carry {STREAM_RATE} messages a second each.")

    title("A machine in guests starts to call out")
    beacon = lab.guest.beacon([("tcp", places.WEB.v4, port) for port in (443, 8080, 8443)], rate=20)
    time.sleep(1.0)
    calls = beacon.tally()
    demo.expect(
        calls.get("ok", 0) > 0, f"the infected machine should get out before the cut: {calls}"
    )
    print(f"{lab.guest.v4}: {calls.get('ok', 0)} calls got out in the first second.")

    title("What would a cut do? Nothing is changed by asking")
    demo.command("plan", "cut")

    title("The cut")
    began, answered = demo.command("cut", "--reason", REASON)
    got_out = beacon.tally().get("ok", 0)
    time.sleep(1.0)
    during = demo.reach()
    demo.check_reach(during, "while cut", cut=True)
    tally = beacon.tally()
    demo.expect(
        tally.get("ok", 0) <= got_out + 1,  # the call that was under way when the tally was taken
        f"the infected machine still gets out: {tally}",
    )
    demo.close_lines(began, answered)
    cut_lines = [line for line in demo.lines if not line.way.kept]
    slowest = max(line.last_packet_ms or 0.0 for line in cut_lines)
    print(
        f"\nSeen from the internet: the last packet of the {len(cut_lines)} ended connections left "
        f"{slowest:.1f} ms\nafter the command was typed; it had answered after "
        f"{(answered - began) / 1e6:.1f} ms."
    )
    late = sum(line.late_packets for line in cut_lines)
    print(f"Packets of theirs that left after the answer: {late}.")

    title("Names: a partner known by a wildcard, and a tunnel in DNS")
    demo.show_names()
    time.sleep(1.2)  # the gate tells what it refused once a second

    title("Who keeps trying to get out?")
    demo.command("refused")
    demo.expect(
        lab.guest.v4 in demo.refused_sources(), f"{lab.guest.v4} is not among the refused machines"
    )
    demo.command("status")

    title("Back to the state before")
    demo.command("rollback", "--reason", "infected machine unplugged")
    after = demo.reach()
    demo.check_reach(after, "after the rollback", cut=False)
    beacon.tally(stop=True)

    title("The day at a glance")
    table(demo, before, during, after)


def run(**options: Any) -> int:
    """Play it; the options are the daemon's (see lab.daemon.Daemon). Give the exit code."""
    netns.sweep()
    began = time.monotonic()
    with Hospital() as lab:
        print(
            f"A hospital of {len(netns.namespaces(lab.prefix))} network namespaces stands: "
            f"{lab.prefix}-* ({(time.monotonic() - began) * 1000:.0f} ms)."
        )
        lab.dns(NAMES)
        services = options.pop("allowlist", policy.ALLOWLIST) | {"40-names.yaml": [SECURE_MAIL]}
        daemon = lab.daemon(allowlist=services, **options)
        gate = lab.dns_gate(daemon).start()
        began = time.monotonic()
        try:
            daemon.start()
        except RuntimeError as error:
            print(f"the demo cannot begin: {error}", file=sys.stderr)
            return 1
        gate.wait_until_well()
        print(f"The daemon is up in the gateway ({(time.monotonic() - began) * 1000:.0f} ms).")
        with lab.sniff() as outside:
            demo = Demo(lab, daemon, outside)
            play(demo)
            drops = outside.drops()
        print("-" * WIDTH)
        print("live line: echoes of messages sent; or when its last packet left")
        print(f"The witness on the internet side lost {drops} packets.")
        if not demo.wrong:
            print("Everything behaved as it should.")
            return 0
        print(f"\n{len(demo.wrong)} things did not behave as they should:")
        for words in demo.wrong:
            print(f"  - {words}")
        print(f"\nThe daemon's last words:\n{daemon.tail(15)}")
        return 1


def main() -> int:
    if os.geteuid() != 0:
        print(
            "The demo builds network namespaces, which needs root: type: sudo make demo",
            file=sys.stderr,
        )
        return 1
    try:
        return run()
    except KeyboardInterrupt:
        print("\nInterrupted. The lab and its daemon are gone.", file=sys.stderr)
        return 130
    except (RuntimeError, OSError, AssertionError, subprocess.SubprocessError) as error:
        print(f"\nThe demo broke off: {error}\nThe lab and its daemon are gone.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
