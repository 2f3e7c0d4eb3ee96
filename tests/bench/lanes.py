"""Processor time for each packet, by the kind of traffic, through one gateway.

The sender's own thread walks the whole way of its packets (veth, forward, veth, in its softirq), so
CLOCK_THREAD_CPUTIME_ID counts it at any load of the machine.
"""

import os
import statistics
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ecluse.kernel.conntrack import CT_DELETE, NFNL_SUBSYS_CTNETLINK
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    netfilter_header,
    netfilter_kind,
)
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


@dataclass(frozen=True, slots=True)
class Slice:
    """What was sent at once: processor time of a packet, ns; share that the other side received."""

    nanoseconds: float
    arrived: float

    @property
    def passed(self) -> bool:
        return self.arrived >= 0.9

    @property
    def refused(self) -> bool:
        return self.arrived <= 0.1


class _Received:
    """Counts what an interface of a namespace ever received."""

    def __init__(self, gate: Gate, role: str, interface: str) -> None:
        self._interface = interface
        namespace = gate.hospital.namespace(role)
        path = "/proc/thread-self/net/dev"
        self._file = raw.in_namespace(namespace, lambda: os.open(path, os.O_RDONLY))

    def packets(self) -> int:
        lines = os.pread(self._file, 1 << 16, 0).decode().splitlines()
        line = next(line for line in lines if f"{self._interface}:" in line)
        return int(line.split(":")[1].split()[1])

    def close(self) -> None:
        os.close(self._file)


def _far_end(kind: str) -> tuple[str, str]:
    """Give the role and the interface at which packets of a kind arrive."""
    if kind.startswith("inside"):
        return "admin", "eth0"
    return ("care", "eth0") if kind in _DIRECTION else ("inet", "uplink")


class Lanes:
    """A gateway and the senders of some kinds; `count` packets are sent for one slice."""

    def __init__(self, gate: Gate, count: int, kinds: Collection[str] = KINDS) -> None:
        self.gate, self.count = gate, count
        gate.witness.close()  # it would take its share of every packet
        for role in ("care", "admin"):
            gate.hospital.nft(_QUIET, role)
        for kind, address in ((INSIDE4, places.ADMIN_HOST.v4), (INSIDE6, places.ADMIN_HOST.v6)):
            if kind in kinds:
                gate.hospital.care.udp(address, 5001)  # finds the neighbours
        made: dict[str, Callable[[], Helper]] = {
            KEPT4: lambda: self._out(site.KEPT.v4),
            KEPT6: lambda: self._out(site.KEPT.v6),
            INSIDE4: lambda: self._out(places.ADMIN_HOST.v4),
            INSIDE6: lambda: self._out(places.ADMIN_HOST.v6),
            OTHER4: lambda: self._out(site.CUT_OFF.v4),
            OTHER6: lambda: self._out(site.CUT_OFF.v6),
            REPLY4: lambda: self._back(site.KEPT.v4, places.GATEWAY_WAN.v4),
            REPLY6: lambda: self._back(site.KEPT.v6, places.CARE_HOST.v6),
            NEW4: self._new,
        }
        wanted = {*kinds, *(_DIRECTION[kind] for kind in kinds if kind in _DIRECTION)}
        self._senders = {kind: make() for kind, make in made.items() if kind in wanted}
        self._forget = raw.in_namespace(
            gate.hospital.namespace("gw"), lambda: NetlinkSocket(NETLINK_NETFILTER)
        )
        self._ends = {name: _Received(gate, *name) for name in map(_far_end, kinds)}

    def close(self) -> None:
        """Close what counts and forgets; the senders end with their gateway."""
        for one in (*self._ends.values(), self._forget):
            one.close()

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

    def cost(self, kind: str) -> Slice:
        """Send a slice; say what a packet cost and whether the other side received them."""
        if kind == NEW4:
            self._forget.request(
                netfilter_kind(NFNL_SUBSYS_CTNETLINK, CT_DELETE), netfilter_header(0)
            )
        else:
            # Flows are fresh: a quarter of a minute of other slices may have ended them.
            self._senders[_DIRECTION.get(kind, kind)].ask(f"once {FLOWS}")
        end = self._ends[_far_end(kind)]
        before = end.packets()
        nanoseconds = int(self._senders[kind].ask(f"cost {self.count}")) / self.count
        time.sleep(0.01)  # what waits in a queue of the machine arrives
        return Slice(nanoseconds, (end.packets() - before) / self.count)


def in_turns(
    lanes: Mapping[Name, Lanes],
    kinds: tuple[str, ...],
    rounds: int,
    refused: Callable[[Name, str], bool | None],
) -> dict[str, dict[Name, list[float]]]:
    """Measure every gateway slice by slice, the order reversed each second round; ns of a packet.

    refused: whether a gateway is to refuse a kind; None: it is not measured there. RuntimeError
    where one did otherwise: packets that were not delivered are no figure, nor are those that a cut
    let out.
    """
    found: dict[str, dict[Name, list[float]]] = {k: {n: [] for n in lanes} for k in kinds}
    for number in range(rounds):
        for kind in kinds:
            order = list(lanes.items())
            for name, lane in order if number % 2 == 0 else reversed(order):
                wanted = refused(name, kind)
                if wanted is None:
                    continue
                slice_ = lane.cost(kind)
                if not (slice_.refused if wanted else slice_.passed):
                    raise RuntimeError(f"{name}: {kind}: {slice_.arrived:.0%} arrived")
                found[kind][name].append(slice_.nanoseconds)
    return found


def refused_at_cut(kind: str) -> bool:
    """Say whether a gateway at `cut` refuses packets of a kind."""
    return kind in (OTHER4, OTHER6)


def ratios(one: list[float], other: list[float]) -> list[float]:
    """Give the ratio of each round: above 1, `other` is the cheaper."""
    return [a / b for a, b in zip(one, other, strict=True)]


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Give the lower quartile, the median and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
