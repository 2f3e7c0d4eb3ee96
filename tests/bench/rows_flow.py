"""Leak and loss over many cuts.

The refusal storm; what is sent is numbered by what the witness outside sees.
"""

import itertools
import threading
import time
from collections import Counter

from tests.bench import raw, site
from tests.bench.figures import Section
from tests.bench.gate import Gate, Helper
from tests.lab import places

FLOWS = 64
RATE = 6_400
_KINDS = ("tcp", "udp", "icmp")
REFUSED, PASSED = "refused at cut", "passed at open"
STORM_SLICE = 20_000


def mixed(gate: Gate, to: places.Place, count: int, first_port: int) -> list[bytes]:
    """Give a frame of each of so many flows to a place: TCP, UDP and ICMP, both families."""
    kinds = itertools.cycle(itertools.product(_KINDS, (4, 6)))
    macs, ours = gate.macs(), places.CARE_HOST
    return [
        raw.frame(macs, kind, ours.address(family), to.address(family), first_port + n, site.PORT)
        for n, (kind, family) in zip(range(count), kinds, strict=False)
    ]


def _late(flows: dict, place: places.Place, since: int) -> int:
    wanted = {place.v4, place.v6}
    return sum(
        sum(1 for t in times if t > since)
        for key, times in flows.items()
        if raw.destination(key) in wanted
    )


def leaked_after(gate: Gate, answered: int, quiet: float = 0.005) -> int:
    """Wait a little and count packets of what is not kept, seen outside after `answered` (ns since
    the epoch).
    """
    time.sleep(quiet)
    return _late(gate.witness.take(), site.CUT_OFF, answered)


def refused_of_kept(gate: Gate) -> int:
    """Give how many packets to or from the kept partner the kernel recorded as refused."""
    flows = gate.ask("/v1/refused?limit=10000")[1]["flows"]
    kept = {site.KEPT.v4, site.KEPT.v6}
    return sum(flow["packets"] for flow in flows if kept & {flow["source"], flow["destination"]})


_BOTH = {"site": site.with_both_locks(), "flags": ("--dns-minimum-ttl", "1")}
_MOVING = "moving.lab.example"
_CHURN = 5
"""Switches between two changes of devices and names."""


def leak(section: Section, cuts: int, *, both: bool = False) -> None:
    """64 flows that are not kept knock all the while.

    Each cut is looked at outside until the reopening.

    both: with the second lock, which is waited for before each reopening.
    """
    with Gate() as gate:
        gate.start_daemon(site.allowlist(site.addresses(1_000)), **(_BOTH if both else {}))
        knocking = gate.sender(mixed(gate, site.CUT_OFF, FLOWS, 30_000), RATE)
        knocking.say("go")
        time.sleep(0.2)
        before = sum(map(len, gate.witness.take().values()))
        counts = []
        for _ in range(cuts):
            answered = gate.level("cut").ended
            if both:
                gate.wait_for_second_lock()
            counts.append(leaked_after(gate, answered))
            gate.level("open")
        time.sleep(0.1)
        flowing = sum(map(len, gate.witness.take().values()))
        knocking.ask("stop")
    kinds = len(_KINDS) * 2
    section.remarks.append(
        f"{FLOWS} flows of {kinds} kinds at {RATE:,} packets/s; {before:,} and {flowing:,} "
        "packets of theirs were seen outside just before the first cut and after the last "
        "reopening, so the witness sees."
    )
    total = sum(counts)
    section.add(
        f"packets outside after the answer, {cuts:,} cuts",
        "not kept, both locks" if both else "not kept",
        "",
        [total],
        target="0",
        met=total == 0,
    )


def _churn(gate: Gate, number: int) -> None:
    """Have another outside device come, and another address of a kept name; the ones before go."""
    gone = f"ip link del churn{number - 1}; " if number else ""
    gate.shell(f"{gone}ip link add churn{number} type veth peer name churnp{number}")
    address = site.addresses(1, first=60_000 + number % 5_000)
    gate.hospital.dns(places.NAMES | {_MOVING: {"a": address, "ttl": 1}})


def loss(section: Section, changes: int, reloads: int, *, both: bool = False) -> None:
    """Kept flows of all kinds run through cuts, reopenings and reloads.

    What was sent has to be seen outside.

    both: with the second lock, which is waited for at each cut, while devices and names change.
    """
    names, churns = (_MOVING,) if both else (), 0
    with Gate() as gate:
        if both:
            _churn(gate, 0)
        files = site.allowlist(site.addresses(1_000), *names)
        gate.start_daemon(files, **(_BOTH if both else {}))
        frames = mixed(gate, site.KEPT, 60, 31_000)
        kept = gate.sender(frames, 6_000)
        flows: dict = {}
        drops = raw.backlog_drops()
        gate.witness.take()
        stop = threading.Event()
        reader = threading.Thread(target=read_on, args=(gate, flows, stop))
        kept.say("go")
        reader.start()
        for number in range(changes):
            gate.level(("cut", "open")[number % 2])
            if both and number % 2 == 0:
                gate.wait_for_second_lock()
            if both and number % _CHURN == 0:
                _churn(gate, churns := churns + 1)
        gate.level("cut")
        for number in range(reloads):
            gate.daemon.write_config(
                site.with_both_locks() if both else site.only_care(),
                site.allowlist(site.addresses(1_000, first=number + 1), *names),
            )
            gate.ask("/v1/reload", {"reason": "benchmark"})
            if both:
                _churn(gate, churns := churns + 1)
                gate.wait_for_second_lock()
        sent = int(kept.ask("stop"))
        time.sleep(0.2)
        stop.set()
        reader.join()
        gate.witness.take(flows)
        seen = sum(
            n for to, n in raw.by_destination(flows).items() if to in {site.KEPT.v4, site.KEPT.v6}
        )
        refused = refused_of_kept(gate)
        lock = gate.wait_for_second_lock() if both else {}
        rig = raw.backlog_drops() - drops
    who = f"kept, {changes:,} switches, {reloads} reloads"
    if both:
        who += f", both locks, {churns} changes of devices and names"
        dropped = sum(one["lost"] for one in lock["devices"])
        section.remarks.append(
            f"The second lock, since its last coming: {dropped} packets dropped, "
            f"{sum(one['kept'] for one in lock['devices']):,} let out to what is kept."
        )
    section.add("packets refused by the kernel", who, "", [refused], target="0", met=refused == 0)
    section.add(
        f"packets sent and not seen outside, of {sent:,}",
        who,
        "",
        [sent - seen],
        target="0",
        met=seen == sent,
    )
    if rig:
        section.remarks.append(
            f"The rig's own queues dropped {rig} packets meanwhile (softnet_stat)."
        )


