"""Loads the extensions that the live policy uses, and joins their parts to the controller's."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ecluse.controller.tasks.supervisor import Work
from ecluse.extension import Environment, ExtensionPart
from ecluse.extensions import Extension
from ecluse.policy import Policy
from ecluse.ports import CounterValue
from ecluse.results import RefusedName


class ExtensionHost:
    """The extensions of this daemon.

    Args:
        extensions: all that there are.
        environment: what their parts may use.
        run_for_ever: runs a background task, by its name.
        contain: does something by its name; a fault is an alert until it goes well.
        report_fault: raises that alert.
    """

    def __init__(
        self,
        *,
        extensions: Sequence[Extension],
        environment: Environment,
        run_for_ever: Callable[[str, Work], None],
        contain: Callable[[str, Work], Awaitable[None]],
        report_fault: Callable[[str, BaseException], None],
    ) -> None:
        self._extensions = extensions
        self._environment = environment
        self._run_for_ever = run_for_ever
        self._contain = contain
        self._report_fault = report_fault
        self._modules: dict[str, Any] = {}
        self._parts: dict[str, ExtensionPart] = {}
        self._routes: dict[str, tuple[Any, ...]] = {}

    async def load_for(self, policy: Policy) -> None:
        """Import the modules that a policy needs, before it goes live.

        One that can't be imported is an alert, and no reason to refuse the policy: what the kernel
        keeps and refuses does not depend on it.
        """
        for one in self._extensions:
            if one.name not in self._modules and one.is_used(policy):
                await self._contain(f"loading {one.name}", partial(self._load, one))

    async def _load(self, one: Extension) -> None:
        # On a thread: no command waits for an import.
        self._modules[one.name] = await asyncio.to_thread(one.load)

    async def load_missing(self) -> None:
        """Try again to load what the live policy uses, and could not be imported before."""
        policy = self._environment.policy()
        if any(one.name not in self._parts and one.is_used(policy) for one in self._extensions):
            await self.load_for(policy)
            self.follow()

    def follow(self) -> None:
        """Begin the parts that the live policy uses by now, and wake all: it changed."""
        policy = self._environment.policy()
        for one in self._extensions:
            task = f"handing a change to {one.name}"
            try:
                if one.name in self._parts:
                    self._parts[one.name].wake()
                elif one.name in self._modules and one.is_used(policy):
                    self._begin(one)
            except Exception as error:  # noqa: BLE001 - no extension may stop what follows a change
                self._report_fault(task, error)
            else:
                self._environment.alerts.clear("task-failed", key=task)

    def _begin(self, one: Extension) -> None:
        part: ExtensionPart = self._modules[one.name].make_part(self._environment)
        routes = tuple(part.routes)  # once: every request looks at them
        self._environment.alerts.register(part.alerts)
        self._parts[one.name], self._routes[one.name] = part, routes
        for name, work in part.tasks.items():
            self._run_for_ever(name, work)

    def unused(self) -> tuple[Extension, ...]:
        """Return the extensions that have no part here, as the live policy does not use them.

        One that is used and could not be loaded is none of them: its process goes on.
        """
        policy = self._environment.policy()
        return tuple(
            one
            for one in self._extensions
            if one.name not in self._parts and not one.is_used(policy)
        )

    def part(self, name: str) -> ExtensionPart:
        """Return the part of an extension. KeyError where it has none."""
        return self._parts[name]

    async def read_counters(self, counters: Mapping[str, CounterValue]) -> None:
        """Hand the table's counters to every part."""
        for name, part in self._parts.items():
            work = partial(part.read_counters, counters)
            # The look that hands them over proves to the watchdog that the daemon lives.
            await self._contain(f"handing the counters to {name}", work)

    def states(self) -> dict[str, object | None]:
        """Return the parts' fields of `Status`, by name; None where a part fails."""
        found: dict[str, object | None] = {}
        for one in self._extensions:
            if not one.status or one.name not in self._parts:
                continue
            task = f"asking {one.name} for its part of the status"
            try:
                found[one.status] = self._parts[one.name].state()
            except Exception as error:  # noqa: BLE001 - the rest of the status is more important
                found[one.status] = None
                self._report_fault(task, error)
            else:
                self._environment.alerts.clear("task-failed", key=task)
        return found

    def routes(self) -> tuple[Any, ...]:
        """Return the routes of the parts that the live policy uses (`api.routes.Route`)."""
        policy = self._environment.policy()
        return tuple(
            route
            for one in self._extensions
            if self._routes.get(one.name) and one.is_used(policy)
            for route in self._routes[one.name]
        )

    async def refused_names(self) -> tuple[tuple[RefusedName, ...], int]:
        """Return the names that the parts refused, and how many rows could not be read."""
        found: list[RefusedName] = []
        unread = 0

        async def add_names(part: ExtensionPart) -> None:
            nonlocal unread
            names, bad = await part.refused_names()
            found.extend(names)
            unread += bad

        for name, part in self._parts.items():
            await self._contain(f"asking {name} what it refused", partial(add_names, part))
        return tuple(found), unread
