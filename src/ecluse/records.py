"""Records: who commanded what, and each applied state as a numbered generation."""

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ecluse.policy import ADDED_LATER, Levels


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked, as the kernel says (SO_PEERCRED, socket(7)), never as the request says.

    login: the uid of the login that started the session (/proc/PID/loginuid), None when the kernel
    keeps none.
    """

    uid: int
    user: str
    pid: int
    command: str
    login: int | None = None


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of a command, as far as its meaning depends on that.

    gone: says whether nobody waits for the answer any more. early: it was sent before this daemon
    ran.
    since: when it came (seconds of time.monotonic).
    """

    gone: Callable[[], bool] = lambda: False
    early: bool = False
    since: float = field(default_factory=time.monotonic)


class Action(enum.StrEnum):
    """Why a generation came to be."""

    START = "start"
    LEVEL = "level"
    ROLLBACK = "rollback"
    RELOAD = "reload"
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it came: what to do, by whom, why, and with whose authority.

    back_to: the generation that a rollback names.
    """

    action: Action
    actor: Actor
    reason: str
    authorised_by: str
    back_to: int | None = None
    sender: Sender = field(default_factory=Sender)


@dataclass(frozen=True, slots=True)
class Generation:
    """A numbered, complete record of one applied state.

    policy: digest of the policy (site and allowlist) that it was compiled from, `sha256:HEX`.
    ruleset: digest of the compiled ruleset text with the addresses of that moment.
    previous: the generation before it, 0 for the first.
    back_to: for a rollback, the generation whose state this one restores.
    """

    number: int
    at: datetime
    action: Action
    levels: Levels
    policy: str
    ruleset: str
    actor: Actor
    reason: str
    authorised_by: str
    previous: int
    back_to: int | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One event for the audit log.

    The log adds the sequence number, the time and the hash of the line before.

    event: `level`, `rollback`, `reload`, `start`, `stop`, `intent`, `forbidden`, `tamper`, `fight`,
    `leak`, `exit`, `recovery`, `repair`, `by-hand`.
    result: `done`, `refused`, `failed`, `unverified`, `left out` (nobody waited any more) and the
    like, then words if needed.
    levels: the levels that stand after this event; None when it is not about levels. After a power
    cut they are one of the witnesses of how closed the gate was.
    """

    event: str
    actor: Actor
    what: str
    reason: str = ""
    authorised_by: str = ""
    from_generation: int | None = None
    to_generation: int | None = None
    ruleset: str = ""
    result: str = "done"
    levels: Levels | None = None


KEEP = timedelta(minutes=30)
"""How long an address stays kept after it was last seen, in an answer or in traffic: rotating names
lose no connection.
"""

LONGEST_TTL = timedelta(days=1)
"""As much of a TTL as is honoured when an address left: what resolvers cache at most, as a rule."""


@dataclass(frozen=True, slots=True)
class KnownAddress:
    """One resolved address of a host name.

    seen: when a resolver last gave it. expires: until when its TTL lets it be believed (the minimum
    over the CNAME chain); past that it is kept as last known good until a resolver answers again.
    ttl: seconds, as the resolvers said. by: the resolvers that gave it then.
    left: since when answers of its family are without it. used: when a live connection to it was
    last found.
    """

    address: str
    seen: datetime
    expires: datetime
    ttl: int = field(default=0, metadata=ADDED_LATER)
    by: tuple[str, ...] = field(default=(), metadata=ADDED_LATER)
    left: datetime | None = field(default=None, metadata=ADDED_LATER)
    used: datetime | None = field(default=None, metadata=ADDED_LATER)

    def kept_until(self, last_good: timedelta) -> datetime:
        """Give until when it is kept, should no resolver give it again and nobody use it.

        last_good: how long an address outlives its last answer while the resolvers fail.
        """
        used = max(self.seen, self.used or self.seen)
        cached = self.seen + min(timedelta(seconds=self.ttl), LONGEST_TTL)
        shortest = max(used + KEEP, self.expires, cached)
        return shortest if self.left else max(shortest, self.seen + last_good)


@dataclass(frozen=True, slots=True)
class KnownName:
    """The knowledge of a host name.

    asked: when resolvers were last asked for it. failure: the last failure in words, empty when
    none. since: when it was first asked for. alias: the name at the end of its CNAMEs, empty when
    it has none.
    """

    name: str
    addresses: tuple[KnownAddress, ...]
    asked: datetime | None = None
    failure: str = ""
    since: datetime | None = field(default=None, metadata=ADDED_LATER)
    alias: str = field(default="", metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True)
class NameStatistics:
    """The outcomes of a name's look-ups since the daemon started.

    outcomes: resolver -> outcome (`answered`, `empty`, `nxdomain`, `timeout`, ...) -> how often; a
    question for each family.
    answers: look-ups that gave an address. turned: those of them that gave one which was not known,
    the first left out.
    early: those in which the resolvers disagreed, or the addresses were others although the TTL had
    not run out.
    """

    lookups: int = 0
    outcomes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    answers: int = 0
    turned: int = 0
    early: int = 0
