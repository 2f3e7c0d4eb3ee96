"""The command line in-process, against a real server on a real socket."""

import asyncio
import io
import json
import os
import pty
import re
from dataclasses import replace

import pytest

from ecluse.cli import main as cli
from ecluse.errors import EcluseError, NotVerifiedError, StateError
from ecluse.records import Action
from tests.unit.api.fake_commands import DIGEST, ROOT, FakeCommands
from tests.unit.api.harness import ServerThread


@pytest.fixture
def server(monkeypatch):
    with ServerThread() as running:
        monkeypatch.setenv("ECLUSE_SOCKET", str(running.path))
        monkeypatch.setenv("TZ", "UTC")
        yield running


def _interrupted():
    raise KeyboardInterrupt


@pytest.fixture
def ecluse(capsys, monkeypatch):
    def run(*words, typed=None):
        """Exit code, standard output, standard error; `typed`: what a person at a terminal types
        (KeyboardInterrupt: Ctrl-C).
        """
        stdin = io.StringIO("" if typed is KeyboardInterrupt else typed or "")
        stdin.isatty = lambda: typed is not None
        if typed is KeyboardInterrupt:
            stdin.readline = _interrupted
        monkeypatch.setattr("sys.stdin", stdin)
        try:
            code = cli.main(list(words))
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


def changes(server):
    return [call for call in server.commands.calls if call[0] in {"level", "rollback", "reload"}]


def test_status_in_words(server, ecluse):
    code, out, err = ecluse("status")
    assert (code, err) == (0, "")
    for part in (
        "CHU d'Exempl\u00e9 (chu-example)", "OPEN", "care, guests, gateway", "generation 1", "by root", "first start",
        "in step", "armed     yes", "recorded  yes", "7 packets outbound, 2 inbound", "laboratory  vital",
        "! the review date of 'laboratory' is past",
    ):  # fmt: skip
        assert part in out, part
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_status_shouts_what_is_wrong(ecluse, monkeypatch):
    class Wrong(FakeCommands):
        async def status(self):
            from ecluse.results import DnsState, Leak, Purge, Tamper
            from tests.unit.api.fake_commands import AT

            return replace(
                await super().status(), in_step=False, armed=False, recorded=False,
                purge=Purge(2, "failed", error="no such table"), last_tamper=Tamper(AT, "nft", 99, "table deleted", 41.2),
                last_leak=Leak(AT, 2, 1500, 90_000, ()),
                dns=DnsState("cut", False, 3, 5, {}, removed=1, removed_last="203.0.113.66 in dns_all_4", adopted=2),
            )  # fmt: skip

    with ServerThread(Wrong()) as running:
        _, out, _ = ecluse("status", "--socket", str(running.path))
    for part in ("NOT IN STEP", "armed     NO", "recorded  NOT FULLY", "FAILED: no such table",
                 "table deleted by nft (pid 99)", "put back in 41 ms", "2 connections, 1,500 packets, 90 kB", "DOES NOT ANSWER",
                 "1 address that somebody else put into its sets taken out; the newest: 203.0.113.66 in dns_all_4",
                 "2 addresses kept that no record tells of"):  # fmt: skip
        assert part in " ".join(out.split()) or part in out, part


@pytest.mark.parametrize("words", [["--json", "status"], ["status", "--json"]])
def test_json_is_the_servers_own_answer(server, ecluse, words):
    code, out, _ = ecluse(*words)
    assert code == 0
    assert json.loads(out)["title"] == "CHU d'Exempl\u00e9"
    assert out.isascii()


@pytest.mark.parametrize(
    "verb", ["services", "history", "show 1", "refused", "plan cut", "cut", "rollback 1"]
)
def test_json_everywhere(server, ecluse, verb):
    code, out, _ = ecluse(*verb.split(), "--json")
    assert code == 0
    assert json.loads(out)


