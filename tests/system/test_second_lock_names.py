"""Names that move at `second_lock: cut`: the second lock is never narrower than the gate.

What it dropped would show in `lost`, for the gate had let it through.
"""

import pytest

from tests.lab import places, policy
from tests.lab.hospital import Hospital
from tests.system.test_dns_gate import ALLOWLIST, ROOM, ROTATING, ROTATING6, ZONE
from tests.system.test_second_lock import CUT, has_lock, lock
from tests.system.test_tamper import wait_until

pytestmark = pytest.mark.system

MOVING = "moving.lab.example"
POOL = [f"203.0.113.{number}" for number in range(100, 112)]


def lost(daemon) -> int:
    return sum(one["lost"] for one in lock(daemon)["devices"])


def test_a_name_that_moves_loses_no_packet_that_the_gate_lets_through(hospital: Hospital):
    def move(number: int) -> None:
        hospital.dns(places.NAMES | {MOVING: {"a": [POOL[number]], "ttl": 1}})

    def is_let_out(address: str) -> bool:
        return address in hospital.shell("gw", "nft list table netdev ecluse_exit")

    moving = policy.service("moving", "vital", ["care"], [{"to": [MOVING], "ports": ["udp/5000"]}])
    move(0)
    daemon = hospital.daemon(
        site=CUT,
        allowlist=policy.ALLOWLIST | {"60-moving.yaml": [moving]},
        flags=("--dns-minimum-ttl", "1"),
    ).start()
    daemon.level("cut")
    assert wait_until(lambda: has_lock(daemon), 5)
    streams = [hospital.care.stream(to, 5000, "udp", rate=100) for to in POOL]
    with hospital.sniff() as outside:
        for number in range(1, len(POOL)):
            move(number)
            assert wait_until(lambda to=POOL[number]: outside.count(destination=to), 15)
            assert is_let_out(POOL[number])
        seen = [outside.count(destination=to) for to in POOL]
    for one in streams:
        one.stop(grace=0)
    assert all(seen[1:]), seen
    assert lost(daemon) == 0, "each new address was in the lock before it was in the gate"


@pytest.mark.parametrize("family", [4, 6])
def test_what_the_dns_gate_answers_is_reached_at_once(hospital: Hospital, family: int):
    hospital.dns(ZONE)
    daemon = hospital.daemon(
        site=policy.site(dns_gate=ROOM, second_lock="cut"), allowlist=ALLOWLIST
    )
    gate = hospital.dns_gate(daemon).start()
    daemon.start()
    gate.wait_until_well()
    daemon.level("cut")
    assert wait_until(lambda: has_lock(daemon), 5)
    server, kind = places.DNS_SERVER.address(family), {4: "a", 6: "aaaa"}[family]
    done = hospital.care.resolve_and_connect(server, "node.operator.example", 443, 300, kind)
    assert done == {"good": 300, "failed": {}, "addresses": 100}
    assert lost(daemon) == 0
    held = ROTATING[0] if family == 4 else ROTATING6[0]
    hospital.nft(f"delete element netdev ecluse_exit learned{family} {{ {held} }}")
    assert not hospital.care.tcp(held), "positive control: it goes by the lock's own set"
    assert wait_until(lambda: lost(daemon), 5)
    daemon.stop()
    assert gate.stop() == 0
