"""Verbs that change what passes."""

import asyncio
from dataclasses import replace

import pytest

from ecluse.records import Action
from tests.unit.api.fake_controller import DIGEST, ROOT, FakeController
from tests.unit.api.harness import ServerThread
from tests.unit.cli.harness import changes


def test_cut_says_what_is_kept_what_was_ended_and_how_to_go_back(server, ecluse):
    code, out, err = ecluse("cut", "--reason", "ransomware on pc-7", "--authorised-by", "Dr Martin")
    assert (code, err) == (0, "")
    for part in (
        "CUT: care, guests, gateway",
        "kept      laboratory",
        "ended     web-mail",
        "verified  yes",
        "recorded  yes, generation 2",
        "3 connections ended, 5 kept",
        "tcp 10.10.0.5:40000 -> 198.51.100.7:443",
        "To go back: ecluse rollback 1",
    ):
        assert part in out, part
    ((_, level, zones, actor, reason, authorised_by),) = changes(server)
    assert (level, zones, actor.uid, reason, authorised_by) == (
        "cut",
        None,
        0,
        "ransomware on pc-7",
        "Dr Martin",
    )


def test_what_follows_a_cut_is_waited_for_a_little_and_shown(server, ecluse):
    server.commands.lock_polls = 5  # the end of connections is over before
    _, out, _ = ecluse("cut")
    assert "2nd lock  stands, since" in out
    assert "wan0: 12 packets to what is kept, 0 to others" in out
    assert "being set" not in out
    assert server.commands.lock_polls == 0
    server.commands.lock_wanted = False
    _, out, _ = ecluse("cut")
    assert "2nd lock" not in out, "none is meant to stand at this level"
    assert "3 connections ended" in out


def test_a_second_lock_that_takes_long_keeps_nobody(server, ecluse, monkeypatch):
    monkeypatch.setattr("ecluse.cli.commands._PURGE_SECONDS", 0.2)
    server.commands.lock_polls = 10**6
    code, out, _ = ecluse("cut")
    assert code == 0
    assert "2nd lock  being set" in out
    assert "MISSING" not in out


@pytest.mark.parametrize(
    ("words", "level", "zones"),
    [
        (["cut"], "cut", None),
        (["isolate"], "isolate", None),
        (["cut", "--zone", "care", "--zone", "guests"], "cut", ("care", "guests")),
        (["level", "reduced", "--zone", "care"], "reduced", ("care",)),
        (["isolate", "--zone", "guests"], "isolate", ("guests",)),
    ],
)
def test_closing_never_asks_not_even_for_a_reason(server, ecluse, words, level, zones):
    code, _, _ = ecluse(*words)
    assert code == 0
    ((_, found, where, _, reason, _),) = changes(server)
    assert (found, where, reason) == (level, zones, "")


def test_a_reason_of_any_bytes_and_length_does_not_stop_a_cut(server, ecluse):
    code, _, _ = ecluse("cut", "--reason", "caf\udce9 \x1b[2J" + "x" * 5000)
    assert code == 0
    assert changes(server)[0][4].startswith("caf\ufffd [2Jxxx")


def test_open_asks_for_the_sites_name(server, ecluse):
    code, out, err = ecluse("open", "--reason", "all clear", typed="chu-exampl\n")
    assert (code, changes(server)) == (3, [])
    assert "chu-example" in err
    assert "Not opened. Nothing was changed." in err
    assert ecluse("open", "--reason", "all clear", typed="")[0] == 3
    assert changes(server) == []
    code, out, _ = ecluse("open", "--reason", "all clear", "--zone", "care", typed="chu-example\n")
    assert code == 0
    assert "OPEN: care" in out
    assert changes(server)[0][1:3] == ("open", ("care",))


def test_open_wants_a_reason(server, ecluse):
    code, _, _ = ecluse("open", typed="chu-example\nthe CERT says so\n")
    assert (code, changes(server)[0][4]) == (0, "the CERT says so")
    for words, typed in (
        (["open"], "chu-example\n\n"),
        (["open", "--yes"], None),
        (["level", "open", "--yes"], None),
    ):
        assert ecluse(*words, typed=typed)[0] == 2
    assert len(changes(server)) == 1
    assert ecluse("open", "--yes", "--reason", "x")[0] == 0
    assert len(changes(server)) == 2


