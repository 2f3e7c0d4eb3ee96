"""Verbs that need no daemon: check the site's files, show and verify the audit log."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ecluse.cli.exit_codes import DONE, FOUND
from ecluse.cli.format import count_of, levels_summary, local_time
from ecluse.cli.queries import write_json
from ecluse.cli.terminal import Screen
from ecluse.errors import ConfigError, EcluseError
from ecluse.faults import Fault

if TYPE_CHECKING:
    from ecluse.policy import Policy


def check(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse check [DIR] [--online | --host]`: needs no root and no daemon."""
    # The online verbs must not pay for pydantic and YAML.
    from ecluse.config.load import ConfigDirectory  # noqa: PLC0415
    from ecluse.ruleset.compile import compile_program  # noqa: PLC0415
    from ecluse.ruleset.disjoint import TangledError  # noqa: PLC0415
    from ecluse.ruleset.table_names import service_of  # noqa: PLC0415

    directory = Path(args.directory or os.environ.get("ECLUSE_CONFIG_DIR") or "/etc/ecluse")
    source = ConfigDirectory(directory)
    try:
        policy = source.load()
    except ConfigError as error:
        return _show_faults(args, screen, error.faults)
    if args.host:
        return _check_host(args, screen, policy)
    try:
        program = compile_program(policy, {}, 1)
    except TangledError as error:
        service = service_of(error.value)
        wrong = f"too many entries overlap, and those of '{service}' are among them"
        expected = "fewer 'hosts' and port ranges that overlap, or one service for them"
        return _show_faults(args, screen, (source.fault_at(service, wrong, expected),))
    warnings = tuple(source.warnings())
    code, names = _look_up_names(args, policy)
    if args.json:
        found = {
            "faults": [],
            "warnings": [_fault_json(w) for w in warnings],
            "services": len(policy.services),
        }
        write_json(screen, found | ({"names": names} if args.online else {}))
        return code
    for warning in warnings:
        screen.line(f"warning: {warning}", "warn")
    name_count = len(policy.host_names())
    verdict = f"has no fault, {count_of(len(warnings), 'warning')}" if warnings else "is in order"
    screen.line(
        f"{directory}: {policy.site.name} {verdict}: {count_of(len(policy.services), 'service')}, "
        f"{count_of(len(policy.site.zones), 'zone')}, {count_of(name_count, 'host name')}, "
        f"{count_of(len(program.chains), 'chain')}",
        "warn" if warnings else "good",
    )
    if args.online:
        from ecluse.cli.online_check import show_names  # noqa: PLC0415 - as above

        show_names(screen, names)
    return code


def _look_up_names(args: SimpleNamespace, policy: "Policy") -> tuple[int, list[dict[str, Any]]]:
    """Ask the site's resolvers for every name, with `--online`.

    Gives the exit code, and the services with their names (see `ask_names`).
    """
    if not args.online:
        return DONE, []
    from ecluse.cli.online_check import ask_names  # noqa: PLC0415 - as for `check`

    return ask_names(policy)


def _check_host(args: SimpleNamespace, screen: Screen, policy: "Policy") -> int:
    """`ecluse check --host`: needs root, for the rules of other tables, and no daemon."""
    from dataclasses import replace  # noqa: PLC0415 - as for `check`

    from ecluse.bypass import judge_machine  # noqa: PLC0415 - as for `check`
    from ecluse.cli.host_flows import gateway_flows  # noqa: PLC0415 - as for `check`
    from ecluse.kernel.bypass_scan import read_everything  # noqa: PLC0415 - as for `check`
    from ecluse.kernel.netlink import kernel_errors, retry_interrupted  # noqa: PLC0415 - as above

    with kernel_errors("look for ways past the gate", hint="run it as root (sudo)"):
        host = retry_interrupted(read_everything)
    flows, unseen = gateway_flows(policy, host)
    found = (*judge_machine(host, policy), *flows)
    host = replace(host, unseen=(*host.unseen, *unseen))
    ways = sum(one.is_bypass for one in found)
    if args.json:
        rows = [{"kind": one.kind, "what": one.what, "is_exit": one.is_bypass} for one in found]
        write_json(screen, {"findings": rows, "unseen": host.unseen})
        return FOUND if ways else DONE
    for one in found:
        head, style = ("bypass: ", "bad") if one.is_bypass else ("warning: ", "warn")
        screen.wrapped(head, one.what, style)
    verdict = (
        f"{count_of(ways, 'way')} past the gate, "
        f"{count_of(len(found) - ways, 'warning')} on this machine"
    )
    if host.unseen:
        verdict += f"; not looked for: {', '.join(host.unseen)}"
    screen.line(verdict, "bad" if ways else "warn" if host.unseen else "good")
    return FOUND if ways else DONE


