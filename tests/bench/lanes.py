"""Processor time for each packet, by the kind of traffic, through one gateway.

The sender's own thread walks the whole way of its packets (veth, forward, veth, in its softirq), so
CLOCK_THREAD_CPUTIME_ID counts it at any load of the machine.
"""

import contextlib
import statistics
import time
from collections.abc import Hashable, Mapping
from typing import TypeVar

from tests.bench import raw, site
from tests.bench.gate import Gate, Helper
from tests.lab import places

FLOWS = 64
TRACKED = """table inet tracked {
  chain every {
    type filter hook output priority 0;
    ct state new accept
  }
}
"""
"""Switches connection tracking on in both families, where no rule is on the way of a packet:
without it a gateway without our table would not track IPv6, and its ratio would lie.
"""
_QUIET = f"""table inet quiet {{
  chain every {{
    type filter hook prerouting priority -300;
    udp sport {site.PORT} drop
    udp dport {site.PORT} drop
  }}
}}
"""
KEPT4, KEPT6, REPLY4, REPLY6 = "kept IPv4", "kept IPv6", "replies IPv4", "replies IPv6"
INSIDE4, INSIDE6, NEW4 = "inside to inside IPv4", "inside to inside IPv6", "new connections"
OTHER4, OTHER6 = "not kept IPv4", "not kept IPv6"
Name = TypeVar("Name", bound=Hashable)
KINDS = (KEPT4, KEPT6, REPLY4, REPLY6, INSIDE4, INSIDE6, NEW4, OTHER4, OTHER6)
_DIRECTION = {REPLY4: KEPT4, REPLY6: KEPT6}


class Lanes:
    """A gateway and the senders of every kind; `count` packets are sent for one slice."""

    def __init__(self, gate: Gate, count: int) -> None:
        self.gate, self.count = gate, count
        gate.witness.close()  # it would take its share of every packet
        for role in ("care", "admin"):
            gate.hospital.nft(_QUIET, role)
        for address in (places.ADMIN_HOST.v4, places.ADMIN_HOST.v6):
            gate.hospital.care.udp(address, 5001)  # finds the neighbours
        self._senders = {
            KEPT4: self._out(site.KEPT.v4),
            KEPT6: self._out(site.KEPT.v6),
            INSIDE4: self._out(places.ADMIN_HOST.v4),
            INSIDE6: self._out(places.ADMIN_HOST.v6),
            OTHER4: self._out(site.CUT_OFF.v4),
            OTHER6: self._out(site.CUT_OFF.v6),
            REPLY4: self._back(site.KEPT.v4, places.GATEWAY_WAN.v4),
            REPLY6: self._back(site.KEPT.v6, places.CARE_HOST.v6),
            NEW4: self._new(),
        }

    def _out(self, to: str) -> Helper:
        return self.gate.sender([self.gate.frame("udp", to, 41_000 + n) for n in range(FLOWS)], 0)

    def _back(self, source: str, to: str) -> Helper:
        macs = self._uplink()
        frames = [raw.frame(macs, "udp", source, to, site.PORT, 41_000 + n) for n in range(FLOWS)]
        return self.gate.sender(frames, 0, "inet", "uplink")

    def _uplink(self) -> tuple[bytes, bytes]:
        return self.gate.macs("inet", "wan0", "uplink")

    def _new(self) -> Helper:
        macs = self.gate.macs()
        sources = (f"10.10.{5 + n // 40_000}.7" for n in range(self.count))
        frames = [
            raw.frame(macs, "udp", source, site.KEPT.v4, 10_000 + n % 40_000, site.PORT)
            for n, source in enumerate(sources)
        ]
        return self.gate.sender(frames, 0)

    def cost(self, kind: str) -> float:
        """Give the nanoseconds of processor time of one packet."""
        if kind == NEW4:
            with contextlib.suppress(RuntimeError):  # there may be none to delete
                self.gate.launch("conntrack", "-D", "-p", "udp")
        else:
            # Flows are fresh: a quarter of a minute of other slices may have ended them.
            self._senders[_DIRECTION.get(kind, kind)].ask(f"once {FLOWS}")
        return int(self._senders[kind].ask(f"cost {self.count}")) / self.count

    def passes(self, kind: str) -> bool:
        """Say whether packets of the kind get through: counted by what the other side received."""
        name, role = ("eth0", "care") if kind in _DIRECTION else ("uplink", "inet")
        if kind.startswith("inside"):
            name, role = "eth0", "admin"
        namespace = self.gate.hospital.namespace(role)
        before = _received(namespace, name)
        self.cost(kind)
        time.sleep(0.05)
        return _received(namespace, name) - before >= 0.9 * self.count


def _received(namespace: str, interface: str) -> int:
    def read() -> int:
        with open("/proc/thread-self/net/dev", encoding="ascii") as file:
            line = next(line for line in file if f"{interface}:" in line)
        return int(line.split(":")[1].split()[1])

    return raw.in_namespace(namespace, read)


def in_turns(
    lanes: Mapping[Name, Lanes], kinds: tuple[str, ...], rounds: int
) -> dict[str, dict[Name, list[float]]]:
    """Measure every gateway slice by slice, the order reversed each second round."""
    found: dict[str, dict[Name, list[float]]] = {k: {n: [] for n in lanes} for k in kinds}
    for number in range(rounds):
        for kind in kinds:
            order = list(lanes.items())
            for name, lane in order if number % 2 == 0 else reversed(order):
                found[kind][name].append(lane.cost(kind))
    return found


def ratios(one: list[float], other: list[float]) -> list[float]:
    """Give the ratio of each round: above 1, `other` is the cheaper."""
    return [a / b for a, b in zip(one, other, strict=True)]


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Give the lower quartile, the median and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
