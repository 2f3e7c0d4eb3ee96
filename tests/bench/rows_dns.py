"""The DNS gate under a crowd that asks for what nobody keeps.

What kept names wait for, what it costs, what leaves.
"""

import ipaddress
import json
import os
import struct
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.bench import raw, site
from tests.bench.figures import Section
from tests.bench.gate import Gate, Helper
from tests.bench.rows_cost import memory
from tests.bench.rows_flow import read_on
from tests.lab import places
from tests.lab.dnsgate import DnsGate
from tests.lab.inside import wire

WITHOUT, WITH = "without", "with"
REFUSED = "answered at once: refused"
LIMITED = "dropped: above one machine's bound"
OVERFLOWED = "dropped: dnsmasq's queue in the kernel was full"
RATE, MACHINES = 20_000, 500
CACHED, FRESH = "results.bench.example", "%.operator.example"
NOBODYS = "nobody.example"
_ZONE = {
    CACHED: {"a": [places.LABORATORY.v4], "ttl": 300},
    "*.operator.example": {
        "a": [f"203.0.113.{n}" for n in range(100, 200)],
        "ttl": 60,
        "rotate": True,
    },
    # Whatever leaves is answered, as a tunnel's own server would.
    f"*.{NOBODYS}": {"a": ["198.51.100.99"], "ttl": 0},
}
# New names come slower than the bound on them as shipped (10 a second), and each machine's below
# its own (50).
ASKED = {
    "cached": ("care", 40, CACHED),
    "new under a wildcard": ("admin", 8, FRESH),
}
# MiB: 2,000 refused names with their machines, 20,000 names of wildcards, dnsmasq's 5,000 answers
ROOM = 16
_CROWDS_COUNTERS = """
table inet crowd {
  counter refused { }
  chain in {
    type filter hook prerouting priority -300;
    udp sport != 53 accept
    @th,92,4 5 counter name refused
    drop
  }
}
"""


