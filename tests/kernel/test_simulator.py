"""The simulator against the kernel: every verdict, counter and record is compared.

Random allowlists, levels, NAT and packets. The same packets are held against what the allowlist
means (simulator_meaning), so that a wrong compiler is seen too, and not only one that the simulator
misreads. SIMULATOR_EXAMPLES=1500 runs more examples, new ones each time (SIMULATOR_SEED=7 repeats a
run).
"""

import os
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from ecluse.policy import Policy
from ecluse.ruleset import switch, table_names
from ecluse.ruleset.compile import compile_program
from tests.kernel import simulator_packets as b
from tests.kernel.simulator_cases import case_of, cases
from tests.kernel.simulator_mutants import MUTANTS
from tests.kernel.simulator_packets import Ends
from tests.kernel.simulator_play import SLOT, Play
from tests.kernel.simulator_rig import Rig
from tests.kernel.simulator_shrink import smallest, wrong_of
from tests.kernel.simulator_traffic import Talk, one_processor
from tests.kernel.simulator_world import UID, Case, Nat
from tests.unit.ruleset import policies as w

pytestmark = pytest.mark.kernel

EXAMPLES = int(os.environ.get("SIMULATOR_EXAMPLES", "0"))
KINDS = (
    "syn",
    "ack",
    "stray",
    "udp",
    "echo",
    "esp",
    "gre",
    "l2tp",
    "sctp",
    "ospf",
    "vrrp",
    "error",
    "icmp6",
)


@pytest.fixture(scope="module")
def rig():
    made = Rig()
    yield made
    made.close()


def on_cases(play: Callable[[Case], None], examples: int) -> None:
    """Play many cases, the same in every run unless the environment asks for more."""
    decorated = settings(
        max_examples=examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(given(cases)(play))
    if "SIMULATOR_SEED" in os.environ:
        decorated = seed(int(os.environ["SIMULATOR_SEED"]))(decorated)
    decorated()


def test_kernel_and_simulator_agree(rig):
    tally: Counter[str] = Counter()

    def play(case):
        tally["policies"] += 1
        try:
            Play(rig, case, tally).run()
        except AssertionError as error:
            small = smallest(case, lambda one: bool(wrong_of(rig, one)))
            pytest.fail(f"{wrong_of(rig, small) or error}\n{small}", pytrace=False)

    on_cases(play, EXAMPLES or 100)
    print(dict(sorted(tally.items())))
    assert tally["policies"] >= 60
    assert tally["packets"] >= 2000
    both = [f"{kind} v{n}" for kind in KINDS for n in (4, 6) if (kind, n) != ("icmp6", 4)]
    verdicts = ("accept", "drop", "reject")
    enough = [
        *(
            f"{hook} {how}"
            for hook in ("forward", "input", "output")
            for how in ("accept", "accept service")
        ),
        *("forward drop", "forward reject", "input drop", "output reject"),
        *(f"{kind} {verdict}" for kind in both for verdict in ("accept", "drop")),
        *(
            f"{what} {verdict}"
            for what in ("next", "answer", "error (original)", "error (reply)")
            for verdict in verdicts
        ),
        *(f"told {verdict}" for verdict in ("accept", "reject")),
        *(
            f"flow {verdict}"
            for verdict in ("inside", "open", "kept", "lifeline", "refused", "unknown")
        ),
        *("untracked", "spoofed"),
    ]
    rare = {what: tally[what] for what in enough if tally[what] < 3}
    assert not rare, f"too few of these were compared to mean anything: {rare}"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_program_is_seen(rig, name):
    for number in range(150):
        try:
            Play(rig, case_of(number), Counter(), MUTANTS[name]).run()
        except AssertionError:
            return
    pytest.fail(f"150 cases did not show that the program is wrong: {name}")


def knock(rig: Rig, kind: str, source: str, target: str, ports: Sequence[int]) -> int:
    """Open a flow from care to each port of a machine outside; give how many came out."""
    ends = Ends(ip_address(source), ip_address(target), 20000, 0)
    talk, found = Talk(rig), []
    packet = bytearray(
        b.message(kind, ends, b.OPENING, 2**32 - 1)
    )  # a number that `talk` never comes to
    header = 20 if ends.source.version == 4 else 40
    checksum = header + (6 if kind == "udp" else 16)
    blank = int.from_bytes(packet[checksum : checksum + 2], "big")
    with one_processor():
        for port in ports:
            # Ones' complement: what is added to the port is taken from the checksum (RFC 1624).
            left = blank - port
            struct.pack_into("!H", packet, header + 2, port)
            struct.pack_into("!H", packet, checksum, (left if left > 0 else left - 1) & 0xFFFF)
            rig.send("care0", bytes(packet))
            if port % 200 == 0 or port == ports[-1]:
                found += (
                    talk.settle()
                )  # more at once than its backlog holds (1,000), and the kernel loses some
    return sum(link == "wan0" for link, _, _ in found)


@pytest.mark.parametrize("version", [4, 6])
def test_full_sets_of_refused_flows_open_nothing(rig, version):
    """More distinct flows than a set holds: all are refused, the set keeps what it has, and says
    that it is full.
    """
    policy = Policy(w.SITE, ())
    program = compile_program(policy, {}, SLOT, (UID,))
    source, *targets = (
        ("10.10.0.5", "203.0.113.9", "203.0.113.1")
        if version == 4
        else ("2001:db8:10::5", "2001:db8:ff::1", "2001:db8:ff::2")
    )
    size, more = switch.REFUSED_SIZE, 150
    every_open = dict.fromkeys(policy.zone_names(), "open")
    rig.forget_connections()
    rig.nft(
        Nat().text() + switch.table_text(program) + switch.switch_text(policy, SLOT, every_open)
    )
    rig.seen()
    assert knock(rig, "udp", source, targets[0], range(1, more + 1)) == more, (
        "the way was not even there"
    )
    rig.forget_connections()
    rig.nft(switch.switch_text(policy, SLOT, dict.fromkeys(every_open, "isolate")))
    missing = set(range(1, size))
    while missing:  # a loaded machine loses some before they come to the gate
        assert knock(rig, "udp", source, targets[0], sorted(missing)) == 0
        found = {e.port for e in rig.refused()[0] if e.destination}
        assert missing & found, "not one more was counted"
        missing -= found
    assert not rig.refused()[1], "full one element too early"
    assert knock(rig, "syn", source, targets[1], range(1, more + 1)) == 0
    elements, full, _ = rig.refused()
    flows = [e for e in elements if e.destination]
    assert full
    assert len(flows) == size
    assert [(e.destination, e.protocol, e.port) for e in flows if e.protocol == "tcp"] == [
        (targets[1], "tcp", 1)
    ]
    refused = rig.counters()[table_names.REFUSED_OUT]
    assert refused >= size, "each of the set at least once, and one more"
    assert [(e.source, e.packets) for e in elements if not e.destination] == [(source, refused)]
    # What is recorded is still counted; a full set, or being in it, opens nothing.
    assert knock(rig, "syn", source, targets[1], range(1, more + 1)) == 0
    assert [e.packets for e in rig.refused()[0] if e.protocol == "tcp"] == [2]
