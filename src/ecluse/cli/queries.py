"""Verbs that look: status, services, history, show, refused, plan, events."""

from __future__ import annotations

import json

from ecluse.api.client import Client
from ecluse.cli.exit_codes import UsageError
from ecluse.cli.format import (
    actor_name,
    byte_size,
    count_of,
    duration,
    join_names,
    levels_summary,
    local_time,
    time_ago,
    zones_by_level,
)
from ecluse.cli.plan_text import show_plan
from ecluse.cli.second_lock_text import show_second_lock

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import SimpleNamespace
    from typing import Any

    from ecluse.cli.terminal import Screen

    Json = Mapping[str, Any]

_LOOK_SECONDS = 20.0
_SILENCE_SECONDS = 60.0  # the daemon's heartbeat is every 15 s
_NAME_WIDTH = 40
_MOST_ADDRESSES = 20  # of one name, that a person is shown
_SEVERITIES = {"critical": ("! CRITICAL: ", "bad"), "warning": ("! ", "warn"), "info": ("- ", "")}


def client(args: SimpleNamespace, timeout: float = _LOOK_SECONDS) -> Client:
    """Make a client of the socket that the command line names. timeout: seconds for an answer."""
    return Client(args.socket, timeout, getattr(args, "waiting", None))


def write_json(screen: Screen, value: Any) -> None:
    """Write JSON in ASCII: safe on any terminal, and the same everywhere."""
    screen.raw(json.dumps(value, indent=2, ensure_ascii=True))


