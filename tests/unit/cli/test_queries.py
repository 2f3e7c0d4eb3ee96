"""Verbs that look."""

import asyncio
import json
import re
import signal
import subprocess
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from ecluse.alerts import Alert
from tests.unit.api.fake_controller import AT, FakeController
from tests.unit.api.harness import ServerThread
from tests.unit.cli.harness import command, environment


def test_status_in_words(server, ecluse):
    code, out, err = ecluse("status")
    assert (code, err) == (0, "")
    for part in (
        "CHU d'Exempl\u00e9 (chu-example)",
        "OPEN",
        "care, guests, gateway",
        "generation 1",
        "by root",
        "first start",
        "in step",
        "armed     yes",
        "recorded  yes",
        "7 packets outbound, 2 inbound",
        "laboratory  vital",
        "! the review date of 'laboratory' is past",
    ):
        assert part in out, part
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_status_shouts_what_is_wrong(ecluse, monkeypatch):
    class Wrong(FakeController):
        async def status(self):
            from ecluse.results import DnsState, Leak, Purge, Tamper
            from tests.unit.api.fake_controller import AT

            return replace(
                await super().status(),
                in_step=False,
                armed=False,
                recorded=False,
                purge=Purge(2, "failed", error="no such table"),
                last_tamper=Tamper(AT, "nft", 99, "table deleted", 41.2),
                last_leak=Leak(AT, 2, 1500, 90_000, ()),
                dns=DnsState(
                    "cut",
                    False,
                    3,
                    5,
                    {},
                    removed=1,
                    removed_last="203.0.113.66 in dns_all_4",
                    adopted=2,
                ),
            )

    with ServerThread(Wrong()) as running:
        _, out, _ = ecluse("status", "--socket", str(running.path))
    for part in (
        "NOT IN STEP",
        "armed     NO",
        "recorded  NOT FULLY",
        "FAILED: no such table",
        "table deleted by nft (pid 99)",
        "put back in 41 ms",
        "2 connections, 1,500 packets, 90 kB",
        "DOES NOT ANSWER",
        (
            "1 address that somebody else put into its sets taken out; "
            "the newest: 203.0.113.66 in dns_all_4"
        ),
        "2 addresses kept that no record tells of",
    ):
        assert part in " ".join(out.split()) or part in out, part


@pytest.mark.parametrize("words", [["--json", "status"], ["status", "--json"]])
def test_json_is_the_servers_own_answer(server, ecluse, words):
    code, out, _ = ecluse(*words)
    assert code == 0
    assert json.loads(out)["title"] == "CHU d'Exempl\u00e9"
    assert out.isascii()


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
    plan = asyncio.run(FakeController().plan(level="cut", zones=None, rollback=None, reload=False))

    async def gates_alone(**_):
        return replace(plan, policy_changes=())

    monkeypatch.setattr(server.commands, "plan", gates_alone)
    _, out, _ = ecluse("plan", "cut")
    assert "add element" not in out, "which rule points where is no news at 3 in the morning"
    assert json.loads(ecluse("plan", "cut", "--json")[1])["diff"]


def test_what_is_let_through_again_is_told_before_and_after(server, ecluse, monkeypatch):
    """Somebody types `cut` at `isolate`: it closes nothing."""
    _, out, _ = ecluse("plan", "cut")
    assert "opened" not in out
    plan = asyncio.run(FakeController().plan(level="cut", zones=None, rollback=None, reload=False))

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


def test_events_until_ctrl_c(server):
    with subprocess.Popen(
        command(server, "events"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        for _ in range(100):
            if server.commands.subscribers:
                break
            time.sleep(0.05)
        server.loop.call_soon_threadsafe(server.commands.tell, "caf\u00e9 \x1b[2J")
        line = process.stdout.readline().decode()
        assert "level" in line
        assert "\\x1b[2J" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
        assert process.stderr.read() == b""


def test_events_end_with_the_daemon():
    with ServerThread() as running:
        process = subprocess.Popen(
            command(running, "events"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        for _ in range(100):
            if running.commands.subscribers:
                break
            time.sleep(0.05)
    _, error = process.communicate(timeout=5)
    assert process.returncode == 0
    assert b"ended the stream" in error


def test_alerts_stand_by_severity_and_no_text_twice(ecluse):
    class Wrong(FakeController):
        async def status(self):
            def alert(severity, minutes, text):
                return Alert(f"code-{text}", {}, AT + timedelta(minutes=minutes), severity, text)

            alerts = (
                alert("info", 0, "accounting is off"),
                alert("warning", 9, "no routes"),
                alert("critical", 5, "tampered"),
                alert("warning", 1, "disk full"),
            )
            warnings = (*(one.text for one in alerts), "lab: its review date is past")
            return replace(await super().status(), alerts=alerts, warnings=warnings)

    with ServerThread(Wrong()) as running:
        _, out, _ = ecluse("status", "--socket", str(running.path))
    lines = [line for line in out.splitlines() if line.startswith(("! ", "- "))]
    assert [line.partition(" (")[0] for line in lines] == [
        "! CRITICAL: tampered",
        "! disk full",
        "! no routes",
        "- accounting is off",
        "! lab: its review date is past",
    ]
    assert all(" ago)" in line or "0 s" in line for line in lines[:-1])


def test_an_extension_that_can_not_be_shown_is_a_line_and_hides_no_other(
    server, ecluse, monkeypatch
):
    def fail(*_):
        raise RuntimeError("half installed")

    monkeypatch.setattr("ecluse.dnsproxy.status_text.show", fail)
    code, out, _ = ecluse("status")
    assert code == 0
    assert "! dns_gate can't be shown: RuntimeError('half installed')" in out
    assert "SERVICE" in out
