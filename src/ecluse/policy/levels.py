"""Levels and how closed they are. The order is the site's list: `open` first, `isolate` last."""

from ecluse.policy.values import Criticality, Level, Levels, Site

OPEN = Level("open", "Everything passes", frozenset(Criticality), passes_all=True)
CUT = Level("cut", "Only vital services are kept", frozenset({Criticality.VITAL}))
ISOLATE = Level("isolate", "Only the lifeline is kept", frozenset())


def level_named(site: Site, name: str) -> Level:
    """Give the site's level of that name. KeyError when it has none."""
    for level in site.levels:
        if level.name == name:
            return level
    raise KeyError(name)


def rank(site: Site, name: str) -> int:
    """Say how closed a level is: 0 for `open`, rising.

    A level that the site does not know counts as `isolate`.
    """
    names = [level.name for level in site.levels]
    return names.index(name) if name in names else len(names) - 1


def at_least_as_closed(site: Site, one: Levels, other: Levels) -> bool:
    """Say whether `one` is at least as closed as `other` in every zone of either."""
    zones = set(one) | set(other)
    return all(rank(site, one.get(z, "isolate")) >= rank(site, other.get(z, "open")) for z in zones)


def most_closed(site: Site, *many: Levels) -> dict[str, str]:
    """Give, for each zone that is named, the most closed of its levels."""
    result: dict[str, str] = {}
    for levels in many:
        for zone, name in levels.items():
            known = name if any(level.name == name for level in site.levels) else "isolate"
            if zone not in result or rank(site, known) > rank(site, result[zone]):
                result[zone] = known
    return result


def complete_levels(site: Site, zones: tuple[str, ...], levels: Levels) -> dict[str, str]:
    """Give every zone a level: a new zone gets the most closed of the others.

    An unknown level counts as `isolate`.
    """
    known = most_closed(site, levels)
    others: dict[str, str] = most_closed(site, *({"": level} for level in known.values()))
    default = others.get("", OPEN.name)
    return {zone: known.get(zone, default) for zone in zones}


def carry_over(site: Site, zones: tuple[str, ...], levels: Levels) -> dict[str, str]:
    """Give the levels for a policy whose zones or levels changed.

    They are never less closed for what was there. A level that is gone was one of the site's own;
    each of those keeps at least what `cut` keeps.
    """
    known = {level.name for level in site.levels}
    there = {zone: level if level in known else CUT.name for zone, level in levels.items()}
    return complete_levels(site, zones, there)


def levels_text(levels: Levels) -> str:
    """Say levels in words: `every zone is at cut`, or each zone with its own."""
    values = set(levels.values())
    if len(values) == 1:
        return f"every zone is at {next(iter(values))}"
    return ", ".join(f"{zone} is at {level}" for zone, level in levels.items())