def test_cut_says_what_is_kept_what_was_ended_and_how_to_go_back(server, ecluse):
    code, out, err = ecluse("cut", "--reason", "ransomware on pc-7", "--authorised-by", "Dr Martin")
    assert (code, err) == (0, "")
    for part in (
        "CUT: care, guests, gateway", "kept      laboratory", "ended     web-mail", "verified  yes",
        "recorded  yes, generation 2", "3 connections ended, 5 kept", "tcp 10.10.0.5:40000 -> 198.51.100.7:443",
        "To go back: ecluse rollback 1",
    ):  # fmt: skip
        assert part in out, part
    ((_, level, zones, actor, reason, authorised_by),) = changes(server)
    assert (level, zones, actor.uid, reason, authorised_by) == (
        "cut",
        None,
        0,
        "ransomware on pc-7",
        "Dr Martin",
    )


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
            await FakeCommands().plan(level=None, zones=None, rollback=None, reload=True),
            digest="sha256:0",
        )

    monkeypatch.setattr(server.commands, "plan", other_plan)
    code, _, err = ecluse("reload", "--yes")
    assert code == 5
    assert "the files changed since" in err


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["cut"], ("plan", "cut", None, None, False)),
        (["cut", "--zone", "care"], ("plan", "cut", ("care",), None, False)),
        (["--reload"], ("plan", None, None, None, True)),
        (["--rollback", "1"], ("plan", None, None, 1, False)),
    ],
)
def test_plan(server, ecluse, words, asked):
    code, out, _ = ecluse("plan", *words)
    assert code == 0
    assert server.commands.calls == [asked]
    assert "9 connections ended, 4 kept" in out
    assert "Nothing was changed." in out


def test_a_plan_shows_rules_only_where_the_allowlist_changes(server, ecluse, monkeypatch):
    assert "+ add element" in ecluse("plan", "--reload")[1]
    plan = asyncio.run(FakeCommands().plan(level="cut", zones=None, rollback=None, reload=False))

    async def gates_alone(**_):
        return replace(plan, policy_changes=())

    monkeypatch.setattr(server.commands, "plan", gates_alone)
    _, out, _ = ecluse("plan", "cut")
    assert "add element" not in out, "which rule points where is no news at 3 in the morning"
    assert json.loads(ecluse("plan", "cut", "--json")[1])["diff"]


def test_a_reload_that_changes_nothing_says_so(server, ecluse, monkeypatch):
    plan = asyncio.run(FakeCommands().plan(level=None, zones=None, rollback=None, reload=True))

    async def the_same(**_):
        return replace(plan, policy_changes=(), diff=())

    monkeypatch.setattr(server.commands, "plan", the_same)
    for words in (("plan", "--reload"), ("reload", "--yes")):
        assert "the files are what is live already" in ecluse(*words)[1]
    assert "the files are" not in ecluse("plan", "cut")[1]


def test_what_is_let_through_again_is_told_before_and_after(server, ecluse, monkeypatch):
    """Somebody types `cut` at `isolate`: it closes nothing."""
    _, out, _ = ecluse("plan", "cut")
    assert "opened" not in out
    plan = asyncio.run(FakeCommands().plan(level="cut", zones=None, rollback=None, reload=False))

    async def some(**_):
        return replace(
            plan, levels=dict.fromkeys(plan.levels, "cut"), services_opened=("laboratory",)
        )

    monkeypatch.setattr(server.commands, "plan", some)
    assert "  opened    laboratory, refused until now" in ecluse("plan", "cut")[1]


def test_services_history_show_refused(server, ecluse):
    ecluse("cut", "--reason", "ransomware")
    _, out, _ = ecluse("services")
    assert "+33 5 55 55 01 00" in out
    assert "results.lab.example, an alias of front.lab.example: asked" in out
    assert re.search(r"203\.0\.113\.10 +30 s old, TTL 0 s\n", out)
    assert "asked 192.0.2.53: 2 answered, 2 servfail" in out
    assert "! it has one address" in out
    _, out, _ = ecluse("history")
    assert [line.split()[0] for line in out.splitlines()] == ["N", "2", "1"]
    assert "ransomware" in out
    _, out, _ = ecluse("show", "2")
    assert "ransomware" in out
    assert "none named" in out
    _, out, _ = ecluse("refused", "--limit", "5")
    assert "10.10.0.66" in out
    assert "tcp/443" in out
    assert ("refused", 5) in server.commands.calls


def test_exit_code_6_when_done_but_not_recorded(ecluse):
    with ServerThread(
        FakeCommands(unrecorded=("the audit log: No space left on device",))
    ) as running:
        code, out, _ = ecluse("cut", "--socket", str(running.path))
    assert code == 6
    assert "NOT FULLY" in out
    assert "No space left on device" in out


def test_exit_code_6_when_done_but_not_verified(ecluse):
    with ServerThread(FakeCommands(verified=False)) as running:
        code, out, _ = ecluse("cut", "--socket", str(running.path))
    assert code == 6
    assert "verified  NO" in out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EcluseError("it failed", hint="look there"), 5),
        (NotVerifiedError("the level before stands"), 5),
        (StateError("disk full"), 5),
        (ZeroDivisionError(), 5),
    ],
)
def test_exit_code_5_when_it_failed(ecluse, error, code):
    with ServerThread(FakeCommands(raising=error)) as running:
        found, out, err = ecluse("cut", "--socket", str(running.path))
    assert (found, out) == (code, "")
    assert err.startswith("ecluse: ")
    assert "Traceback" not in err
    assert getattr(error, "message", "not known") in " ".join(err.split())


