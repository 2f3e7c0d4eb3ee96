"""The kernel's interpreter, rule by rule (nft_do_chain)."""

import sys

import pytest

from ecluse.proof.read_table import (
    Compare,
    Effect,
    Limit,
    Load,
    Lookup,
    Mask,
    Put,
    Set,
    Swap,
    UnknownError,
    Update,
    Verdict,
)
from ecluse.proof.walk import Walk
from tests.unit.proof.worlds import ACCEPT, DROP, link, look, table, view

ME = 0x0A0A0005


def accepted(rules, v=None, **more):
    v = v or view()
    made = table(rules, hook=v.hook, **more)
    return v, Walk(made, v).enter(made.bases[0], v.space.all)


def elements(*pairs):
    return tuple(((a.to_bytes(4, "big"), b.to_bytes(4, "big")), None) for a, b in pairs)


def test_the_first_verdict_counts_then_the_policy():
    v, found = accepted({"base": [[*link("lan0"), DROP], [*link("lan0"), ACCEPT]]})
    assert found is v.space.none
    v, found = accepted({"base": [[*link("lan0"), DROP]]}, policy="accept")
    lan0 = v.any_of("iifname", [(int.from_bytes(b"lan0".ljust(16, b"\0"), "big"),) * 2])
    assert found is v.space.without(v.space.all, lan0)


def test_a_jump_comes_back_and_a_goto_does_not():
    after = [[Verdict("jump", "one")], [ACCEPT]]
    v, found = accepted({"base": after, "one": []})
    assert found is v.space.all
    after = [[Verdict("goto", "one")], [ACCEPT]]
    v, found = accepted({"base": after, "one": []})
    assert found is v.space.none


def test_a_goto_comes_back_to_the_last_jump():
    rules = {
        "base": [[Verdict("jump", "one")], [ACCEPT]],
        "one": [[Verdict("goto", "two")], [DROP]],
        "two": [[Verdict("return")]],
    }
    v, found = accepted(rules)
    assert found is v.space.all


def test_a_map_of_verdicts_leads_each_its_way():
    way = {"lan0": Verdict("goto", "yes"), "lan1": Verdict("jump", "no"), "lan2": DROP}
    each = tuple(((n.encode().ljust(16, b"\0"),) * 2, to) for n, to in way.items())
    sets = {"way": Set("way", 16, False, each)}
    rules = {
        "base": [[Load(4, 16, "iifname"), Lookup("way", 4, verdict=True)], [*link("lan1"), ACCEPT]],
        "yes": [[ACCEPT]],
        "no": [],
    }
    v, found = accepted(rules, sets=sets)
    names = [int.from_bytes(n.ljust(16, b"\0"), "big") for n in (b"lan0", b"lan1")]
    assert found is v.any_of("iifname", [(n, n) for n in names])


def test_a_set_is_looked_up_and_turned_round():
    sets = {"s": Set("s", 4, False, elements((ME, ME), (5, 9)))}
    v, found = accepted({"base": [[*look("s"), ACCEPT]]}, sets=sets)
    assert found is v.any_of("saddr", [(ME, ME), (5, 9)])
    v, found = accepted({"base": [[*look("s", negate=True), ACCEPT]]}, sets=sets)
    assert found is v.space.without(v.space.all, v.any_of("saddr", [(ME, ME), (5, 9)]))


def test_an_expression_that_can_not_be_read_ends_the_rule_also_turned_round():
    """NFT_BREAK: `ct original saddr != x` does not hold without a connection."""
    steps = [Load(4, 4, "4.ct.original.saddr"), Compare(4, bytes(4), None, True), ACCEPT]
    v, found = accepted({"base": [steps]}, view("none"))
    assert found is v.space.none
    other = [Load(4, 16, "6.ct.original.saddr"), Compare(4, bytes(16), None, True), ACCEPT]
    v, found = accepted({"base": [other]})
    assert found is v.space.none


def test_the_first_bytes_of_a_field_are_a_prefix():
    steps = [Load(4, 2, "network", offset=12), Compare(4, b"\x0a\x0a"), ACCEPT]
    v, found = accepted({"base": [steps]})
    assert found is v.any_of("saddr", [(0x0A0A0000, 0x0A0AFFFF)])
    short = [Load(4, 16, "iifname"), Compare(4, b"wlan"), ACCEPT]
    v, found = accepted({"base": [short]})
    assert v.space.holds(
        found, {v.level["iifname"]: int.from_bytes(b"wlan7".ljust(16, b"\0"), "big")}
    )


