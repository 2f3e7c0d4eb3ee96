"""What goes on at a gateway all day.

Streams a millisecond apart, calls that should fail, and whether everybody is served.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab import places
from tests.lab.hosts import Beacon, Host, Stream, StreamReport
from tests.vm.ward import Ward

# a second on each stream, by default: the lab's own processes share two cores with the emulator
RATE = 100
_AWAY = [("tcp", 443), ("udp", 5060)]


@dataclass(frozen=True, slots=True)
class Traffic:
    """kept: to the laboratory, both families.

    Others: to a web site, from care and from guests; calls: TCP and UDP now and then.
    """

    kept: tuple[Stream, ...]
    others: tuple[Stream, ...]
    calls: tuple[Beacon, ...]

    def served(self) -> list[StreamReport]:
        """Say how the kept streams go so far."""
        return [stream.report() for stream in self.kept]


@contextmanager
def running(ward: Ward, *, rate: int = RATE) -> Iterator[Traffic]:
    """Keep all of it going. A datagram that finds no gateway is lost; the stream goes on."""
    care, guest, stranger = ward.care, ward.guest, ward.stranger
    kept = tuple(
        care.stream(place, 5000, rate=rate)
        for place in (places.LABORATORY.v4, places.LABORATORY.v6)
    )
    others = tuple(
        host.stream(to, 5000, rate=rate)
        for host, to in ((care, places.WEB.v4), (care, places.WEB.v6), (guest, places.WEB.v4))
    )
    calls = (
        *(_calls(host, places.WEB.address(family)) for host in (care, guest) for family in (4, 6)),
        stranger.beacon([("tcp", places.GATEWAY_WAN.v4, places.FORWARDED_PORT)]),
        stranger.beacon([("tcp", places.CARE_SERVER.v6, places.FORWARDED_PORT)]),
    )
    traffic = Traffic(kept, others, calls)
    try:
        yield traffic
    finally:
        for stream in (*kept, *others):
            stream.stop(grace=0)
        for beacon in calls:
            beacon.tally(stop=True)


def _calls(host: Host, to: str) -> Beacon:
    return host.beacon([(protocol, to, port) for protocol, port in _AWAY])


def unserved(ward: Ward, patience: float = 60.0) -> list[str]:
    """Name the kept services that do not answer: none, when all is well.

    patience: seconds in which each is tried again; an emulated machine that is busy answers late,
    one that is shut never.
    """
    gateway, forwarded = places.GATEWAY_WAN, places.FORWARDED_PORT
    waiting = {
        "laboratory tcp v4": (ward.care, "tcp", places.LABORATORY.v4, 443),
        "laboratory tcp v6": (ward.care, "tcp", places.LABORATORY.v6, 443),
        "laboratory udp v4": (ward.care, "udp", places.LABORATORY.v4, 5001),
        "treasury tcp v4": (ward.admin, "tcp", places.TREASURY.v4, 443),
        "treasury tcp v6": (ward.admin, "tcp", places.TREASURY.v6, 443),
        "results in v4": (ward.partner, "tcp", gateway.v4, forwarded),
    }
    deadline = time.monotonic() + patience
    while True:
        tries = {name: host.begin_ping(*way, 3.0) for name, (host, *way) in waiting.items()}
        failed = {name: answer for name, future in tries.items() if not (answer := future.result())}
        waiting = {name: waiting[name] for name in failed}
        if not failed or time.monotonic() > deadline:
            return [f"{name}: {answer.error}" for name, answer in failed.items()]