@pytest.mark.parametrize(
    "words",
    [
        [], ["nonsense"], ["level"], ["level", "nowhere"], ["show"], ["show", "x"], ["show", "-1"], ["show", "99"], ["plan"],
        ["plan", "cut", "--reload"], ["plan", "--reload", "--zone", "care"], ["rollback", "99"], ["cut", "--nonsense"],
        ["refused", "--limit", "0"], ["refused", "--limit", "99999999999"], ["audit"],
    ],
)  # fmt: skip
def test_exit_code_2_for_usage(server, ecluse, words):
    code, out, err = ecluse(*words)
    assert (code, out) == (2, "")
    assert err
    assert len(server.commands.history) == 1


def test_every_verb_that_help_names_can_be_run(ecluse):
    code, out, _ = ecluse("--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for verb in (
        "status", "cut", "isolate", "open", "level", "rollback", "history", "show", "reload", "plan", "services", "refused",
        "check", "events", "audit",
    ):  # fmt: skip
        assert f"    {verb} " in out
        code, text, _ = ecluse(verb, "--help")
        assert code == 0
        assert "usage: ecluse" in text
        assert "--json" in text
    for code in range(7):
        assert f"\n  {code}  " in out


def test_exit_code_4_says_what_to_type_without_the_daemon(ecluse, tmp_path, monkeypatch):
    monkeypatch.setenv("ECLUSE_STATE_DIR", str(tmp_path))
    for name in ("generations/00000001.json", "ruleset/cut.nft"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    code, out, err = ecluse("cut", "--socket", str(tmp_path / "none"))
    assert (code, out) == (4, "")
    assert f"    nft -f {tmp_path}/ruleset/cut.nft\n" in err
    assert "    ecluse cut --no-daemon\n" in err
    assert "    ecluse isolate --no-daemon\n" in err
    assert "holds without the daemon" in err
    code, out, _ = ecluse("status", "--json", "--socket", str(tmp_path / "none"))
    assert (code, json.loads(out)["error"]) == (4, "unreachable")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\n\r\nno",
    ],
)
def test_an_answer_that_is_none_is_exit_code_4(ecluse, tmp_path, answer):
    async def strange(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def scene():
        server = await asyncio.start_unix_server(strange, str(tmp_path / "s"))
        async with server:
            return await asyncio.to_thread(ecluse, "cut", "--socket", str(tmp_path / "s"))

    code, _, err = asyncio.run(scene())
    assert code == 4
    assert "Traceback" not in err


def test_a_daemon_that_hangs_is_given_up_on_and_the_doubt_is_said(ecluse, tmp_path, monkeypatch):
    monkeypatch.setattr("ecluse.api.request_socket.CHANGE_SECONDS", 0.5)

    async def hanging(reader, writer):
        await asyncio.sleep(1)
        writer.close()

    async def scene():
        server = await asyncio.start_unix_server(hanging, str(tmp_path / "s"))
        async with server:
            found = await asyncio.to_thread(ecluse, "cut", "--socket", str(tmp_path / "s"))
            await asyncio.sleep(0.7)
            return found

    code, _, err = asyncio.run(scene())
    assert code == 4
    assert "not known whether the command was carried out" in " ".join(err.split())


def test_texts_of_others_cannot_write_to_the_terminal(ecluse):
    nasty = "\x1b[2J\x1b]0;x\x07\u202eevil\r\n\x9b31m"
    with ServerThread(FakeCommands(title=nasty, name=nasty)) as running:
        _, out, err = ecluse("status", "--socket", str(running.path))
    assert not set(out + err) & set("\x1b\x07\u202e\r\x9b")
    assert "\\x1b[2J" in out


def test_check(ecluse, tmp_path):
    code, out, err = ecluse("check", str(tmp_path / "nowhere"))
    assert code == 1
    assert "site.yaml" in out
    assert "nothing was changed. Mend them" in err
    (tmp_path / "allowlist.d").mkdir()
    (tmp_path / "site.yaml").write_text(
        "site: chu-example\ntitle: CHU\nzones:\n  - {name: care, title: Care, interfaces: [lan0], subnets: [10.10.0.0/16]}\n"
        "lifeline: {management: {networks: [10.90.0.0/24], ports: [tcp/22]}, presets: [dhcp]}\nresolvers: [192.0.2.53]\n"
    )
    service = tmp_path / "allowlist.d" / "10.yaml"
    text = (
        "services:\n  - name: laboratory\n    title: Lab\n    owner: Biology\n    contact: '1'\n    criticality: vital\n"
        "    zones: [care]\n    destinations: [{to: [results.lab.example], ports: [tcp/443]}]\n    review: 2020-01-31\n"
    )
    service.write_text(text)
    code, out, err = ecluse("check", str(tmp_path))
    assert (code, err) == (0, "")
    assert "no fault, 4 warnings: 1 service, 1 zone, 1 host name" in out
    assert "in order" not in out, "said only where there is nothing to say"
    assert out.count("warning: ") == 4
    code, out, _ = ecluse("check", str(tmp_path), "--json")
    assert (code, json.loads(out)["faults"], json.loads(out)["services"]) == (0, [], 1)
    service.write_text(text.replace("vital", "vitale"))
    _, _, err = ecluse("check", str(tmp_path))
    assert "1 fault; nothing was changed. Mend it and" in err
    service.write_text(text.replace("vital", "vitale").replace("tcp/443", "tcp/0"))
    code, out, _ = ecluse("check", str(tmp_path))
    assert code == 1
    assert "10.yaml:6:18: " in out
    assert "10.yaml:8:" in out
    code, out, _ = ecluse("check", str(tmp_path), "--json")
    assert (code, len(json.loads(out)["faults"])) == (1, 2)


def test_audit(ecluse, tmp_path):
    from datetime import UTC, datetime

    from ecluse.records import Actor, AuditRecord
    from ecluse.state.audit_log import HashChainAudit

    path = tmp_path / "audit.log"
    for verb in ("verify", "show"):
        code, _, err = ecluse("audit", verb, str(path))
        assert code == 5
        assert "no audit log" in err
        assert f"ecluse audit {verb} FILE" in err
    log = HashChainAudit(path, lambda: datetime(2026, 11, 23, tzinfo=UTC))
    for number in range(5):
        levels = {"care": "cut", "guests": "open"}
        log.append(
            AuditRecord(
                "level", Actor(0, "root", 1, "ecluse"), f"to cut {number}", "why", levels=levels
            )
        )
    log.close()
    code, out, _ = ecluse("audit", "verify", str(path))
    assert code == 0
    assert "5 records" in out
    code, out, _ = ecluse("audit", "show", str(path), "--limit", "2")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["SEQ", "4", "5"]
    assert "to cut 4; care cut, guests open" in out, "what a command came to"
    assert len(json.loads(ecluse("audit", "show", str(path), "--json")[1])) == 5
    path.write_text(path.read_text().replace("to cut 2", "to cut 9"))
    code, out, err = ecluse("audit", "verify", str(path))
    assert code == 1
    assert "line 3" in out
    assert "security officer" in " ".join(err.split())
    code, out, _ = ecluse("audit", "verify", str(path), "--json")
    assert (code, json.loads(out)["problems"][0]["line"]) == (1, 3)


def test_an_audit_log_that_this_user_may_not_read_says_who_may(ecluse, tmp_path, monkeypatch):
    path = tmp_path / "audit.log"
    path.write_text("")
    monkeypatch.setattr("os.access", lambda *_: False)
    for verb in ("verify", "show"):
        code, _, err = ecluse("audit", verb, str(path))
        assert code == 5
        assert "may not be read by this user" in " ".join(err.split())
        assert "run it as root (sudo)" in err


def test_a_terminal_gets_colour_unless_it_says_no(server, monkeypatch):
    def seen(**environment):
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w") as terminal:
            from ecluse.cli.terminal import Screen

            screen = Screen(terminal, terminal)
            screen.line("CUT", "bold")
            screen.line("plain")
            screen.finish()
            found = b""
            while not found.endswith(b"plain\r\n"):  # the kernel may hand over a line at a time
                found += os.read(ours, 4096)
        os.close(ours)
        return found.decode()

    assert seen() == "\x1b[1mCUT\x1b[0m\r\nplain\r\n"
    assert seen(NO_COLOR="1") == seen(TERM="dumb") == "CUT\r\nplain\r\n"


@pytest.mark.parametrize("words", [("open",), ("reload",), ("rollback", "1")])
def test_ctrl_c_at_a_question_says_that_nothing_was_sent(server, ecluse, words):
    if words[0] == "rollback":
        ecluse("cut")
    before = changes(server)
    code, _, err = ecluse(*words, typed=KeyboardInterrupt)
    assert code == 130
    assert "nothing of the command was sent, nothing was changed" in " ".join(err.split())
    assert "may be carried out" not in err
    assert changes(server) == before