def _crowds_frames(macs: tuple[bytes, bytes], machines: list[str], count: int) -> list[bytes]:
    """Give so many questions, of each machine in turn, each for another name, from another port."""
    last = wire.encode_name(NOBODYS) + struct.pack("!HH", 1, 1)
    label = 16
    size = 12 + 1 + label + len(last)
    heads = [
        raw.frame(macs, "udp", one, places.DNS_SERVER.v4, 1, 53, body=bytes(size))[:42]
        for one in machines
    ]
    query = struct.pack("!5H", 0x0100, 1, 0, 0, 0) + bytes([label])
    some = os.urandom(label // 2 * count).hex().encode()
    frames = []
    for n in range(count):
        head = heads[n % len(heads)]
        port = struct.pack("!H", 1024 + n // len(heads) * 7919 % 64_000)
        name = some[n * label : (n + 1) * label]
        frames.append(head[:34] + port + head[36:] + name[:2] + query + name + last)
    return frames


@dataclass(frozen=True, slots=True)
class Outside:
    """What was seen on the internet side. names: refused ones that the server there was asked for.

    beside: packets of TCP and UDP that the gateway sent and that are no question for a kept name.
    """

    names: int
    beside: int


class Asked:
    """A gateway at `cut` with its DNS gate, a crowd that is silent until told, and two machines
    that ask for kept names.

    questions: how many different ones the crowd has. Use as a context manager inside that of the
    gateway.
    """

    def __init__(self, gate: Gate, questions: int) -> None:
        self.gate = gate
        hospital = gate.hospital
        hospital.dns(_ZONE)
        daemon = gate.make_daemon(
            site.allowlist([], CACHED, FRESH.replace("%", "*")), site=site.with_dns_gate()
        )
        self.dns: DnsGate = hospital.dns_gate(daemon).start()
        daemon.start()
        self.dns.wait_until_well()
        gate.level("cut")
        gate.wait_for_purge()
        first = int(ipaddress.ip_address("10.30.64.1"))
        machines = [str(ipaddress.ip_address(first + n)) for n in range(MACHINES)]
        macs = gate.macs("guests", "guest0")
        # The crowd is one host: the gateway need not find 500 neighbours, and what is answered ends
        # at a counter.
        there = macs[1].hex(":")
        hospital.shell(
            "gw",
            "".join(
                f"ip neigh add {one} lladdr {there} dev guest0 nud permanent\n" for one in machines
            ),
        )
        hospital.nft(_CROWDS_COUNTERS, "guests")
        self.crowd = gate.sender(_crowds_frames(macs, machines, questions), RATE, "guests")
        self._askers = {
            kind: Helper(hospital.namespace(role), "-m", "tests.bench.asker", places.DNS_SERVER.v4)
            for kind, (role, _, _) in ASKED.items()
        }
        self._flows: dict = {}
        self._stop = threading.Event()
        self._reader = threading.Thread(target=read_on, args=(gate, self._flows, self._stop))

    def __enter__(self) -> Self:
        self.gate.witness.take()
        self.gate.hospital.dns_asked()
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._reader.join()
        for asker in self._askers.values():
            asker.close()

    def ask(self, seconds: float) -> dict[str, tuple[list[float], int]]:
        """Have both kinds of kept names asked for so long.

        Give the milliseconds, and how many were not answered.
        """
        for kind, asker in self._askers.items():
            _, rate, name = ASKED[kind]
            asker.say(f"{rate} {seconds} {name}")
        return {
            kind: json.loads(asker.answer(seconds + 30)) for kind, asker in self._askers.items()
        }

    def counters(self) -> Counter[str]:
        """Give what became of the crowd's questions so far, by the words of the report."""
        found: Counter[str] = Counter()
        for what, role, name in (
            (REFUSED, "guests", "inet crowd refused"),
            (LIMITED, "gw", "inet ecluse dns_limited"),
        ):
            said = self.gate.hospital.shell(role, f"nft -j list counter {name}")
            found[what] = next(
                o["counter"]["packets"] for o in json.loads(said)["nftables"] if "counter" in o
            )
        # Of all UDP sockets of the gateway's namespace; the others are idle (snmp_counter,
        # Documentation/networking).
        udp = [
            line.split()[1:]
            for line in Path(f"/proc/{self.dns.process.pid}/net/snmp")
            .read_text(encoding="ascii")
            .splitlines()
            if line.startswith("Udp:")
        ]
        found[OVERFLOWED] = int(dict(zip(*udp, strict=True))["RcvbufErrors"])
        return found

    def tracked(self) -> int:
        """Give how many connections the gateway's kernel tracks."""
        return int(self.gate.hospital.shell("gw", "cat /proc/sys/net/netfilter/nf_conntrack_count"))

    def memory(self, key: str = "VmRSS") -> dict[str, float]:
        """Give the MiB that the gate's process and its engine hold."""
        self.dns.wait_until_well()  # one that was replaced has no process for a moment
        return {
            "the gate's process": memory(self.dns.process.pid, key),
            "dnsmasq": memory(self.dns.engine, key),
        }

    def left(self) -> Outside:
        """Count what left since the beginning; to be asked once."""
        time.sleep(0.5)
        self._stop.set()
        self._reader.join()
        self.gate.witness.take(self._flows)
        names = [name for name, _ in self.gate.hospital.dns_asked()]
        refused = sum(name.endswith(NOBODYS) for name in names)
        packets = sum(
            len(times) for key, times in self._flows.items() if key[1] in {raw.TCP, raw.UDP}
        )
        return Outside(refused, packets - (len(names) - refused))


@dataclass
class _Found:
    """What was measured.

    took: kind and state -> ms; lost: kind and state -> not answered; rates: questions a second.
    """

    took: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    rates: list[float] = field(default_factory=list)
    sent: int = 0
    tracked: int = 0

    def note(self, state: str, answers: dict[str, tuple[list[float], int]]) -> None:
        for kind, (times, unanswered) in answers.items():
            self.took[kind, state] += times
            self.lost[kind, state] += unanswered


def _flooded(asked: Asked, seconds: float, found: _Found) -> None:
    earlier = int(asked.crowd.ask("stop"))
    asked.crowd.say("go")
    began = time.monotonic()
    answers = asked.ask(seconds)
    sent, took = int(asked.crowd.ask("stop")) - earlier, time.monotonic() - began
    found.note(WITH, answers)
    found.rates.append(sent / took)
    found.sent += sent
    found.tracked = max(found.tracked, asked.tracked())


def crowd(section: Section, rounds: int, quiet: float, flooded: float) -> None:
    """20,000 questions a second of 500 machines for names that nobody keeps, and kept names.

    Without and with, in turns.
    """
    found = _Found()
    with Gate() as gate, Asked(gate, min(400_000, int(RATE * flooded * rounds))) as asked:
        asked.ask(1.0)  # what is cached is cached, and what is loaded at first is loaded
        engine, before, earlier = asked.dns.engine, asked.memory(), asked.counters()
        for _ in range(rounds):
            found.note(WITHOUT, asked.ask(quiet))
            _flooded(asked, flooded, found)
        time.sleep(0.5)
        became, after = asked.counters(), asked.memory()
        became.subtract(earlier)
        left = asked.left()
        replaced = asked.dns.engine != engine
    _tell_answers(section, found, became)
    for who in before:
        section.add("resident memory, before", who, "MiB", [before[who]])
        section.add("resident memory, after", who, "MiB", [after[who]])
    grown = sum(after.values()) - sum(before.values())
    section.below("resident memory, grown", "both", "MiB", [grown], ROOM)
    for what, count in (
        ("refused names that a server outside was asked", left.names),
        ("packets outside, but questions for kept names", left.beside),
    ):
        section.add(what, "with and without the crowd", "", [count], target="0", met=count == 0)
    section.remarks.append(
        f"{found.sent:,} questions of the crowd. Each has a port of its own, "
        f"as those of a resolver's library have: {found.tracked:,} connections "
        "were tracked by the kernel at the end of a flood (a question for 30 s)."
    )
    section.remarks.append(
        "dnsmasq's queue in the kernel holds 14 ms of such questions. What finds it full is lost, "
        "kept names too, and asked again by its machine ([known issues](known-issues.md)); how "
        "often that is depends on what else the two cores do."
    )
    if replaced:
        section.remarks.append(
            "**dnsmasq was replaced meanwhile**: it did not answer the gate's own question."
        )


def _tell_answers(section: Section, found: _Found, became: Counter[str]) -> None:
    section.add(
        "questions for names that nobody keeps, sent",
        f"{MACHINES} machines",
        "/s",
        found.rates,
        target=f">= {RATE:,}",
        met=min(found.rates) >= 0.95 * RATE,
    )
    for what in (REFUSED, LIMITED, OVERFLOWED):
        section.add(what, "share of those sent", "", [became[what] / found.sent])
    for (kind, state), times in found.took.items():
        who = f"{kind}, {state} the crowd"
        if state == WITH:
            section.below("answer for a kept name", who, "ms", times, 20)
        else:
            section.add("answer for a kept name", who, "ms", times)
    for (kind, state), times in found.took.items():
        share = found.lost[kind, state] / len(times)
        section.add(
            "kept names not answered within 1 s, share", f"{kind}, {state} the crowd", "", [share]
        )