def test_a_mask_is_a_prefix_or_not_understood():
    steps = [
        Load(4, 4, "network", offset=12),
        Mask(4, 4, b"\xff\xff\x80\0"),
        Compare(4, b"\x0a\x0a\x80\0"),
        ACCEPT,
    ]
    v, found = accepted({"base": [steps]})
    assert found is v.any_of("saddr", [(0x0A0A8000, 0x0A0AFFFF)])
    steps[1] = Mask(4, 4, b"\xff\0\xff\0")
    with pytest.raises(UnknownError, match="rule 1 of chain base: a mask of saddr"):
        accepted({"base": [steps]})


def test_flags_are_asked_one_by_one():
    def state(bits, *, negate=True, wanted=0):
        raw = [x.to_bytes(4, sys.byteorder) for x in (bits, wanted)]
        return [Load(4, 4, "ct.state", True), Mask(4, 4, raw[0]), Compare(4, raw[1], None, negate)]

    v, found = accepted({"base": [[*state(1 << 2), ACCEPT]]})
    assert found is v.variable("state", 2, 2)
    v, found = accepted({"base": [[*state(1 << 2, negate=False), ACCEPT]]})
    assert found is v.space.without(v.space.all, v.variable("state", 2, 2))
    with pytest.raises(UnknownError, match="flag 9 of"):
        accepted({"base": [[*state(1 << 9), ACCEPT]]})


def test_ports_next_to_each_other_are_read_at_once():
    steps = [Load(4, 4, "transport", offset=0), Compare(4, b"\0\x43\0\x44"), ACCEPT]
    v, found = accepted({"base": [steps]})
    ports = v.space.both(v.any_of("sport", [(67, 67)]), v.any_of("dport", [(68, 68)]))
    assert found is ports


def test_a_number_of_the_host_is_read_in_its_effect():
    raw = (990).to_bytes(4, sys.byteorder)
    steps = [Load(4, 4, "skuid", True), Compare(4, raw), ACCEPT]
    v, found = accepted({"base": [steps]}, view(hook="output"))
    assert found is v.variable("uid", 990, 990)
    turned = [Load(4, 4, "skuid", True), Swap(4, 4, 4), Compare(4, bytes(4), b"\0\0\3\xde"), ACCEPT]
    v, found = accepted({"base": [turned]}, view(hook="output"))
    assert found is v.variable("uid", 0, 990)


def test_a_rate_is_a_question_and_a_second_one_is_not_understood():
    v, found = accepted({"base": [[Limit(False), ACCEPT]]})
    assert found is v.variable("within", 1, 1)
    with pytest.raises(UnknownError, match="a second rate"):
        accepted({"base": [[Limit(False), Limit(True), ACCEPT]]})


def test_a_full_set_ends_the_rule_but_not_for_what_is_in_it():
    sets = {"s": Set("s", 4, True, elements((ME, ME)))}
    v, found = accepted(
        {"base": [[Load(4, 4, "network", offset=12), Update("s", 4, False), ACCEPT]]}, sets=sets
    )
    assert found is v.space.either(v.any_of("saddr", [(ME, ME)]), v.variable("room", 1, 1))


def test_orders_are_told_apart():
    label = (1 << 127).to_bytes(16, sys.byteorder)
    rules = {
        "base": [
            [*link("lan0"), Put(4, label), Effect("label", 4)],
            [*link("lan0"), Put(4, b"\x14\xb4"), Effect("redirect", 4), ACCEPT],
        ]
    }
    v = view()
    made = table(rules)
    walk = Walk(made, v)
    walk.enter(made.bases[0], v.space.all)
    assert sorted(walk.effects) == ["label 127", "redirect 5300"]
    assert walk.effects["label 127"] is walk.effects["redirect 5300"]


def test_what_was_changed_is_not_asked_again():
    steps = [Effect("notrack"), Load(4, 1, "ct.direction"), Compare(4, b"\0"), ACCEPT]
    with pytest.raises(UnknownError, match="after `notrack`"):
        accepted({"base": [steps]})