@pytest.mark.parametrize("words", [["open"], ["level", "open"], ["reload"], ["open", "--json"]])
def test_with_nobody_to_ask_nothing_is_opened(server, ecluse, words):
    code, out, err = ecluse(*words, "--reason", "x")
    assert (code, out, changes(server)) == (2, "", [])
    assert "--yes" in err


def test_rollback(server, ecluse):
    ecluse("cut")
    code, out, _ = ecluse("rollback", "--reason", "over")
    assert code == 0
    assert "OPEN: care, guests, gateway" in out
    assert "everything passes" in out
    assert ecluse("rollback", "2")[0] == 0
    assert [call[1] for call in changes(server)[1:]] == [None, 2]


def test_rollback_that_opens_asks_on_a_terminal(server, ecluse):
    ecluse("cut")
    code, out, err = ecluse("rollback", typed="\n")
    assert (code, out, len(changes(server))) == (3, "", 1)
    assert "opens care, guests, gateway" in err
    assert ecluse("rollback", typed="y\n")[0] == 0
    assert ecluse("rollback", typed="")[0] == 0, "back to the cut: nothing opens, nobody is asked"
    assert ecluse("rollback", "--yes", typed="")[0] == 0
    assert len(changes(server)) == 4


@pytest.mark.parametrize("words", [("rollback",), ("open",)])
def test_what_another_operator_did_while_it_was_asked_is_not_undone(
    server, ecluse, monkeypatch, words
):
    """The question named a state; the answer is for that state alone."""
    ecluse("cut", "--zone", "guests")

    def ask(_screen, question):
        if question.startswith("Reason"):
            return "over"
        server.commands.levels = dict.fromkeys(server.commands.levels, "isolate")
        server.commands._new(Action.LEVEL, ROOT, "a colleague saw it spread", "")
        return "y" if "Go back" in question else "chu-example"

    monkeypatch.setattr("ecluse.cli.terminal.Screen.ask", ask)
    code, _, err = ecluse(*words, typed="")
    assert code != 0
    assert "came first" in err
    assert set(server.commands.levels.values()) == {"isolate"}
    assert server.commands.expected[-1] == 2, "it sent what it showed"
    if words == ("rollback",):
        assert changes(server)[-1][1] == 1


def test_reload_shows_asks_and_sends_what_it_showed(server, ecluse):
    code, out, _ = ecluse("reload", typed="n\n")
    assert (code, changes(server)) == (3, [])
    assert "service 'pacs' is new" in out
    assert "+ add element" in out
    code, _, _ = ecluse("reload", typed="y\n")
    assert (code, changes(server)[0][1]) == (0, DIGEST)
    assert ecluse("reload", "--yes", "--json")[0] == 0
    assert len(changes(server)) == 2


def test_a_reload_of_what_changed_since_is_refused(server, ecluse, monkeypatch):
    async def other_plan(**_):
        return replace(
            await FakeController().plan(level=None, zones=None, rollback=None, reload=True),
            digest="sha256:0",
        )

    monkeypatch.setattr(server.commands, "plan", other_plan)
    code, _, err = ecluse("reload", "--yes")
    assert code == 5
    assert "the files changed since" in err


def test_a_reload_that_changes_nothing_says_so(server, ecluse, monkeypatch):
    plan = asyncio.run(FakeController().plan(level=None, zones=None, rollback=None, reload=True))

    async def the_same(**_):
        return replace(plan, policy_changes=(), diff=())

    monkeypatch.setattr(server.commands, "plan", the_same)
    for words in (("plan", "--reload"), ("reload", "--yes")):
        assert "the files are what is live already" in ecluse(*words)[1]
    assert "the files are" not in ecluse("plan", "cut")[1]


def test_exit_code_6_when_done_but_not_recorded(ecluse):
    with ServerThread(
        FakeController(unrecorded=("the audit log: No space left on device",))
    ) as running:
        code, out, _ = ecluse("cut", "--socket", str(running.path))
    assert code == 6
    assert "NOT FULLY" in out
    assert "No space left on device" in out


def test_exit_code_6_when_done_but_not_verified(ecluse):
    with ServerThread(FakeController(verified=False)) as running:
        code, out, _ = ecluse("cut", "--socket", str(running.path))
    assert code == 6
    assert "verified  NO" in out