def _show_faults(args: SimpleNamespace, screen: Screen, faults: tuple[Fault, ...]) -> int:
    if args.json:
        write_json(screen, {"faults": [_fault_json(fault) for fault in faults], "warnings": []})
        return FOUND
    for fault in faults:
        screen.line(fault)
    it = "it" if len(faults) == 1 else "them"
    screen.error_line(
        f"{count_of(len(faults), 'fault')}; nothing was changed. "
        f"Mend {it} and run 'ecluse check' again.",
        "bad",
    )
    return FOUND


def _fault_json(fault: Fault) -> dict[str, Any]:
    return {
        "file": fault.file,
        "line": fault.line,
        "column": fault.column,
        "wrong": fault.wrong,
        "expected": fault.expected,
    }


def _log_path(args: SimpleNamespace, verb: str) -> Path:
    path = Path(
        args.file or Path(os.environ.get("ECLUSE_STATE_DIR") or "/var/lib/ecluse") / "audit.log"
    )
    try:
        path.stat()
    except FileNotFoundError:
        raise EcluseError(
            f"there is no audit log at {path}", hint=f"name it: ecluse audit {verb} FILE"
        ) from None
    except OSError as error:
        raise EcluseError(
            f"{path} cannot be read: {error.strerror}", hint="run it as root (sudo)"
        ) from None
    if not os.access(path, os.R_OK):
        raise EcluseError(f"{path} may not be read by this user", hint="run it as root (sudo)")
    return path


def audit_verify(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse audit verify [FILE]`."""
    from ecluse.state.audit_log import read_audit, verify  # noqa: PLC0415 - as for `check`

    path = _log_path(args, "verify")
    problems = verify(path)
    lines = sum(1 for _ in read_audit(path))
    if args.json:
        found = [{"line": problem.line, "what": problem.what} for problem in problems]
        write_json(screen, {"file": str(path), "records": lines, "problems": found})
        return FOUND if problems else DONE
    for problem in problems:
        screen.line(f"{path}: {problem}", "bad")
    if problems:
        screen.error_line(
            f"{count_of(len(problems), 'problem')}: somebody changed this log, or the disk did.",
            "bad",
        )
        screen.wrapped_error(
            "Keep a copy as it is (cp -a) before anything else, and tell the security officer."
        )
        return FOUND
    screen.line(
        f"{path}: {count_of(lines, 'record')}, every one as it was written and none missing", "good"
    )
    return DONE


def audit_show(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse audit show [FILE]`: the newest records, the oldest of them first.

    Lines that are no record are left out and counted.
    """
    from collections import deque  # noqa: PLC0415 - as for `check`

    from ecluse.lenient_rows import parse_rows  # noqa: PLC0415 - as for `check`
    from ecluse.state.hash_chain import read_chain  # noqa: PLC0415 - as for `check`

    lines = deque(read_chain(_log_path(args, "show")), maxlen=args.limit)
    rows, unread = parse_rows((line.record for line in lines), _with_row)
    altered = sum(line.record is not None and not line.intact for line in lines)
    if args.json:
        write_json(screen, [record for record, _ in rows])
    else:
        screen.table(("SEQ", "WHEN", "EVENT", "WHO", "WHAT", "RESULT"), [row for _, row in rows])
    for number, what in (
        (unread, "cannot be read and left out"),
        (altered, "altered and shown as found"),
    ):
        if number:
            lines_are = f"{count_of(number, 'line')} of these {'is' if number == 1 else 'are'}"
            screen.error_line(f"{lines_are} {what}; see 'ecluse audit verify'", "bad")
    return DONE


def _with_row(record: dict[str, Any] | None) -> tuple[dict[str, Any], tuple[object, ...]]:
    """Give a record and its row in the table.

    An altered line may hold anything, so any error concerns this line alone.
    """
    if record is None:
        raise ValueError("no record")
    json.dumps(record, indent=2)
    when = local_time(str(record.get("at") or ""))
    return record, (
        *(
            record["seq"],
            when,
            record["event"],
            _user_of(record),
            _summary_of(record),
            record.get("result", ""),
        ),
    )


def _user_of(record: dict[str, Any]) -> str:
    actor = record.get("actor")
    return str(actor.get("user") or actor.get("uid", "?")) if isinstance(actor, dict) else "?"


def _summary_of(record: dict[str, Any]) -> str:
    levels = record.get("levels")
    came_to = levels_summary(levels) if isinstance(levels, dict) and levels else ""
    words = (record.get("what"), came_to, record.get("reason"))
    return "; ".join(str(word) for word in words if word)