def test_unknown_bytes_are_not_understood():
    with pytest.raises(UnknownError, match="bytes from 1 of the network header"):
        accepted({"base": [[Load(4, 1, "network", offset=1), ACCEPT]]})
    with pytest.raises(UnknownError, match="nothing was put into"):
        accepted({"base": [[Compare(4, b"\0"), ACCEPT]]})


def test_a_trace_names_the_rules_that_decided():
    v = view()
    made = table({"base": [[*link("lan0"), DROP], [Verdict("jump", "one")]], "one": [[ACCEPT]]})
    walk = Walk(made, v, trace=[])
    walk.enter(made.bases[0], v.variable("iifname", 1, 1))
    assert [(rule.chain, rule.number) for rule in walk.trace] == [("base", 2), ("one", 1)]


@pytest.mark.parametrize(
    ("field", "hook"),
    [
        ("local", "input"),  # `fib daddr type local` may stand at each hook (nft_fib_validate)
        ("local", "forward"),
        ("skuid", "input"),  # of a socket that was found early (nft_meta_get_eval_skugid)
        ("iifkind", "forward"),
        ("4.ct.reply.daddr", "forward"),
        ("ct.reply.proto-dst", "forward"),
    ],
)
def test_what_can_be_read_there_and_is_not_known_does_not_break(field, hook):
    """`fib daddr type local accept` at input opens the gateway: it is no rule that never holds."""
    with pytest.raises(UnknownError, match=f" at {hook}"):
        accepted({"base": [[Load(4, 4, field), ACCEPT]]}, view(hook=hook))


def test_packets_that_fill_a_set_which_is_asked_are_not_understood():
    """Each opens the gate for itself: `add @s { ip saddr }`, then `ip saddr @s accept`."""
    sets = {"s": Set("s", 4, True, elements((ME, ME)))}
    fill = [Load(4, 4, "network", offset=12), Update("s", 4, False)]
    with pytest.raises(UnknownError, match="packets fill set s, which is asked"):
        accepted({"base": [fill, [*look("s"), ACCEPT]]}, sets=sets)
    renewed = [*look("s"), Update("s", 4, False), ACCEPT]
    v, found = accepted({"base": [renewed]}, sets=sets)
    assert found is v.any_of("saddr", [(ME, ME)])


def test_two_full_sets_are_two_questions():
    sets = {name: Set(name, 4, True, ()) for name in "st"}
    one, other = ([Load(4, 4, "network", offset=12), Update(n, 4, False)] for n in "st")
    with pytest.raises(UnknownError, match="a second set"):
        accepted({"base": [[*one, DROP], [*other, ACCEPT]]}, sets=sets)


def test_what_is_put_over_a_register_is_what_it_holds():
    wide = [Load(4, 16, "network", offset=8), Load(5, 2, "transport", offset=2)]
    with pytest.raises(UnknownError, match="nothing was put into"):
        accepted({"base": [[*wide, Compare(4, bytes(16)), ACCEPT]]}, view(version=6))


def test_constants_are_not_asked():
    put = Put(4, bytes(4))
    with pytest.raises(UnknownError, match="a constant"):
        accepted({"base": [[put, Compare(4, bytes(4)), ACCEPT]]})
    sets = {"s": Set("s", 4, False, elements((0, 0)))}
    with pytest.raises(UnknownError, match="a constant"):
        accepted({"base": [[put, Lookup("s", 4), ACCEPT]]}, sets=sets)


def test_no_more_is_compared_than_was_read():
    """A register is filled with zeros to its word: more of them are the same, others never."""
    read = Load(4, 2, "transport", offset=2)
    v, found = accepted({"base": [[read, Compare(4, b"\1\xbb\0\0"), ACCEPT]]})
    assert found is v.any_of("dport", [(443, 443)])
    for data in (b"\1\xbb\0\1", b"\1\xbb" + bytes(6)):
        with pytest.raises(UnknownError, match="more than was read"):
            accepted({"base": [[read, Compare(4, data), ACCEPT]]})
    sets = {"s": Set("s", 4, False, elements((0x01BB0001, 0x01BB0001)))}
    with pytest.raises(UnknownError, match="keys of another length"):
        accepted({"base": [[read, Lookup("s", 4), ACCEPT]]}, sets=sets)
