"""The kernel's messages, expression by expression (linux/netfilter/nf_tables.h)."""

import struct

import pytest

from ecluse.proof.dump import Dump
from ecluse.proof.read_table import (
    BaseChain,
    Compare,
    Effect,
    Limit,
    Load,
    Lookup,
    Mask,
    Put,
    Swap,
    UnknownError,
    Update,
    Verdict,
    parts,
    read_table,
)
from tests.unit.proof.worlds import attribute, nested, number, text


def value(kind, data):
    return nested(kind, attribute(1, data))


def expression(name, *data):
    return nested(1, text(1, name), nested(2, *data))


def dump(*expressions, sets=(), elements=None, flags=0):
    hook = nested(4, number(1, 2), number(2, -10))
    chain = dict(parts(text(3, "base") + hook + number(5, 0) + text(7, "filter")))
    rule = dict(parts(text(2, "base") + nested(4, *expressions)))
    return Dump(flags, (chain,), (rule,) if expressions else (), tuple(sets), elements or {})


def steps(*expressions):
    return read_table(dump(*expressions)).rules["base"][0].steps


def verdict(code, chain=""):
    inner = number(1, code) + (text(2, chain) if chain else b"")
    return expression("immediate", number(1, 0), nested(2, nested(2, inner)))


def test_a_base_chain():
    assert read_table(dump()).bases == (BaseChain("base", "filter", "forward", -10, "drop"),)


def test_a_dormant_table_judges_nothing():
    with pytest.raises(UnknownError, match="dormant"):
        read_table(dump(flags=1))


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (expression("meta", number(1, 1), number(2, 6)), Load(4, 16, "iifname")),
        (expression("meta", number(1, 9), number(2, 16)), Load(5, 1, "l4proto")),
        (expression("meta", number(1, 1), number(2, 10)), Load(4, 4, "skuid", True)),
        (
            expression("payload", number(1, 1), number(2, 1), number(3, 12), number(4, 4)),
            Load(4, 4, "network", offset=12),
        ),
        (expression("ct", number(1, 1), number(2, 0)), Load(4, 4, "ct.state", True)),
        (
            expression("ct", number(1, 1), number(2, 19), number(3, 1, 1)),
            Load(4, 4, "4.ct.reply.saddr"),
        ),
        (
            expression("ct", number(1, 2), number(2, 12), number(3, 0, 1)),
            Load(8, 2, "ct.original.proto-dst"),
        ),
        (expression("ct", number(2, 13), number(4, 1)), Effect("label", 4)),
        (expression("fib", number(1, 1), number(2, 2), number(3, 1)), Load(4, 16, "srcroute")),
        (expression("fib", number(1, 1), number(2, 3), number(3, 2)), Load(4, 4, "local", True)),
        (expression("cmp", number(1, 1), number(2, 0), value(3, b"\x06")), Compare(4, b"\x06")),
        (
            expression("cmp", number(1, 1), number(2, 1), value(3, b"\x06")),
            Compare(4, b"\x06", None, True),
        ),
        (
            expression("cmp", number(1, 1), number(2, 2), value(3, b"\x06")),
            Compare(4, b"\x06", b"\xff", True),
        ),
        (
            expression("cmp", number(1, 1), number(2, 3), value(3, b"\x06")),
            Compare(4, b"\0", b"\x06"),
        ),
        (
            expression("cmp", number(1, 1), number(2, 4), value(3, b"\x06")),
            Compare(4, b"\0", b"\x06", True),
        ),
        (
            expression("cmp", number(1, 1), number(2, 5), value(3, b"\x06")),
            Compare(4, b"\x06", b"\xff"),
        ),
        (
            expression("range", number(1, 1), number(2, 1), value(3, b"\x01"), value(4, b"\x02")),
            Compare(4, b"\x01", b"\x02", True),
        ),
        (
            expression(
                "bitwise",
                number(1, 1),
                number(2, 1),
                number(3, 4),
                value(4, b"\xff\0\0\0"),
                value(5, bytes(4)),
            ),
            Mask(4, 4, b"\xff\0\0\0"),
        ),
        (
            expression(
                "byteorder", number(1, 1), number(2, 1), number(3, 1), number(4, 4), number(5, 4)
            ),
            Swap(4, 4, 4),
        ),
        (expression("immediate", number(1, 1), value(2, b"\x14\xb4")), Put(4, b"\x14\xb4")),
        (verdict(-3, "one"), Verdict("jump", "one")),
        (verdict(-4, "one"), Verdict("goto", "one")),
        (verdict(-5), Verdict("return")),
        (verdict(1), Verdict("accept")),
        (expression("lookup", text(1, "s"), number(2, 1), number(5, 1)), Lookup("s", 4, True)),
        (
            expression("lookup", text(1, "s"), number(2, 1), number(3, 0)),
            Lookup("s", 4, verdict=True),
        ),
        (expression("objref", number(3, 1), text(4, "m")), Lookup("m", 4)),
        (expression("dynset", text(1, "s"), number(3, 1), number(4, 1)), Update("s", 4, False)),
        (
            expression(
                "dynset",
                text(1, "s"),
                number(3, 1),
                number(4, 1),
                nested(7, text(1, "limit"), nested(2, number(5, 1))),
            ),
            Update("s", 4, True),
        ),
        (expression("limit", number(5, 0)), Limit(False)),
        (expression("notrack"), Effect("notrack")),
    ],
)
def test_an_expression(made, wanted):
    assert steps(made) == (wanted,)