def status(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse status`."""
    answer = client(args).get("/v1/status")
    if args.json:
        write_json(screen, answer)
    else:
        show_status(screen, answer)
    return 0


def show_status(screen: Screen, s: Json) -> None:
    """Show a status to a person."""
    screen.line(f"{s['title']} ({s['site']})", "bold")
    screen.line()
    for level, zones in zones_by_level(s["levels"]):
        screen.wrapped(
            f"  {level.upper():<9} ", join_names(zones), "warn" if level == "open" else "bold"
        )
    screen.line()
    screen.line(
        f"  since     {local_time(s['since'])} ({time_ago(s['since'])}), "
        f"generation {s['generation']}, by {s['by']}"
    )
    if s["reason"]:
        screen.wrapped("  reason    ", s["reason"])
    if s["authorised_by"]:
        screen.wrapped("  on word   ", f"of {s['authorised_by']}")
    kernel = "in step" if s["in_step"] else "NOT IN STEP with what it should be"
    kernel += f", checked {time_ago(s['checked'])}"
    screen.line(f"  kernel    {kernel}", "" if s["in_step"] else "bad")
    armed = "yes, a switch is instant" if s["armed"] else "NO"
    screen.line(f"  armed     {armed}", "" if s["armed"] else "bad")
    recorded = "yes" if s["recorded"] else "NOT FULLY"
    screen.line(f"  recorded  {recorded}", "" if s["recorded"] else "bad")
    screen.line(
        f"  refused   {count_of(s['refused_packets'], 'packet')} outbound, "
        f"{s['refused_inbound_packets']:,} inbound"
    )
    show_second_lock(screen, s.get("second_lock"))
    _show_extensions(screen, s)
    if purge := s.get("purge"):
        style = "bad" if purge["state"] == "failed" else ""
        screen.wrapped("  ended     ", purge_summary(purge), style)
    _show_incidents(screen, s)
    if s["services"]:
        screen.line()
        show_service_table(screen, s["services"])
    _show_alerts(screen, s)


def _show_alerts(screen: Screen, s: Json) -> None:
    """Show the alerts, the most severe first and then the oldest; then the other warnings."""
    order = {severity: number for number, severity in enumerate(_SEVERITIES)}
    alerts = sorted(s.get("alerts", ()), key=lambda a: (order.get(a["severity"], 9), a["since"]))
    for alert in alerts:
        label, style = _SEVERITIES.get(alert["severity"], ("! ", "warn"))
        screen.wrapped(label, f"{alert['text']} ({time_ago(alert['since'])})", style)
    texts = {alert["text"] for alert in alerts}
    for warning in s["warnings"]:
        if warning not in texts:
            screen.wrapped("! ", warning, "warn")


def _show_extensions(screen: Screen, s: Json) -> None:
    from importlib import import_module  # noqa: PLC0415 - `status` alone needs both

    from ecluse.extensions import EXTENSIONS  # noqa: PLC0415

    for extension in EXTENSIONS:
        if extension.status_text and (state := s.get(extension.status)):
            try:
                import_module(extension.status_text).show(screen, state, count_of)
            except Exception as error:  # noqa: BLE001 - the rest of the status is more important
                screen.wrapped("! ", f"{extension.name} can't be shown: {error!r}", "warn")


def _show_incidents(screen: Screen, s: Json) -> None:
    if tamper := s.get("last_tamper"):
        restored = tamper["restored_ms"]
        back = f"put back in {restored:.0f} ms" if restored is not None else "NOT put back"
        by = f"{tamper['process']} (pid {tamper['pid']})"
        screen.wrapped(
            "  tamper    ", f"{local_time(tamper['at'])}: {tamper['what']} by {by}, {back}", "bad"
        )
    if leak := s.get("last_leak"):
        what = (
            f"{count_of(leak['connections'], 'connection')}, "
            f"{count_of(leak['packets'], 'packet')}, {byte_size(leak['bytes'])}"
        )
        screen.wrapped("  leak      ", f"{local_time(leak['at'])}: {what} leaked", "bad")


def purge_summary(purge: Json) -> str:
    """Say in short how the end of connections went, or goes."""
    if purge["state"] == "failed":
        return (
            f"ending connections FAILED: {purge['error']} (their packets are refused all the same)"
        )
    state = "" if purge["state"] == "done" else " so far"
    return f"{count_of(purge['ended'], 'connection')} ended{state}, {purge['kept']:,} kept"


def show_service_table(screen: Screen, services: list[Json]) -> None:
    """Show the services, one line each."""
    screen.table(
        ("SERVICE", "CRITICALITY", "STATE", "PACKETS", "BYTES", "LAST PACKET"),
        (
            (
                s["name"],
                s["criticality"],
                s["state"],
                f"{s['packets']:,}",
                byte_size(s["bytes"]),
                time_ago(s["last_packet"]),
            )
            for s in services
        ),
    )


def services(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse services`."""
    answer = client(args).get("/v1/services")
    if args.json:
        write_json(screen, answer)
        return 0
    show_service_table(screen, answer["services"])
    for s in answer["services"]:
        screen.line()
        screen.line(f"{s['name']}: {s['title']}", "bold")
        screen.wrapped("  state     ", _service_state(s))
        screen.wrapped("  owner     ", f"{s['owner']}, {s['contact']}")
        for name in s["names"]:
            show_name(screen, name, [a for a in s["addresses"] if a["name"] == name["name"]])
        if s["review"]:
            screen.line(f"  review    {s['review']}")
        for warning in s["warnings"]:
            screen.wrapped("  ! ", warning, "warn")
    return 0


def show_name(screen: Screen, name: Json, addresses: list[Json], *, live: bool = True) -> None:
    """Show all about a host name of a service. live: from the daemon, which knows of its use."""
    words = name["name"] + (f", an alias of {name['alias']}" if name["alias"] else "")
    if live:
        used = f"used {time_ago(name['used'])}" if name["used"] else "never seen in use"
        words += f": asked {time_ago(name['asked'])}, {used}"
    screen.wrapped("  name      ", words)
    newest = sorted(addresses, key=lambda a: int(a["age"]))
    for address in newest[:_MOST_ADDRESSES]:
        screen.line(f"    {address['address']:<24} {_address_state(address)}")
    if len(newest) > _MOST_ADDRESSES:
        older = count_of(len(newest) - _MOST_ADDRESSES, "address", "addresses")
        screen.line(f"    and {older} seen before those")
    for resolver, outcomes in name["outcomes"].items():
        words = join_names(f"{times:,} {outcome}" for outcome, times in outcomes.items())
        screen.wrapped("    asked ", f"{resolver}: {words}")
    for warning in name["warnings"]:
        screen.wrapped("  ! ", warning, "warn")


def _address_state(address: Json) -> str:
    """Describe an address: fresh, no longer in the answers, or last known good."""
    by = f" by {join_names(address['resolvers'])}" if address["resolvers"] else ""
    words = f"{duration(address['age'])} old, TTL {address['ttl']} s{by}"
    kept = f"kept until {local_time(address['kept_until'])}"
    if address["left"]:
        return f"LEFT the DNS {time_ago(address['left'])}, {kept}"
    if address["expired"]:
        return f"EXPIRED: last known good, {words}, {kept}"
    return words


def history(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse history`."""
    answer = client(args).get("/v1/generations")
    if args.json:
        write_json(screen, answer)
        return 0
    screen.table(
        ("N", "WHEN", "ACTION", "LEVELS", "WHO", "REASON"),
        (
            (
                g["number"],
                local_time(g["at"]),
                _action(g),
                levels_summary(g["levels"]),
                g["actor"]["user"],
                g["reason"],
            )
            for g in answer["generations"]
        ),
    )
    return 0


def _action(generation: Json) -> str:
    back = generation["back_to"]
    return f"{generation['action']} to {back}" if back is not None else str(generation["action"])


def show(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse show N`."""
    answer = client(args).get(f"/v1/generations/{args.number}")
    if args.json:
        write_json(screen, answer)
        return 0
    g, actor = answer["generation"], answer["generation"]["actor"]
    screen.line(f"Generation {g['number']}: {_action(g)}", "bold")
    for level, zones in zones_by_level(g["levels"]):
        screen.wrapped(f"  {level.upper():<9} ", join_names(zones))
    screen.line(f"  when      {local_time(g['at'])} ({time_ago(g['at'])})")
    screen.line(
        f"  who       {actor_name(actor)}, uid {actor['uid']}, "
        f"by '{actor['command']}' (pid {actor['pid']})"
    )
    screen.wrapped("  reason    ", g["reason"] or "none given")
    screen.wrapped(
        "  on word   ", f"of {g['authorised_by']}" if g["authorised_by"] else "none named"
    )
    screen.line(f"  previous  {g['previous'] or 'none'}")
    screen.line(f"  policy    {g['policy']}")
    screen.line(f"  ruleset   {g['ruleset']}")
    if answer["purge"]:
        screen.wrapped("  ended     ", purge_summary(answer["purge"]))
        for example in answer["purge"]["examples"]:
            screen.line(f"            {example}")
    return 0


def refused(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse refused`."""
    answer = client(args).get(f"/v1/refused?limit={args.limit}")
    if args.json:
        write_json(screen, answer)
        return 0
    if not any(answer[key] for key in ("flows", "sources", "names")) and not answer.get("unread"):
        screen.line("Nothing was refused lately.")
        return 0
    screen.table(
        ("MACHINE", "ZONE", "PACKETS", "BYTES", "LAST TRY"),
        (
            (r["source"], r["zone"], f"{r['packets']:,}", byte_size(r["bytes"]), _last_try(r))
            for r in answer["sources"]
        ),
    )
    screen.line()
    screen.table(
        ("FROM", "TO", "WHAT", "PACKETS", "LAST TRY"),
        (
            (r["source"], r["destination"], _protocol_port(r), f"{r['packets']:,}", _last_try(r))
            for r in answer["flows"]
        ),
    )
    if answer["names"]:
        screen.line()
        screen.table(
            ("MACHINE", "ASKED FOR", "TYPE", "WHY NOT", "TIMES", "LAST TRY"),
            (
                (
                    r["client"],
                    _shorten_name(r["name"]),
                    r["type"],
                    r["why"],
                    f"{r['times']:,}",
                    _last_try(r),
                )
                for r in answer["names"]
            ),
        )
    if answer["full"]:
        screen.wrapped("! ", "the kernel's lists are full: there are more than are shown", "warn")
    if unread := answer.get("unread"):
        screen.wrapped(
            "! ",
            f"{count_of(unread, 'row')} could not be read "
            f"and {'is' if unread == 1 else 'are'} left out",
            "warn",
        )
    return 0


def _shorten_name(name: str) -> str:
    """Cut a name down to its end, which shows its owner; a tunnel's begins with its data."""
    return name if len(name) <= _NAME_WIDTH else f"...{name[3 - _NAME_WIDTH :]}"


def _protocol_port(flow: Json) -> str:
    return f"{flow['protocol']}/{flow['port']}" if flow["port"] else str(flow["protocol"])


def _last_try(flow: Json) -> str:
    return f"{duration(flow['last'])} ago"


def plan(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse plan`."""
    if args.zone and args.level is None:
        raise UsageError("--zone goes with a level")
    body: dict[str, Any] = {}
    if args.reload:
        body["reload"] = True
    elif args.rollback is not None:
        body["generation"] = args.rollback
    else:
        body["level"] = args.level
        if args.zone:
            body["zones"] = args.zone
    answer = client(args).post("/v1/plan", body)
    if args.json:
        write_json(screen, answer)
    else:
        show_plan(screen, answer, files=args.reload)
        screen.line()
        screen.line("Nothing was changed.")
    return 0


def _service_state(s: Json) -> str:
    """Describe a service's state and zones, each zone once where the two lists are the same."""
    if not s["kept_in"]:
        return f"{s['state']}; for {join_names(s['zones'])}"
    words = f"{s['state']} in {join_names(s['kept_in'])}"
    return words if s["kept_in"] == s["zones"] else f"{words}; for {join_names(s['zones'])}"


def events(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse events`: until Ctrl-C, or until the daemon stops."""
    for event in client(args, _SILENCE_SECONDS).lines("/v1/events"):
        if event["kind"] == "heartbeat":
            continue
        if args.json:
            screen.raw(json.dumps(event, ensure_ascii=True))
        else:
            screen.line(f"{local_time(event['at'])}  {event['kind']:<9} {event['message']}")
        screen.finish()
        if screen.broken:
            return 0
    screen.error_line("the daemon ended the stream (it stopped, or this terminal was too slow)")
    return 0
