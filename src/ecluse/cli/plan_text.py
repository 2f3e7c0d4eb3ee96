"""What a change does to services and connections, shown to a person."""

from __future__ import annotations

from ecluse.cli.format import count_of, join_names, zones_by_level

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ecluse.cli.terminal import Screen

    Json = Mapping[str, Any]

_MOST_DIFF = 40  # lines of a ruleset's difference that a person is shown


def show_services(
    screen: Screen, levels: Mapping[str, str], kept: list[str], opened: list[str], answer: Json
) -> None:
    """Show what becomes of services at these levels.

    Args:
        screen: where.
        levels: by zone.
        kept: services.
        opened: services that are refused now.
        answer: a change or a plan. It names the kept services that no zone with a link has.
    """
    passing = [zone for zone, name in levels.items() if name == "open"]
    words = join_names(kept)
    if len(passing) == len(levels):
        words = "everything passes"
    elif passing:
        words += f"; and everything of {join_names(passing)} passes"
    screen.wrapped("  kept      ", words)
    if opened and len(passing) < len(levels):
        screen.wrapped("  opened    ", f"{join_names(opened)}, refused until now", "warn")
    if answer.get("no_link"):
        screen.wrapped(
            "  NO LINK   ", f"{join_names(answer['no_link'])}: not kept, see below", "bad"
        )
    if answer.get("not_known"):
        screen.wrapped("  NOT KNOWN ", f"{join_names(answer['not_known'])}: see below", "bad")


def show_plan(screen: Screen, p: Json, *, files: bool) -> None:
    """Show what a change would do.

    files: it is a reload of the site's files. Rules are shown only where the allowlist changes.
    """
    screen.line("This would be:", "bold")
    for level, zones in zones_by_level(p["levels"]):
        screen.wrapped(f"  {level.upper():<9} ", join_names(zones))
    show_services(screen, p["levels"], p["services_kept"], p["services_opened"], p)
    ended = p["services_ended"]
    screen.wrapped("  ended     ", join_names(ended), "warn" if ended else "")
    live = f"{count_of(p['connections_ended'], 'connection')} ended, {p['connections_kept']:,} kept"
    if opened := p.get("connections_opened"):
        live += f", {opened:,} let through that are refused now"
    screen.line(f"  live now  {live}")
    for flow in p["examples_ended"]:
        screen.line(f"            {flow['flow']} ({flow['zone']})")
    _show_gateways_own(screen, p)
    for change in p["policy_changes"]:
        screen.wrapped("  * ", change)
    rules = p["diff"] if files or p["policy_changes"] else []
    for line in rules[:_MOST_DIFF]:
        screen.line(f"    {line}")
    if len(rules) > _MOST_DIFF:
        more = count_of(len(rules) - _MOST_DIFF, "more line")
        screen.line(f"    .. and {more} of ruleset (--json shows all)")
    if files and not rules and not p["policy_changes"]:
        screen.line("  change    none: the files are what is live already")
    for warning in p["warnings"]:
        screen.wrapped("! ", warning, "warn")


def _show_gateways_own(screen: Screen, p: Json) -> None:
    """Show what the gateway itself uses now and the change would end."""
    rows = p.get("gateway_ended") or []
    if not rows:
        return
    screen.line(
        "  the gateway itself would lose (what care needs: list it for zone gateway):", "warn"
    )
    screen.table(
        ("WAY", "WHERE", "WHAT", "CONNECTIONS", "PACKETS"),
        (
            (
                row["direction"],
                row["peer"],
                f"{row['protocol']}/{row['port']}" if row["port"] else row["protocol"],
                f"{row['connections']:,}",
                f"{row['packets']:,}",
            )
            for row in rows
        ),
    )
    if more := p.get("gateway_ended_more"):
        screen.line(f"  and {more:,} more")