def test_refusals_and_redirects_are_an_order_and_a_verdict():
    assert steps(expression("reject")) == (Effect("answer"), Verdict("drop"))
    redirect = expression("redir", number(1, 1))
    assert steps(redirect) == (Effect("redirect", 4), Verdict("accept"))


def test_behind_a_continue_the_rule_goes_on():
    """NFT_CONTINUE ends nothing (nft_do_chain); as what a map says it is not known."""
    assert steps(verdict(-1), verdict(1)) == (Verdict("accept"),)
    data = nested(2, nested(2, number(1, -1)))
    with pytest.raises(UnknownError, match="verdict -1"):
        read_set(8, 1, element(b"\1", data=data))


def test_counters_judge_nothing():
    named = expression("objref", number(1, 1), text(2, "svc_lab"))
    assert steps(expression("counter"), named, verdict(0)) == (Verdict("drop"),)


@pytest.mark.parametrize(
    "made",
    [
        expression("nat", number(1, 1)),
        expression("meta", number(1, 1), number(2, 3)),  # a mark
        expression("meta", number(2, 3), number(3, 1)),  # sets a mark
        expression("ct", number(2, 3), number(4, 1)),  # sets a connection's mark
        expression("payload", number(1, 1), number(2, 0), number(3, 12), number(4, 4)),
        expression("payload", number(2, 1), number(3, 8), number(4, 1), number(6, 1)),  # writes
        expression("lookup", text(1, "s"), number(2, 1), number(3, 2)),
        expression("dynset", text(1, "s"), number(3, 2), number(4, 1)),  # deletes
        expression("bitwise", number(1, 1), number(2, 1), value(4, b"\xff"), value(5, b"\x01")),
        expression("queue"),
        expression("objref", number(1, 2), text(2, "quota")),
        expression("redir", number(1, 1), number(2, 2)),  # a range of ports
        expression("redir"),
        verdict(3),
        verdict(-2),
    ],
)
def test_what_is_not_known_proves_nothing(made):
    with pytest.raises(UnknownError):
        steps(made)


def a_set(name, flags, length):
    return dict(parts(text(2, name) + number(3, flags) + number(5, length)))


def element(key, *, flags=0, end=b"", data=b""):
    more = (number(3, flags) if flags else b"") + (value(10, end) if end else b"") + data
    return nested(1, value(1, key), more)


