"""`ecluse check --online`: every host name of the files asked of the site's resolvers, with no
daemon.
"""

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
"""How often each name is asked for: enough to see one whose addresses change before its TTL has run
out.
"""
_PAUSE = 1.0  # seconds between two rounds
_SECONDS = 3.0  # for one question to one resolver, as the daemon's default
_AT_ONCE = 16
_SHORTEST, _LONGEST = 30.0, 3600.0  # as the daemon's
_PORT = 53


async def _learn(policy: Policy) -> Knowledge:
    names, private = policy.host_names(), policy.private_names()
    servers = [(str(address), _PORT) for address in policy.site.resolvers]
    known = {name: KnownName(name, ()) for name in names}
    tallies = dict.fromkeys(names, NameStatistics())
    room = asyncio.Semaphore(_AT_ONCE)

    async def ask(name: str) -> None:
        async with room:
            answer = await look_up(name, servers, _SECONDS, may_be_private=name in private)
        now = datetime.now(UTC)
        tallies[name] = known_names.count_lookup(tallies[name], known[name], answer, now)
        known[name] = known_names.after_answer(known[name], answer, now, _SHORTEST, _LONGEST)

    await asyncio.gather(*map(ask, names))
    for _ in range(1, _ROUNDS):
        again = [name for name in names if known[name].addresses]
        if again:
            await asyncio.sleep(_PAUSE)
            await asyncio.gather(*map(ask, again))
    return Knowledge(known, tallies, timedelta(0), datetime.now(UTC), owners_of(known))


def ask_names(policy: Policy) -> tuple[int, list[dict[str, Any]]]:
    """Ask for every name of a policy.

    Gives the exit code, and what is to be told of each service that has names.
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
    knowledge = asyncio.run(_learn(policy))
    told: list[dict[str, Any]] = []
    for service in policy.services:
        if not names_of(service):
            continue
        addresses = [encode(each) for each in address_states(service, knowledge)]
        names = [
            encode(name) | {"addresses": [a for a in addresses if a["name"] == name.name]}
            for name in name_states(policy, service, knowledge)
        ]
        told.append(
            {
                "service": service.name,
                "names": names,
                "warnings": list(failures(service, knowledge)),
            }
        )
    return (DONE if all(entry.addresses for entry in knowledge.known.values()) else FOUND), told


def show_names(screen: Screen, told: list[dict[str, Any]]) -> None:
    """Write what was found for a person."""
    for service in told:
        screen.line(f"{service['service']}:" if service["service"] else "names:", "bold")
        for name in service["names"]:
            show_name(screen, name, name["addresses"], live=False)
        for warning in service["warnings"]:
            screen.wrapped("  ! ", warning, "warn")
