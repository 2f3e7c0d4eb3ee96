"""The texts that switch, load and remove: complete, bounded, and read back."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.policy import Policy
from ecluse.ruleset import switch, table_names
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.program import NamedSet, Program
from ecluse.ruleset.program_text import element_text, render
from ecluse.ruleset.switch import BootText
from tests.effort import examples
from tests.unit.ruleset import policies as w


@settings(max_examples=examples(60))
@given(w.policies(), w.addresses)
def test_what_a_load_leaves_out_comes_in_pieces(policy, addresses):
    program = compile_program(policy, addresses, 2)
    pieces = list(switch.element_batches(program))
    whole, loaded = render(program), switch.load_text(program)
    filled: dict[str, dict] = {}
    for piece in pieces:
        filled[piece.name] = filled.get(piece.name, {}) | piece.elements
    for named in program.sets:
        assert filled.pop(named.name, {}) == (named.elements if named.is_bulk else {})
        for key in named.elements:
            written = element_text(named, key)
            assert written in whole
            assert (written in loaded) == (not named.is_bulk)
    assert not filled


def test_a_zone_may_be_called_like_a_slot(policy):
    site = policy.site
    zones = tuple(replace(z, name="k2-labor") if z.name == "care" else z for z in site.zones)
    renamed = Policy(replace(site, zones=zones), ())
    one, two = compile_program(renamed, {}, 1), compile_program(renamed, {}, 2)
    assert BootText(one).digest(one) == BootText(two).digest(two)
    assert "k1_gate.k2_labor" in BootText(two).text(two)


def test_only_a_hash_is_cut_into_pieces():
    def named(interval):
        elements = {((n, n), (443, 443), (6, 6)): "svc_a" for n in range(3 * switch.BATCH_SIZE + 1)}
        types = ("ipv4_addr", "inet_service", "inet_proto")
        return NamedSet("k1_exact4", types, interval, "counter", elements)

    for interval, count in ((False, 4), (True, 1)):
        pieces = list(switch.element_batches(Program(1, ("svc_a",), (named(interval),), ())))
        assert len(pieces) == count
        assert sum(len(piece.elements) for piece in pieces) == 3 * switch.BATCH_SIZE + 1


@settings(max_examples=examples(60))
@given(w.policies(), w.levels, st.integers(1, 99))
def test_levels_are_read_back_from_targets(policy, levels, slot):
    targets = switch.switch_targets(policy, slot, levels)
    assert switch.levels_of_targets(policy, targets) == levels
    broken = dict(targets)
    broken[table_names.gate_chain(slot, "care")] = None
    assert switch.levels_of_targets(policy, broken) is None
    assert switch.levels_of_targets(policy, {**targets, "forward": f"k{slot + 1}_forward"}) is None


@pytest.mark.parametrize("level", ["open", "cut"])
def test_a_table_without_gates_for_a_zones_own_interface_has_its_level(level):
    """An earlier build made none; one that is there and empty is no whole state."""
    policy, levels = Policy(w.SITE, ()), dict.fromkeys(w.ZONES, level)
    targets = switch.switch_targets(policy, 1, levels)
    own = {gate for gate in targets if gate.endswith(table_names.OWN_LINK)}
    assert len(own) == 3
    before = {gate: to for gate, to in targets.items() if gate not in own}
    assert switch.levels_of_targets(policy, before) == levels
    assert switch.levels_of_targets(policy, targets | dict.fromkeys(own)) is None


def test_an_open_table_of_an_earlier_build_is_open():
    """It did not label our look-ups at output."""
    policy, levels = Policy(w.SITE, ()), dict.fromkeys(w.ZONES, "open")
    targets = switch.switch_targets(policy, 1, levels)
    assert targets["output"] == "k1_open.output"
    assert switch.levels_of_targets(policy, targets | {"output": "k1_open"}) == levels
    assert switch.levels_of_targets(policy, targets | {"output": "k1_output"}) is None
    shut = switch.switch_targets(policy, 1, dict.fromkeys(w.ZONES, "cut"))
    assert switch.levels_of_targets(policy, shut | {"output": "k1_open"}) is None


def test_removal_names_only_old_slots_and_unused_counters():
    objects = {
        "chain": ("forward", "k1_forward", "k2_forward"),
        "map": ("k1_from", "k2_from"),
        "set": ("k1_inside", "refused4"),
        "counter": ("refused_out", "svc_a", "svc_b"),
    }
    text = switch.removal_text(objects, [2], ["svc_a"])
    assert "k2_" not in text
    assert "refused" not in text
    assert "chain inet ecluse forward" not in text
    assert "delete chain inet ecluse k1_forward" in text
    assert "delete counter inet ecluse svc_b" in text


def test_an_open_gate_of_an_earlier_build_is_read_as_open():
    opened = dict.fromkeys(w.ZONES, "open")
    targets = switch.switch_targets(Policy(w.SITE, ()), 3, opened)
    before = targets | dict.fromkeys(table_names.IDLE_CHAINS, "k3_open")
    assert targets != before
    assert switch.levels_of_targets(Policy(w.SITE, ()), before) == opened
    strange = targets | dict.fromkeys(table_names.IDLE_CHAINS, "k3_nothing")
    assert switch.levels_of_targets(Policy(w.SITE, ()), strange) is None


def test_only_a_chain_that_never_refuses_is_ever_without_a_rule(policy):
    """An emptied chain would drop until its new policy counts (nf_tables_commit)."""
    for level in ("open", "cut", "isolate"):
        state = switch.switch_state(policy, 3, dict.fromkeys(policy.zone_names(), level))
        idle = {chain for chain, target in state.targets.items() if not target}
        assert idle <= {*table_names.IDLE_CHAINS}
        assert not {*table_names.IDLE_CHAINS} & {*table_names.BASE_CHAINS}
        assert all(state.policies()[chain] == "accept" for chain in idle)
