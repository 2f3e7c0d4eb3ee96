"""The outside witness of a whole life of the machine, and its judge: whose was each packet?

It listens where the gateway's cables end: on the internet's side, and inside on care's. A packet is
a kept service's, the lifeline's, or nobody's. The list of what is kept is written by hand here,
next to nothing of the product's: it is the lab's allowlist (tests/lab/policy.py) as a network
engineer would read it.
"""

import time
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from tests.lab import places
from tests.lab.sniffer import NUMBERS, Seen, Sniffer
from tests.vm.ward import Ward

_KEPT_OUT: dict[tuple[places.Place, str], set[int]] = {
    (places.LABORATORY, "tcp"): {443, 22},
    (places.LABORATORY, "udp"): {5000, 5001},
    (places.HEALTH_DATA, "udp"): {500, 4500},
    (places.TREASURY, "tcp"): {443},
    (places.DNS_SERVER, "tcp"): {53},
    (places.DNS_SERVER, "udp"): {53},
}
_PARTNERS = ("203.0.113.64/28", "2001:db8:ffff:64::/64")
_RESULTS = {places.FORWARDED_PORT, places.SERVER_PORT}
_ECHO = {1: {0, 8}, 58: {128, 129}}
_ERRORS = {1: {3, 11, 12}, 58: {1, 2, 3, 4}}
RST = 4


def _kept_outside(address: str) -> bool:
    """Whether the address is that of anybody who is kept."""
    places_ = {place for place, _ in _KEPT_OUT}
    return any(address in {place.v4, place.v6} for place in places_) or _is_partner(address)


def _is_partner(address: str) -> bool:
    one = ip_address(address)
    return any(
        one in ip_network(network)
        for network in _PARTNERS
        if ip_network(network).version == one.version
    )


def _kept(protocol: int, theirs: str, their_port: int, our_port: int) -> bool:
    """Whether a packet between us and an outside address belongs to a kept service (or is an ICMP
    error about one).

    For ICMP their_port is the type.
    """
    if protocol in _ECHO:
        laboratory = theirs in {places.LABORATORY.v4, places.LABORATORY.v6}
        return (their_port in _ECHO[protocol] and laboratory) or (
            their_port in _ERRORS[protocol] and _kept_outside(theirs)
        )
    if protocol == NUMBERS["tcp"] and _is_partner(theirs) and our_port in _RESULTS:
        return True
    return any(
        theirs in {place.v4, place.v6} and protocol == NUMBERS[name] and their_port in ports
        for (place, name), ports in _KEPT_OUT.items()
    )


def kept_leaving(flow: Seen) -> bool:
    """Say whether a packet from the gateway to the internet is allowed during a cut."""
    return _kept(
        flow.protocol, flow.destination, _their_port(flow, flow.destination_port), flow.source_port
    )


def kept_entering(flow: Seen) -> bool:
    """Whether a packet on its way out of the gateway to the inside may be there.

    Also what comes from no outside address, and a reset,

    with which the gateway itself refuses a connection in the name of who was called.
    """
    source = ip_address(flow.source)
    networks = [ip_network(network) for network in places.OUTSIDE_NETWORKS]
    if not any(source in network for network in networks if network.version == source.version):
        return True
    if flow.protocol == NUMBERS["tcp"] and flow.flags & RST:
        return True
    return _kept(
        flow.protocol, flow.source, _their_port(flow, flow.source_port), flow.destination_port
    )


def _their_port(flow: Seen, port: int) -> int:
    return flow.source_port if flow.protocol in _ECHO else port


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was seen in a time.

    kept: packets of kept services; nobodys: the flows that should not have been there.
    """

    kept: int
    nobodys: tuple[Seen, ...]

    @property
    def leaked(self) -> int:
        """Packets that were not kept: 0 is what every test of a cut asks for."""
        return sum(flow.packets for flow in self.nobodys)

    def __str__(self) -> str:
        lines = [f"{self.leaked} packets of nobody, {self.kept} of kept services"]
        for flow in self.nobodys[:20]:
            lines.append(
                f"  {flow.packets:6} protocol {flow.protocol} flags {flow.flags:#x} "
                f"{flow.source}:{flow.source_port} -> {flow.destination}:{flow.destination_port} "
                f"from {_clock(flow.first)} to {_clock(flow.last)}"
            )
        return "\n".join(lines)


def _clock(when: int) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(when / 1e9)) + f".{when // 1_000_000 % 1000:03}"


class Witness:
    """Watches both sides from when it is made. Times are time.time_ns() of this machine."""

    def __init__(self, ward: Ward) -> None:
        self._outside: Sniffer = ward.sniff()
        self._inside: Sniffer = ward.sniff("care", "eth0")

    def judge(self, since: int, until: int = 0) -> Verdict:
        """Judge what left the gateway, into the internet and to the inside, between two times."""
        kept, nobodys = 0, []
        for sniffer, fits in ((self._outside, kept_leaving), (self._inside, kept_entering)):
            for flow in sniffer.seen(since, until, from_gateway=True):
                if fits(flow):
                    kept += flow.packets
                else:
                    nobodys.append(flow)
        return Verdict(kept, tuple(sorted(nobodys, key=lambda flow: flow.first)))

    def forget(self) -> None:
        """Drop what was seen so far, to stay quick."""
        self._outside.clear()
        self._inside.clear()