def read_set(flags, length, *elements, more=b"", rule=()):
    one = {**a_set("s", flags, length), **dict(parts(more))}
    made = dump(*rule, sets=[one], elements={"s": (b"".join(elements),)})
    return read_table(made).sets["s"]


def test_a_hash_has_exact_keys():
    assert read_set(0, 2, element(b"\1\2")).elements == (((b"\1\2", b"\1\2"), None),)


def test_intervals_end_where_the_next_gap_begins():
    """Adjacent ones share a key (nft_set_rbtree), the last may have no end."""
    found = read_set(
        4, 1, element(b"\0", flags=1), element(b"\5", flags=1), element(b"\3"), element(b"\5"),
        element(b"\7", flags=1), element(b"\xf0"),
    )  # fmt: skip
    assert [key for key, _ in found.elements] == [
        (b"\3", b"\4"),
        (b"\5", b"\6"),
        (b"\xf0", b"\xff"),
    ]


def test_an_empty_set_of_intervals():
    assert read_set(4, 4).elements == ()


def test_joined_fields_are_ranges_each():
    found = read_set(0x84, 4, element(b"\1\0\0\0", end=b"\2\0\0\0"))
    assert found.elements == (((b"\1\0\0\0", b"\2\0\0\0"), None),)


def test_a_map_of_verdicts():
    data = nested(2, nested(2, number(1, -3), text(2, "one")))
    assert read_set(8, 1, element(b"\1", data=data)).elements[0][1] == Verdict("jump", "one")


def test_packets_fill_a_set():
    assert read_set(0x30, 4).moving
    assert not read_set(0, 4).moving


def test_an_element_for_everything_else_is_not_known():
    with pytest.raises(UnknownError, match="everything else"):
        read_set(4, 1, nested(1, number(3, 2)))


def test_a_broken_message():
    with pytest.raises(UnknownError, match="shorter"):
        list(parts(struct.pack("=HH", 2, 1)))


def test_joined_fields_without_a_second_key_are_exact():
    """Only where there is one field do elements begin and end intervals (nft_set_pipapo)."""
    found = read_set(0x84, 4, element(b"\1\0\0\0"), element(b"\5\0\0\0"))
    assert [key for key, _ in found.elements] == [
        (b"\1\0\0\0", b"\1\0\0\0"),
        (b"\5\0\0\0", b"\5\0\0\0"),
    ]


LIMIT = text(1, "limit") + nested(2, number(5, 1))
ASKS = [expression("lookup", text(1, "s"), number(2, 1))]


def test_elements_that_judge_are_not_known():
    """A limit of an element ends the rule that finds it, and no rule shows it (nft_dynset_dump)."""
    read_set(0, 1, element(b"\1"), more=nested(17, text(1, "counter")))
    for more in (nested(17, LIMIT), nested(18, nested(1, text(1, "counter")), nested(1, LIMIT))):
        with pytest.raises(UnknownError, match="elements that judge"):
            read_set(0, 1, more=more)
    one = element(b"\1", data=nested(7, LIMIT))
    assert read_set(0x20, 1, one).elements  # a set of rates: no rule asks it
    with pytest.raises(UnknownError, match="elements that judge"):
        read_set(0x20, 1, one, rule=ASKS)


def test_sets_and_elements_of_other_kinds_are_not_known():
    for more in (number(15, 2), number(3, 0x200)):  # of quotas; a flag that nobody knows
        with pytest.raises(UnknownError, match="a kind that is not known"):
            read_set(0, 1, more=more)
    with pytest.raises(UnknownError, match="everything else"):
        read_set(4, 1, element(b"\1", flags=4))


def test_a_hook_that_is_not_known():
    made = dump()
    chain = {**made.chains[0], 4: number(1, 5) + number(2, 0)}  # NF_INET_INGRESS
    with pytest.raises(UnknownError, match="not understood"):
        read_table(Dump(0, (chain,), (), (), {}))
