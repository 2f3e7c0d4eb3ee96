"""A difference is a packet, in words, with its way."""

import pytest

from ecluse.policy import Policy
from ecluse.proof.equal import Prover
from ecluse.proof.meaning import Meaning
from ecluse.proof.read_table import BaseChain, UnknownError, Verdict
from tests.unit.proof.worlds import ACCEPT, DROP, link, table
from tests.unit.ruleset import policies as w


def prover(level):
    return Prover(Meaning(Policy(w.SITE, ()), {}, dict.fromkeys(w.ZONES, level), {}, (990,)))


def test_equal_for_every_packet():
    assert not list(prover("open").differences(table({"base": [[ACCEPT]]}), ["forward"]))


def test_the_kernel_passes_what_the_files_do_not():
    found = next(prover("isolate").differences(table({"base": [[ACCEPT]]}), ["forward"]))
    assert found.kernel
    assert found.what == "pass"
    words = str(found)
    assert words.startswith(
        "at forward a packet passes, but not by the files: IPv4, of no connection"
    )
    assert words.endswith("way: base rule 1")


def test_the_files_say_what_the_kernel_does_not():
    inside = [[*link("care0"), *link("core0", field="oifname"), DROP]]
    made = table({"base": [*inside, [ACCEPT]]})
    found = list(prover("open").differences(made, ["forward"]))
    assert found
    assert all(not d.kernel for d in found)
    assert "leaves by core0" in str(found[0])
    assert "came by care0" in str(found[0])


def test_a_place_without_a_chain_lets_everything_pass():
    found = list(prover("isolate").differences(table({"base": [[DROP]]}), ["input"]))
    assert found
    assert found[0].path == ()


def test_a_chain_at_another_place_is_not_understood():
    made = table({"base": [[Verdict("accept")]]})
    late = (*made.bases, BaseChain("base", "filter", "input", 300, "accept"))
    with pytest.raises(UnknownError, match="a place that is not known"):
        list(prover("open").differences(type(made)(late, made.rules, made.sets)))


def test_chains_of_one_place_judge_one_after_the_other():
    made = table({"base": [[ACCEPT]], "second": [[DROP]]})
    both = (*made.bases, BaseChain("second", "filter", "forward", 0, "drop"))
    found = list(prover("open").differences(type(made)(both, made.rules, made.sets), ["forward"]))
    assert found
    assert [rule.chain for rule in found[0].path] == ["base", "second"]
