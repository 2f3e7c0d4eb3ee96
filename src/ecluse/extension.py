"""What the daemon hands to an extension, and what an extension's part of the daemon provides."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ecluse.alerts import AlertKind, Alerts
from ecluse.policy import Levels, Policy
from ecluse.ports import Clock, CounterValue, Firewall
from ecluse.results import RefusedName


@dataclass(frozen=True, slots=True)
class Environment:
    """What an extension may use of the daemon.

    settings: the daemon's (`config.settings.Settings`). policy, levels: return the live ones.
    emit: takes the kind and the text of an event.
    """

    settings: Any
    policy: Callable[[], Policy]
    levels: Callable[[], Levels]
    firewall: Firewall
    clock: Clock
    alerts: Alerts
    emit: Callable[[str, str], None]


class ExtensionPart(Protocol):
    """An extension's part of the daemon, made once by `make_part(environment)`.

    It stays when a reload turns the extension off: it then tells its process so. A method that
    fails is an alert (`task-failed`); the core goes on without its answer.
    """

    @property
    def alerts(self) -> Mapping[str, AlertKind]:
        """The kinds of its alerts; registered before anything else is called."""

    @property
    def routes(self) -> tuple[Any, ...]:
        """Its routes of the API (`api.routes.Route`), answered while the live policy uses it."""

    @property
    def tasks(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        """Its background tasks, which run for ever, by what they do."""

    def wake(self) -> None:
        """Levels, policy or addresses changed."""

    async def read_counters(self, counters: Mapping[str, CounterValue]) -> None:
        """Take the table's counters, as they were just read."""

    def state(self) -> object | None:
        """Return its part of the status, None where the live policy does not use it."""

    async def refused_names(self) -> tuple[tuple[RefusedName, ...], int]:
        """Return the names that it refused, and how many rows could not be read."""
