"""Our flowtable on Debian's own kernels: kept flows are in it, and no closing leaves one there."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from ecluse.ruleset.flowtable import TABLE
from tests.lab import forge, places
from tests.lab.sniffer import Sniffer
from tests.vm import guest, rig
from tests.vm.rig import Scene

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

_RELOAD = "ecluse reload --yes --reason test"
_LISTED = "conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null"
_FAMILIES = (4, 6)
_PORT = 43210


@pytest.fixture
def fast(scene: Scene) -> Iterator[Scene]:
    """The gateway at cut, with `fast_path: flowtable`."""
    machine = scene.machine
    machine.sh(f"echo 'fast_path: flowtable' >> /etc/ecluse/site.yaml; {_RELOAD}", check=True)
    yield scene
    machine.sh(f"sed -i '/^fast_path/d' /etc/ecluse/site.yaml; {_RELOAD}", check=True)
    assert TABLE not in machine.sh("nft list tables").out


@contextmanager
def _streams(scene: Scene, ways: Iterable[tuple[str, int]]) -> Iterator[None]:
    """Have care send to the laboratory: protocol, family. 100 a second each.

    At 1,000 an emulated gateway has no time left for its daemon while they are not offloaded.
    """
    ports = {"tcp": 443, "udp": 5001}
    streams = [
        scene.ward.care.stream(places.LABORATORY.address(family), ports[name], name, rate=100)
        for name, family in sorted(ways)
    ]
    try:
        yield
    finally:
        for stream in streams:
            stream.stop(grace=0)


def _offloaded(scene: Scene, place: places.Place) -> set[tuple[str, int]]:
    """Give the flows to a place that are in the flowtable: protocol, family."""
    lines = [one for one in scene.machine.sh(_LISTED).out.splitlines() if "OFFLOAD" in one]
    return {
        (protocol, family)
        for protocol in ("tcp", "udp")
        for family in _FAMILIES
        for line in lines
        if f"{protocol} " in line and f"dst={place.address(family)} " in line
    }


def _wait_for(scene: Scene, wanted: set[tuple[str, int]]) -> None:
    deadline = time.monotonic() + 60
    while not wanted <= _offloaded(scene, places.LABORATORY):
        assert time.monotonic() < deadline, scene.machine.sh(_LISTED).out
        time.sleep(0.5)


def _to_the_laboratory(outside: Sniffer) -> int:
    return sum(
        outside.count(destination=places.LABORATORY.address(family), from_gateway=True)
        for family in _FAMILIES
    )


def test_kept_flows_are_in_it_and_none_is_after_a_closing(fast: Scene):
    machine = fast.machine
    ways = {(protocol, family) for protocol in ("tcp", "udp") for family in _FAMILIES}
    with _streams(fast, ways):
        _wait_for(fast, ways)
        assert not _offloaded(fast, places.WEB), "refused"
        fast.must_hold()
        assert not [text for text in rig.status(machine)["warnings"] if "fast_path" in text]
        assert rig.status(machine)["in_step"]
        with fast.ward.sniff() as outside:
            time.sleep(1)
            assert _to_the_laboratory(outside) > 20, "positive control: it sees them pass"
            rig.command(machine, "isolate")
            outside.clear()
            time.sleep(3)
            assert _to_the_laboratory(outside) == 0, "packets of ended flows after the answer"
            rig.command(machine, "cut")
            _wait_for(fast, {("udp", 4), ("udp", 6)})
            machine.sh("systemctl kill -s STOP ecluse", check=True)
            machine.sh("nft -f /var/lib/ecluse/ruleset/isolate.nft", check=True)
            outside.clear()
            time.sleep(3)
            assert _to_the_laboratory(outside) == 0, "closed by hand, the daemon hangs"
            machine.sh("systemctl kill -s CONT ecluse", check=True)


_OWNER = """#!/bin/sh
{ cat <<END
add table inet ecluse_flows { flags owner; }
add flowtable inet ecluse_flows kept { hook ingress priority 1000; devices = { care0, wan0 }; }
add chain inet ecluse_flows forward { type filter hook forward priority 1000; }
add rule inet ecluse_flows forward meta l4proto { 6, 17 } ct state established flow add @kept
END
sleep 600; } | nft -i
"""


def test_flows_of_a_table_that_a_process_owns_end_with_a_closing_by_hand(fast: Scene):
    ways = {("udp", family) for family in _FAMILIES}
    with _streams(fast, ways):
        _wait_for(fast, ways)
        # Stopped and not hung: the watchdog would bring it back.
        stop = "systemctl stop ecluse.socket ecluse; nft delete table inet ecluse_flows"
        fast.machine.sh(stop, check=True)
        fast.machine.write("/tmp/owner.sh", _OWNER)
        fast.machine.sh("systemd-run --quiet --unit=owner /bin/sh /tmp/owner.sh", check=True)
        try:
            _closed_by_hand(fast, ways)
        finally:
            back = "systemctl stop owner; systemctl start ecluse.socket ecluse"
            fast.machine.sh(back, check=True)
    rig.command(fast.machine, "cut")


def _closed_by_hand(scene: Scene, ways: set[tuple[str, int]]) -> None:
    machine = scene.machine
    _wait_for(scene, ways)
    refused = machine.sh("nft -f /var/lib/ecluse/ruleset/isolate.nft")
    assert refused.code, "positive control: it is refused as it is"
    with scene.ward.sniff() as outside:
        time.sleep(1)
        assert _to_the_laboratory(outside) > 10, "positive control: it sees them pass"
        done = machine.sh("ecluse isolate --no-daemon")
        assert done.code == 0, done
        assert "connections in a flowtable were ended" in done.err
        time.sleep(2)
        outside.clear()
        time.sleep(3)
        assert _to_the_laboratory(outside) == 0, "packets of ended flows"


def test_a_source_made_up_behind_another_interface_does_not_meet_a_flow_in_it(fast: Scene):
    ward, here, there = fast.ward, places.CARE_HOST.v4, places.LABORATORY.v4
    wanted, listed = f"sport={_PORT} ", [""]
    deadline = time.monotonic() + 60
    # What follows the fixture's reload may make the flowtable anew: then a later packet is in it.
    while not any("OFFLOAD" in one for one in listed):
        assert time.monotonic() < deadline, listed
        assert forge.talk(ward, "care", here, _PORT, there, 5001, patience=10)
        listed = [one for one in fast.machine.sh(_LISTED).out.splitlines() if wanted in one]
    seen = {}
    with ward.sniff() as outside:
        for role, ours in (("guests", "guest0"), ("care", "care0")):
            outside.clear()
            one = forge.packet("udp", here, _PORT, there, 5001)
            for _ in range(5):
                forge.send(ward, role, one, mac=guest.mac(ours))
            time.sleep(2)
            seen[role] = outside.count(destination=there, port=5001, from_gateway=True)
    assert seen == {"guests": 0, "care": 5}, "the second is the positive control"
