"""What the API asks of the controller: one Protocol, so that the server can be tested without a
kernel.
"""

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from ecluse.records import Actor, Generation, Sender
from ecluse.results import Change, Event, Plan, Purge, Refused, ServiceStatus, Status


class Commands(Protocol):
    """The controller as the API sees it.

    Every method may raise an EcluseError, which becomes a problem document.
    """

    async def status(self) -> Status:
        """Say where we are."""

    async def services(self) -> tuple[ServiceStatus, ...]:
        """Say how every service of the allowlist is doing."""

    def generations(self) -> tuple[Generation, ...]:
        """Give every recorded generation, newest first."""

    def generation(self, number: int) -> Generation:
        """Give one generation. NotFoundError when it is not recorded (any more)."""

    def purge(self, number: int) -> Purge | None:
        """Give the end of connections after generation `number`; None when there was none."""

    def closes(self, level: str, zones: tuple[str, ...] | None) -> bool:
        """Say whether a level would close something that passes now, or repeat what stands."""

    async def set_level(
        self,
        level: str,
        zones: tuple[str, ...] | None,
        *,
        actor: Actor,
        reason: str,
        authorised_by: str,
        expect: int | None = None,
        sender: Sender | None = None,
    ) -> Change:
        """Set a level in these zones, None: in all. RequestError for an unknown level or zone.

        What closes is always done. What opens is not when another generation than `expect` stands
        (StaleError), or when nobody waits any more (GivenUpError).
        """

    async def rollback(
        self,
        number: int | None,
        *,
        actor: Actor,
        reason: str,
        authorised_by: str,
        expect: int | None = None,
        sender: Sender | None = None,
    ) -> Change:
        """Go back to a generation, None: to the one before this.

        NotFoundError when it is not kept; else as for a level.
        """

    async def reload(
        self,
        *,
        expect: str | None,
        actor: Actor,
        reason: str,
        authorised_by: str,
        sender: Sender | None = None,
    ) -> Change:
        """Apply the site's files.

        ConfigError; StaleError when `expect` is not the digest of the plan now; GivenUpError.
        """

    async def plan(
        self,
        *,
        level: str | None,
        zones: tuple[str, ...] | None,
        rollback: int | None,
        reload: bool,
    ) -> Plan:
        """Say what a change would do, doing nothing."""

    async def refused(self, limit: int) -> Refused:
        """Give at most `limit` refused flows and sources, most packets first."""

    def events(self) -> AsyncIterator[Event]:
        """Give every event from now on.

        A subscriber that does not keep up is ended, never waited for.
        """

    def forbidden(self, actor: Actor, what: str) -> Awaitable[None]:
        """Record in the audit log that somebody tried what he may not."""
