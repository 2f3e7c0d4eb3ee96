"""What the gate costs kept traffic.

Throughput, packets, new connections, beside a gateway without the table and the peers.
"""

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tests.bench import raw, site
from tests.bench.contenders import CONTENDERS
from tests.bench.figures import Section
from tests.bench.gate import Gate
from tests.lab import places

ABSENT, OPEN, CUT = "table absent", "Écluse, open", "Écluse, cut"
PREFIXES = "Écluse, cut, prefixes"
HOOK = "nft, one chain that accepts all"  # what any gate pays that looks at packets at all
# A rule ends with a newline: nft 1.0.6 takes no "accept; }".
ACCEPT_ALL = """table inet site {
  chain every {
    type filter hook forward priority -10;
    accept
  }
}
"""
PACKETS, CONNECTIONS, THROUGHPUT = "packets of 64 bytes", "new connections", "TCP throughput"
_TARGETS = {PACKETS: 0.97, CONNECTIONS: 0.95, THROUGHPUT: 0.97}
_PEERS = (
    "nft, switch alone",
    "iptables-restore over a loaded ipset",
    "firewalld, policy with ipset",
)
_KEPT_ELEMENTS = {
    "nft switch": (
        f"nft add element inet site kept '{{ {site.KEPT.v4} . {site.PORT}, {site.KEPT.v4} . "
        f"{site.BULK_PORT} }}'"
    ),
    "iptables": (
        f"for p in udp:{site.PORT} tcp:{site.BULK_PORT}; do ipset add kept {site.KEPT.v4},$p; done"
    ),
    "firewalld": f"firewall-cmd --permanent --ipset kept --add-entry {site.KEPT.v4}",
}
State = tuple[str, int]


class Course:
    """One gateway and what runs over it."""

    def __init__(self, gate: Gate, connections: int) -> None:
        self.gate, self.connections = gate, connections
        macs, ours = gate.macs(), places.CARE_HOST.v4
        self.few = gate.sender([gate.frame("udp", site.KEPT.v4, 41_000 + n) for n in range(64)], 0)
        many = [
            raw.frame(
                macs,
                "udp",
                f"10.10.{5 + n // 40_000}.7",
                site.KEPT.v4,
                10_000 + n % 40_000,
                site.PORT,
            )
            for n in range(connections)
        ]
        self.many = gate.sender(many, 0)
        self.gate.witness.close()  # it would take its share of every packet
        inet = gate.hospital.namespace("inet")
        self.counters = raw.in_namespace(
            inet, lambda: os.open("/proc/thread-self/net/dev", os.O_RDONLY)
        )
        self.listener = raw.in_namespace(
            inet, lambda: socket.create_server((site.KEPT.v4, site.BULK_PORT))
        )
        care = gate.hospital.namespace("care")
        self.pipe = raw.in_namespace(
            care, lambda: socket.create_connection((site.KEPT.v4, site.BULK_PORT), 5.0, (ours, 0))
        )
        self.sink = self.listener.accept()[0]

    def close(self) -> None:
        os.close(self.counters)
        for one in (self.listener, self.pipe, self.sink):
            one.close()

    def arrived(self) -> int:
        """Give how many packets the internet side ever received."""
        lines = os.pread(self.counters, 1 << 16, 0).decode().splitlines()
        line = next(line for line in lines if "uplink:" in line)
        return int(line.split(":")[1].split()[1])

    def _rate(self, sender, count: int) -> float:
        before, began = self.arrived(), time.monotonic()
        sender.ask(f"once {count}")
        took = time.monotonic() - began
        time.sleep(0.01)
        arrived = self.arrived() - before
        if arrived < 0.9 * count:
            raise RuntimeError(f"only {arrived:,} of {count:,} kept packets got through")
        return arrived / took

    def packets(self) -> float:
        return self._rate(self.few, 2 * self.connections)

    def new(self) -> float:
        self.gate.launch("conntrack", "-D", "-p", "udp")
        return self._rate(self.many, self.connections)

    def throughput(self, seconds: float) -> float:
        """Give bits per second that arrive."""
        stop = threading.Event()
        block = bytes(1 << 20)

        def send() -> None:
            while not stop.is_set():
                self.pipe.sendall(block)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        room, total, began = bytearray(1 << 20), 0, time.monotonic()
        while time.monotonic() - began < seconds:
            total += self.sink.recv_into(room)
        took = time.monotonic() - began
        stop.set()
        self.sink.settimeout(0.2)
        try:
            while self.sink.recv_into(room):
                pass
        except TimeoutError:
            pass
        self.sink.settimeout(None)
        thread.join(5.0)
        return total * 8 / took


def _prepare(state: State) -> Callable[[Gate], None]:
    """Give what brings a gateway to a state."""
    name, size = state
    if name == ABSENT:
        return lambda _gate: None
    if name == HOOK:
        return lambda gate: gate.hospital.nft(ACCEPT_ALL)
    if name.startswith("Écluse"):
        entries = site.prefixes(size) if name == PREFIXES else site.addresses(size)

        def ours(gate: Gate) -> None:
            gate.start_daemon(site.allowlist(entries))
            if name != OPEN:
                gate.level("cut")
                gate.wait_for_purge()

        return ours
    one = next(c for c in CONTENDERS if c.name == name)

    def peer(gate: Gate) -> None:
        one.prepare(gate, size)
        gate.shell(_KEPT_ELEMENTS[one.shares])
        one.cut(gate)

    return peer


def forward(
    section: Section, sizes: Sequence[int], rounds: int, connections: int, seconds: float
) -> None:
    """Measure every state in turns."""
    states: list[State] = [
        (ABSENT, 0),
        (HOOK, 0),
        (OPEN, sizes[1]),
        *((CUT, size) for size in sizes),
        (PREFIXES, 1000),
    ]
    states += [(name, sizes[1]) for name in _PEERS]
    results: dict[tuple[str, State], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        courses: dict[State, Course] = {}
        for state in states:
            gate = stack.enter_context(Gate())
            try:
                _prepare(state)(gate)
                courses[state] = Course(gate, connections)
            except (RuntimeError, OSError) as error:
                if state[0].startswith("Écluse") or state[0] in (ABSENT, HOOK):
                    raise  # these need nothing that can be missing
                note = f"missing: {str(error)[-120:]}".replace("\n", " ")
                section.add(PACKETS, state[0], "packets/s", (), size=state[1], note=note)
                continue
            stack.callback(courses[state].close)
        for _ in range(rounds):
            for state, course in courses.items():
                results[PACKETS, state].append(course.packets())
                results[CONNECTIONS, state].append(course.new())
                results[THROUGHPUT, state].append(course.throughput(seconds) / 1e9)
    units = {PACKETS: "packets/s", CONNECTIONS: "connections/s", THROUGHPUT: "Gbit/s"}
    for what, unit in units.items():
        for state in courses:
            section.add(what, state[0], unit, results[what, state], size=state[1])
        for state in courses:
            _ratio(section, what, state, results)


def _ratio(section: Section, what: str, state: State, results: dict) -> None:
    """Hold a state against the table absent, round by round."""
    if state[0] == ABSENT:
        return
    ratios = [a / b for a, b in zip(results[what, state], results[what, (ABSENT, 0)], strict=True)]
    figure = section.add(f"{what}: ratio to absent", state[0], "", ratios, size=state[1])
    if state[0] == OPEN or state[0].startswith(CUT):
        goal = _TARGETS[what]
        section.figures[-1] = type(figure)(
            figure.what,
            figure.who,
            figure.size,
            "",
            figure.values,
            f">= {goal}",
            figure.median >= goal,
        )
