"""Verbs that change what passes: level, cut, isolate, open, rollback, reload."""

from __future__ import annotations

import time

from ecluse.cli.exit_codes import DONE, REFUSED, UNRECORDED, UsageError
from ecluse.cli.fast_path import CHANGE_SECONDS, ask_level, sendable, tell_session
from ecluse.cli.format import by_level, count, listed, local
from ecluse.cli.queries import client, purge_words, show_plan, show_services, write_json
from ecluse.cli.terminal import Screen
from ecluse.errors import EcluseError

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import SimpleNamespace
    from typing import Any

    from ecluse.api.client import Client

    Json = Mapping[str, Any]

_PURGE_SECONDS = 2.0
_PURGE_STARTS = 0.3
_POLL = 0.005  # at first, then a quarter of what was waited


def level(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse level NAME`, `cut`, `isolate`: never asks, since closing must not wait.

    `open` asks.
    """
    if args.level == "open":
        return open_gate(args, screen)
    if getattr(args, "no_daemon", False):
        from ecluse.cli.offline_close import close  # noqa: PLC0415 - a cut by the daemon should not pay for it

        tell_session()
        return close(args, screen)
    return _set_level(args, screen, args.reason or "")


def open_gate(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse open`: has the site's name typed, and wants a reason."""
    expect = None
    if not args.yes:
        _must_ask(args, screen)
        now = client(args).get("/v1/status")
        site, expect = str(now["site"]), now["generation"]
        where = listed(args.zone) if args.zone else "every zone"
        screen.noted(f"This opens {where} to the whole internet.", "warn")
        typed = screen.ask(f"Type the site's name ({site}) to open, anything else to leave it:")
        if typed != site:
            screen.note("Not opened. Nothing was changed.")
            return REFUSED
    reason = args.reason
    if not reason and not args.yes:
        reason = screen.ask("Reason:")
    if not reason:
        raise UsageError("opening wants a reason: add --reason TEXT. Nothing was changed.")
    return _set_level(args, screen, reason, expect)


def _must_ask(args: SimpleNamespace, screen: Screen) -> None:
    if args.json or not screen.can_ask():
        raise UsageError(
            "there is nobody to ask: add --yes to go ahead unasked. Nothing was changed."
        )


def _set_level(
    args: SimpleNamespace, screen: Screen, reason: str, expect: int | None = None
) -> int:
    # A closing that was typed plainly is on its way already.
    question = args.question
    if question is None:
        if args.level != "open" and not (args.zone and "gateway" not in args.zone):
            tell_session()
        question = ask_level(
            args.socket, args.level, args.zone or (), reason, args.authorised_by or "", expect
        )
    daemon = client(args, CHANGE_SECONDS)
    return _tell(args, screen, daemon, daemon.answer(question))


def rollback(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse rollback [N]`: on a terminal it says what it would open, and asks; what it showed is
    what it sends.
    """
    body = _why(args, args.reason or "")
    if args.number is not None:
        body["generation"] = args.number
    if not args.yes and not args.json and screen.can_ask():
        shown = _shown(args, screen)
        if shown is None:
            screen.note("Not gone back. Nothing was changed.")
            return REFUSED
        body |= shown
    return _carry_out(args, screen, "/v1/rollback", body)


def _shown(args: SimpleNamespace, screen: Screen) -> dict[str, int] | None:
    """Ask before a rollback opens a zone: after a cut it is the last line on the screen, and one
    key away.

    Gives what was shown, so that nothing else is done: another operator may cut before the answer
    is typed. None: no.
    """
    daemon = client(args, CHANGE_SECONDS)
    now = daemon.get("/v1/status")
    number = args.number
    if number is None:
        number = daemon.get(f"/v1/generations/{now['generation']}")["generation"]["previous"]
    if not number:
        return {}
    then = daemon.get(f"/v1/generations/{number}")["generation"]["levels"]
    shown = {"generation": number, "expect_generation": now["generation"]}
    opened = [zone for zone, name in then.items() if name == "open" != now["levels"].get(zone)]
    if not opened:
        return shown
    screen.noted(
        f"Going back to generation {number} opens {listed(opened)} to the whole internet.", "warn"
    )
    return shown if (screen.ask("Go back? [y/N]") or "").lower() in {"y", "yes"} else None


def reload(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse reload`: shows the difference, asks, and applies just what was shown."""
    daemon = client(args, CHANGE_SECONDS)
    if not args.yes:
        _must_ask(args, screen)
    plan = daemon.post("/v1/plan", {"reload": True})
    if not args.json:
        show_plan(screen, plan, files=True)
        screen.line()
    if not args.yes and (screen.ask("Apply this? [y/N]") or "").lower() not in {"y", "yes"}:
        screen.note("Not applied. Nothing was changed.")
        return REFUSED
    return _carry_out(
        args, screen, "/v1/reload", {"expect": plan["digest"], **_why(args, args.reason or "")}
    )


def _why(args: SimpleNamespace, reason: str) -> dict[str, Any]:
    return {"reason": sendable(reason), "authorised_by": sendable(args.authorised_by or "")}


def _carry_out(args: SimpleNamespace, screen: Screen, path: str, body: Json) -> int:
    daemon = client(args, CHANGE_SECONDS)
    tell_session()
    return _tell(args, screen, daemon, daemon.post(path, body))


def _tell(args: SimpleNamespace, screen: Screen, daemon: Client, change: Json) -> int:
    if args.json:
        write_json(screen, change)
    else:
        show_change(screen, change)
        screen.finish()  # the answer is on the screen before the count of connections is waited for
        _show_purge(screen, daemon, change)
        _show_way_back(screen, change["generation"])
    complete = change["verified"] and not change["unrecorded"]
    return DONE if complete else UNRECORDED


def show_change(screen: Screen, change: Json) -> None:
    """Write what a command did."""
    g = change["generation"]
    for name, zones in by_level(g["levels"]):
        screen.wrapped(f"{name.upper()}: ", listed(zones), "warn" if name == "open" else "bold")
    if not change["changed"]:
        screen.line("  It was so already.")
    show_services(screen, g["levels"], change["kept"], change["opened"], change)
    screen.wrapped("  ended     ", listed(change["ended"]))
    if change["verified"]:
        screen.line("  verified  yes, read back from the kernel", "good")
    else:
        screen.line("  verified  NO: run 'ecluse status'", "bad")
    if change["unrecorded"]:
        screen.line("  recorded  NOT FULLY. It is done, but this could not be written:", "bad")
        for what in change["unrecorded"]:
            screen.wrapped("            ", what, "bad")
    else:
        screen.line(f"  recorded  yes, generation {g['number']}, {local(g['at'])}")
    screen.line(f"  took      {change['took_ms']:.1f} ms")
    for warning in change["warnings"]:
        screen.wrapped("! ", warning, "warn")


def _show_purge(screen: Screen, daemon: Client, change: Json) -> None:
    """Wait a little for the end of connections and say how it went.

    It never changes the outcome.
    """
    g = change["generation"]
    if set(g["levels"].values()) == {"open"}:
        return
    begin = time.monotonic()
    purge: Json | None = None
    try:
        while (waited := time.monotonic() - begin) < _PURGE_SECONDS:
            purge = daemon.get(f"/v1/generations/{g['number']}")["purge"]
            if (purge and purge["state"] != "running") or (
                purge is None and waited > _PURGE_STARTS
            ):
                break
            time.sleep(max(_POLL, min(waited / 4, 0.1)))
    except EcluseError as error:
        screen.wrapped("  live      ", f"not known: {error.message}", "warn")
        return
    if purge is not None:
        screen.wrapped(
            "  live      ", purge_words(purge), "bad" if purge["state"] == "failed" else ""
        )
        examples = purge["examples"][:3]
        for example in examples:
            screen.line(f"            ended {example}")
        if purge["ended"] > len(examples) > 0:
            screen.line(f"            .. and {count(purge['ended'] - len(examples), 'other')}")


def _show_way_back(screen: Screen, generation: Json) -> None:
    if generation["previous"]:
        screen.line(f"To go back: ecluse rollback {generation['previous']}", "bold")
