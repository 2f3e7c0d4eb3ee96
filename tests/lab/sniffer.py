"""The witness: what really crossed a link, seen from its far end, never from the gateway."""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Self

from tests.lab.hosts import Worker

_HOUSEKEEPING = {58: {130, 131, 132, 133, 134, 135, 136, 137, 143}, 2: None}
NUMBERS = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "icmpv6": 58,
    "sctp": 132,
}


class WitnessBlindError(AssertionError):
    """The sniffer itself lost packets: whatever it did not see proves nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Packets of one flow and one set of TCP flags, in the time asked for.

    from_gateway: on its way out of the gateway. protocol: IANA number. For ICMP the ports are type
    and code.
    first, last: nanoseconds since the epoch, the kernel's time. longest_gap: nanoseconds.
    """

    from_gateway: bool
    protocol: int
    flags: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    packets: int
    first: int
    last: int
    longest_gap: int

    @property
    def housekeeping(self) -> bool:
        """Neighbour discovery, multicast listening.

        What every link says by itself (RFC 4861, RFC 3810).
        """
        kinds = _HOUSEKEEPING.get(self.protocol, set())
        return kinds is None or self.source_port in kinds


def _within(address: str, network: str | None) -> bool:
    if network is None:
        return True
    one, many = ip_address(address), ip_network(network)
    return one.version == many.version and one in many


class Sniffer:
    """Watches one interface.

    Every question ends with the check that the witness itself lost nothing.

    Use as a context manager, or through the hospital, which closes it. Times are nanoseconds of
    time.time_ns().
    """

    def __init__(self, namespace: str, interface: str) -> None:
        self._worker = Worker(namespace, interface)
        self._worker.do("clear")

    def seen(
        self,
        since: int = 0,
        until: int = 0,
        *,
        source: str | None = None,
        destination: str | None = None,
        protocol: str | int | None = None,
        port: int | None = None,
        from_gateway: bool | None = None,
        housekeeping: bool = False,
    ) -> list[Seen]:
        """Give the flows with packets between two times (0: no bound) that fit, oldest first.

        source, destination: address or prefix. port: the destination's. housekeeping: neighbour
        discovery and the like too. WitnessBlindError when the sniffer dropped packets.
        """
        number = NUMBERS[protocol] if isinstance(protocol, str) else protocol
        found = [
            Seen(not outgoing, *rest)
            for outgoing, *rest in self._worker.do("flows", since=since, until=until)
        ]
        if drops := self.drops():
            raise WitnessBlindError(f"the sniffer lost {drops} packets: this run proves nothing")
        return sorted(
            (
                flow
                for flow in found
                if (number is None or flow.protocol == number)
                and (port is None or flow.destination_port == port)
                and (from_gateway is None or flow.from_gateway == from_gateway)
                and (housekeeping or not flow.housekeeping)
                and _within(flow.source, source)
                and _within(flow.destination, destination)
            ),
            key=lambda flow: flow.first,
        )

    def count(self, since: int = 0, until: int = 0, **wanted) -> int:
        """Give how many packets fit (see `seen`)."""
        return sum(flow.packets for flow in self.seen(since, until, **wanted))

    def drops(self) -> int:
        """Give how many packets the sniffer itself lost."""
        return self._worker.do("drops")

    def clear(self) -> None:
        self._worker.do("clear")

    def close(self) -> None:
        self._worker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, *_: object) -> None:
        lost = self.drops() if kind is None else 0
        self.close()
        if lost:
            raise WitnessBlindError(f"the sniffer lost {lost} packets: this run proves nothing")