def read_on(gate: Gate, flows: dict, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        gate.witness.take(flows)


def _refusal_costs(gate: Gate, sender: Helper, rounds: int = 9) -> dict[str, list[float]]:
    """Give ns of processor time of the sender's packet (lanes.py): refused at `cut`, and at `open`.

    The latter go on to the internet side, and so cost more than the table's part.
    """
    found: dict[str, list[float]] = {REFUSED: [], PASSED: []}
    for who, level in ((REFUSED, "cut"), (PASSED, "open")):
        gate.level(level)
        gate.wait_for_purge()
        for _ in range(rounds):
            gate.witness.take()
            found[who].append(int(sender.ask(f"cost {STORM_SLICE}")) / STORM_SLICE)
            time.sleep(0.05)
            seen = sum(map(len, gate.witness.take().values()))
            if (seen < STORM_SLICE // 10) != (who == REFUSED):
                raise RuntimeError(f"{who}: {seen:,} of {STORM_SLICE:,} packets were seen outside")
    gate.level("cut")
    gate.wait_for_purge()
    return found


def storm(section: Section, seconds: float) -> None:
    """5,000 sources of the guests' network send to random places, as fast as one core builds
    packets.
    """
    with Gate() as gate:
        gate.start_daemon(site.allowlist(site.addresses(10_000)))
        gate.level("cut")
        gate.wait_for_purge()
        macs = gate.macs("guests", "guest0")
        frames = [
            raw.frame(
                macs,
                "udp",
                f"10.30.{64 + n % 5000 // 250}.{1 + n % 250}",
                f"198.51.100.{n * 7919 % 254 + 1}",
                20_000 + n % 40_000,
                1024 + n * 104_729 % 60_000,
            )
            for n in range(60_000)
        ]
        costs = _refusal_costs(gate, gate.sender(frames, 0, "guests"))
        flood = gate.sender(frames, 200_000, "guests")
        kept = gate.sender([gate.frame("udp", site.KEPT.v4)], 20_000)
        shares: Counter[str] = Counter()
        sent: Counter[str] = Counter()
        delays: list[float] = []
        rate = 0.0
        for state in ("without", "with") * 3:
            gate.witness.take()
            start_flood = 0
            if state == "with":
                start_flood = int(flood.ask("stop"))
                flood.say("go")
            earlier = int(kept.ask("stop"))
            kept.say("go")
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                if state == "with":
                    delays.append(gate.ask("/v1/status")[0].ms)
                time.sleep(0.02)
            took = time.monotonic() - began
            sent[state] += int(kept.ask("stop")) - earlier
            if state == "with":
                rate = max(rate, (int(flood.ask("stop")) - start_flood) / took)
            time.sleep(0.05)
            shares[state] += raw.by_destination(gate.witness.take())[site.KEPT.v4]
        refused = gate.ask("/v1/status")[1]["refused_packets"]
    through = {state: shares[state] / seconds / 3 for state in shares}
    ratio = through["with"] / through["without"]
    for who, values in costs.items():
        section.add("processor time of a packet", who, "ns", values)
    ratios = [a / b for a, b in zip(costs[REFUSED], costs[PASSED], strict=True)]
    section.add("processor time of a packet: refused / passed", "storm", "", ratios)
    section.add(
        "storm, sent", "guests", "packets/s", [rate], target=">= 200,000", met=rate >= 190_000
    )
    section.add("kept packets/s outside", "without the storm", "packets/s", [through["without"]])
    section.add("kept packets/s outside", "with the storm", "packets/s", [through["with"]])
    section.add("ratio", "with : without", "", [ratio], target=">= 0.9", met=ratio >= 0.9)
    section.below("status, to its answer", "API call", "ms", delays, 50)
    for state in ("without", "with"):
        arrived = shares[state] / sent[state]
        section.add("kept packets seen outside, of those sent", f"{state} the storm", "", [arrived])
    section.remarks.append(
        f"{refused:,} packets were refused. Of the kept stream (20,000 packets/s wanted) "
        f"{sent['with']:,} were sent with and {sent['without']:,} without the storm: the sender "
        "shares the cores with the storm's maker."
    )
