"""Verbs that change what passes: level, cut, isolate, open, rollback, reload."""

from __future__ import annotations

import time

from ecluse.api.request_socket import CHANGE_SECONDS, request_level, sendable_text
from ecluse.cli.exit_codes import DONE, REFUSED, UNRECORDED, UsageError
from ecluse.cli.format import count_of, join_names, local_time, zones_by_level
from ecluse.cli.plan_text import show_plan, show_services
from ecluse.cli.queries import client, purge_summary, write_json
from ecluse.cli.second_lock_text import show_second_lock
from ecluse.cli.terminal import Screen
from ecluse.errors import EcluseError

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import SimpleNamespace
    from typing import Any

    from ecluse.api.client import Client

    Json = Mapping[str, Any]

_PURGE_SECONDS = 2.0  # how long the end of connections is waited for
_PURGE_START_SECONDS = 0.3  # by when the daemon has begun it, if it does at all
_FIRST_POLL_SECONDS = 0.005  # then a quarter of what was waited


def level(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse level NAME`, `cut`, `isolate`, `open`; only opening asks: closing must not wait."""
    if args.level == "open":
        return open_gate(args, screen)
    if getattr(args, "no_daemon", False):
        from ecluse.cli.offline_close import close  # noqa: PLC0415 - no cut by the daemon needs it

        _warn_session()
        return close(args, screen)
    return _set_level(args, screen, args.reason or "")


def open_gate(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse open`: makes the person type the site's name, and needs a reason."""
    expect = None
    if not args.yes:
        _require_person(args, screen)
        now = client(args).get("/v1/status")
        site, expect = str(now["site"]), now["generation"]
        where = join_names(args.zone) if args.zone else "every zone"
        screen.wrapped_error(f"This opens {where} to the whole internet.", "warn")
        typed = screen.ask(f"Type the site's name ({site}) to open, anything else to leave it:")
        if typed != site:
            screen.error_line("Not opened. Nothing was changed.")
            return REFUSED
    reason = args.reason
    if not reason and not args.yes:
        reason = screen.ask("Reason:")
    if not reason:
        raise UsageError("opening wants a reason: add --reason TEXT. Nothing was changed.")
    return _set_level(args, screen, reason, expect)


def _require_person(args: SimpleNamespace, screen: Screen) -> None:
    if args.json or not screen.can_ask():
        raise UsageError(
            "there is nobody to ask: add --yes to go ahead unasked. Nothing was changed."
        )


def _set_level(
    args: SimpleNamespace, screen: Screen, reason: str, expect: int | None = None
) -> int:
    request = args.request  # of a plainly typed closing, which was sent at once
    if request is None:
        if args.level != "open":
            _warn_session(args.zone or ())
        request = request_level(
            args.socket, args.level, args.zone or (), reason, args.authorised_by or "", expect
        )
    daemon = client(args, CHANGE_SECONDS)
    return _report_change(args, screen, daemon, daemon.answer(request))


def rollback(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse rollback [N]`: on a terminal it first shows what it would open."""
    body = _why(args)
    if args.number is not None:
        body["generation"] = args.number
    if not args.yes and not args.json and screen.can_ask():
        shown = _confirm_rollback(args, screen)
        if shown is None:
            screen.error_line("Not gone back. Nothing was changed.")
            return REFUSED
        body |= shown
    return _post_change(args, screen, "/v1/rollback", body)


def _confirm_rollback(args: SimpleNamespace, screen: Screen) -> dict[str, int] | None:
    """Ask before a rollback opens a zone; None for no.

    After a cut the rollback is the last line on the screen, and one key away. The answer holds what
    was shown, so that nothing else is done: another operator may cut before the person answers.
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
    screen.wrapped_error(
        f"Going back to generation {number} opens {join_names(opened)} to the whole internet.",
        "warn",
    )
    return shown if (screen.ask("Go back? [y/N]") or "").lower() in {"y", "yes"} else None


def reload(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse reload`: shows the difference, asks, and applies only what was shown."""
    daemon = client(args, CHANGE_SECONDS)
    if not args.yes:
        _require_person(args, screen)
    plan = daemon.post("/v1/plan", {"reload": True})
    if not args.json:
        show_plan(screen, plan, files=True)
        screen.line()
    if not args.yes and (screen.ask("Apply this? [y/N]") or "").lower() not in {"y", "yes"}:
        screen.error_line("Not applied. Nothing was changed.")
        return REFUSED
    return _post_change(args, screen, "/v1/reload", {"expect": plan["digest"], **_why(args)})


def _warn_session(zones: Sequence[str] = ()) -> None:
    from ecluse.cli.session_warning import warn_session  # noqa: PLC0415 - no plain cut needs it

    warn_session(zones)


def _why(args: SimpleNamespace) -> dict[str, Any]:
    return {
        "reason": sendable_text(args.reason or ""),
        "authorised_by": sendable_text(args.authorised_by or ""),
    }


def _post_change(args: SimpleNamespace, screen: Screen, path: str, body: Json) -> int:
    daemon = client(args, CHANGE_SECONDS)
    _warn_session()
    return _report_change(args, screen, daemon, daemon.post(path, body))


def _report_change(args: SimpleNamespace, screen: Screen, daemon: Client, change: Json) -> int:
    if args.json:
        write_json(screen, change)
    else:
        show_change(screen, change)
        screen.finish()  # the person reads this while the end of connections is waited for
        _show_purge(screen, daemon, change)
        if previous := change["generation"]["previous"]:
            screen.line(f"To go back: ecluse rollback {previous}", "bold")
    complete = change["verified"] and not change["unrecorded"]
    return DONE if complete else UNRECORDED


def show_change(screen: Screen, change: Json) -> None:
    """Show what a command did."""
    g = change["generation"]
    for name, zones in zones_by_level(g["levels"]):
        screen.wrapped(f"{name.upper()}: ", join_names(zones), "warn" if name == "open" else "bold")
    if not change["changed"]:
        screen.line("  It was so already.")
    show_services(screen, g["levels"], change["kept"], change["opened"], change)
    screen.wrapped("  ended     ", join_names(change["ended"]))
    if change["verified"]:
        screen.line("  verified  yes, read back from the kernel", "good")
    else:
        screen.line("  verified  NO: run 'ecluse status'", "bad")
    if change["unrecorded"]:
        screen.line("  recorded  NOT FULLY. It is done, but this could not be written:", "bad")
        for what in change["unrecorded"]:
            screen.wrapped("            ", what, "bad")
    else:
        screen.line(f"  recorded  yes, generation {g['number']}, {local_time(g['at'])}")
    screen.line(f"  took      {change['took_ms']:.1f} ms")
    for warning in change["warnings"]:
        screen.wrapped("! ", warning, "warn")


def _show_purge(screen: Screen, daemon: Client, change: Json) -> None:
    """Wait a little for what follows a change and show it; the outcome never changes by it.

    That is the end of connections, and the second lock where one is to stand.
    """
    g = change["generation"]
    if set(g["levels"].values()) == {"open"}:
        return
    begin = time.monotonic()
    purge: Json | None = None
    lock: Json | None = None
    try:
        while (waited := time.monotonic() - begin) < _PURGE_SECONDS:
            answer = daemon.get(f"/v1/generations/{g['number']}")
            purge, lock = answer["purge"], answer.get("second_lock")
            is_over = purge["state"] != "running" if purge else waited > _PURGE_START_SECONDS
            if is_over and not (lock and lock["being_set"]):
                break
            time.sleep(max(_FIRST_POLL_SECONDS, min(waited / 4, 0.1)))
    except EcluseError as error:
        screen.wrapped("  live      ", f"not known: {error.message}", "warn")
        return
    if purge is not None:
        screen.wrapped(
            "  live      ", purge_summary(purge), "bad" if purge["state"] == "failed" else ""
        )
        examples = purge["examples"][:3]
        for example in examples:
            screen.line(f"            ended {example}")
        if purge["ended"] > len(examples) > 0:
            screen.line(f"            .. and {count_of(purge['ended'] - len(examples), 'other')}")
    if lock and lock["wanted"]:
        show_second_lock(screen, lock)
