"""The outside devices that the second lock closes, from the links read. Pure."""

from collections.abc import Iterator

from ecluse.host_reading import Device, HostReading
from ecluse.interface_zones import InterfaceZones
from ecluse.policy import Policy
from ecluse.ruleset.exit_values import ExitDevice

_OWN_MAC = frozenset({"macvlan", "macvtap", "vlan"})
"""Kinds that send by the device that they stand on, by a link-layer address of their own."""


def exit_devices(policy: Policy, host: HostReading) -> tuple[ExitDevice, ...]:
    """Give the devices to lock, by name: every one that is in no zone, but `lo`.

    Not a VRF, which sends nothing itself; not a port of a zone's bridge or bond; not a port of any
    bond or team, which sends what the bond was allowed to (so LACP lives). A port of an outside
    bridge is locked: its neighbours on the bridge may be of another machine.
    """
    links = _Links(policy, host)
    return tuple(links.exit_device(links.here[name]) for name in links.locked() if _writable(name))


def unwritable_devices(policy: Policy, host: HostReading) -> tuple[str, ...]:
    """Give those that would be locked, had they names that nft(8) can read."""
    return tuple(name for name in _Links(policy, host).locked() if not _writable(name))


def _writable(name: str) -> bool:
    """Say whether nft(8) reads this name as it is; U+FFFD stands for bytes that are no UTF-8."""
    return not {'"', "\ufffd"} & set(name)


class _Links:
    """The links of our namespace, and what stands on each."""

    def __init__(self, policy: Policy, host: HostReading) -> None:
        self.here = {one.name: one for one in host.devices if not one.elsewhere}
        zones = InterfaceZones(policy)
        self._zoned = {name for name in self.here if zones.zones_of(name)}
        self._above: dict[str, list[Device]] = {}
        for one in self.here.values():
            if one.kind in _OWN_MAC and one.parent:
                self._above.setdefault(one.parent, []).append(one)
            master = self.here.get(one.master)
            if master and master.kind == "bridge":
                self._above.setdefault(one.name, []).append(master)

    def locked(self) -> list[str]:
        return [name for name in sorted(self.here) if self.is_locked(name)]

    def is_locked(self, name: str) -> bool:
        one = self.here[name]
        master = self.here.get(one.master)
        if name == "lo" or one.kind == "vrf" or name in self._zoned:
            return False
        if master is None or master.kind == "vrf":
            return True
        return master.kind == "bridge" and master.name not in self._zoned

    def _standing_on(self, name: str, seen: set[str]) -> Iterator[Device]:
        for one in self._above.get(name, ()):
            if one.name not in seen:
                seen.add(one.name)
                yield one
                yield from self._standing_on(one.name, seen)

    def exit_device(self, one: Device) -> ExitDevice:
        upper = list(self._standing_on(one.name, {one.name}))
        # A macvtap is a virtual machine's: what it sends is not ours.
        ours = (e for e in upper if e.name not in self._zoned and e.kind != "macvtap")
        outside = {one.mac, *(each.mac for each in ours)} - {0}
        inside = {
            each.mac for each in upper if each.name in self._zoned and each.kind != "vlan"
        } - {0, one.mac}
        tags = [each for each in upper if each.kind == "vlan" and each.parent == one.name]
        return ExitDevice(
            name=one.name,
            macs=tuple(sorted(outside - inside)),
            zone_macs=tuple(sorted(inside)),
            zone_tags=tuple(sorted(each.vlan for each in tags if each.name in self._zoned)),
            outside_tags=tuple(sorted(each.vlan for each in tags if each.name not in self._zoned)),
            ethernet=one.ethernet,
            dials=one.ethernet and not one.own_ip,
            carries_ppp=one.carries_ppp,
        )
