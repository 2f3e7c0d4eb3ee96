"""`ecluse check --online`: asks the site's resolvers for every host name, with no daemon."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from ecluse.cli.exit_codes import DONE, FOUND
from ecluse.cli.queries import show_name
from ecluse.cli.terminal import Screen
from ecluse.name_advice import Knowledge, address_states, failures, name_states, names_of, owners_of
from ecluse.policy import Policy
from ecluse.records import KnownName, NameStatistics
from ecluse.resolve import known_names
from ecluse.resolve.lookup import look_up
from ecluse.state.codec import encode

_ROUNDS = 4
"""How often each name is looked up: enough to see addresses change before their TTL has run out."""
_PAUSE = 1.0  # seconds between two rounds
_SECONDS = 3.0  # for one question to one resolver, as the daemon's default
_AT_ONCE = 16
_SHORTEST, _LONGEST = 30.0, 3600.0  # as the daemon's
_PORT = 53


async def _look_up_all(policy: Policy) -> Knowledge:
    names, private = policy.host_names(), policy.private_names()
    servers = [(str(address), _PORT) for address in policy.site.resolvers]
    known = {name: KnownName(name, ()) for name in names}
    statistics = dict.fromkeys(names, NameStatistics())
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(name: str) -> None:
        async with slots:
            answer = await look_up(name, servers, _SECONDS, may_be_private=name in private)
        now = datetime.now(UTC)
        statistics[name] = known_names.count_lookup(statistics[name], known[name], answer, now)
        known[name] = known_names.after_answer(known[name], answer, now, _SHORTEST, _LONGEST)

    await asyncio.gather(*map(ask, names))
    for _ in range(1, _ROUNDS):
        again = [name for name in names if known[name].addresses]
        if again:
            await asyncio.sleep(_PAUSE)
            await asyncio.gather(*map(ask, again))
    return Knowledge(known, statistics, timedelta(0), datetime.now(UTC), owners_of(known))


def ask_names(policy: Policy) -> tuple[int, list[dict[str, Any]]]:
    """Look up every name of a policy.

    Gives the exit code, and for each service that has names: `service`, `names`, `warnings`.
    """
    if not policy.host_names():
        return DONE, []
    if not policy.site.resolvers:
        return FOUND, [
            {
                "service": "",
                "names": [],
                "warnings": ["the site has no resolvers: no name is asked for"],
            }
        ]
    knowledge = asyncio.run(_look_up_all(policy))
    services: list[dict[str, Any]] = []
    for service in policy.services:
        if not names_of(service):
            continue
        addresses = [encode(each) for each in address_states(service, knowledge)]
        names = [
            encode(name) | {"addresses": [a for a in addresses if a["name"] == name.name]}
            for name in name_states(policy, service, knowledge)
        ]
        services.append(
            {
                "service": service.name,
                "names": names,
                "warnings": list(failures(service, knowledge)),
            }
        )
    return (DONE if all(entry.addresses for entry in knowledge.known.values()) else FOUND), services


def show_names(screen: Screen, services: list[dict[str, Any]]) -> None:
    """Show the names and their addresses to a person."""
    for service in services:
        screen.line(f"{service['service']}:" if service["service"] else "names:", "bold")
        for name in service["names"]:
            show_name(screen, name, name["addresses"], live=False)
        for warning in service["warnings"]:
            screen.wrapped("  ! ", warning, "warn")
