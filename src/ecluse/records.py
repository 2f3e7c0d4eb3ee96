"""What is written down: who commanded what, and each applied state as a numbered generation."""

import enum
from dataclasses import dataclass
from datetime import datetime

from ecluse.policy import Levels


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked, as the kernel says (SO_PEERCRED, socket(7)), never as the request says.

    login: the uid of the login that started the session (/proc/PID/loginuid), None when the kernel keeps none.
    """

    uid: int
    user: str
    pid: int
    command: str
    login: int | None = None


class Action(enum.StrEnum):
    """Why a generation came to be."""

    START = "start"
    LEVEL = "level"
    ROLLBACK = "rollback"
    RELOAD = "reload"
    RECOVERY = "recovery"


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
    """One event for the audit log; the log adds sequence number, time and the hash of the line before.

    event: `level`, `rollback`, `reload`, `start`, `stop`, `intent`, `forbidden`, `tamper`, `fight`, `leak`, `exit`, `recovery`, `repair`,
    `by-hand`.
    result: `done`, `refused`, `failed`, `unverified` and the like, then words if needed.
    levels: the levels that stand after this event; None when it is not about levels. After a power cut
    they are one of the witnesses of how closed the gate was.
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


@dataclass(frozen=True, slots=True)
class KnownAddress:
    """One resolved address of a host name.

    seen: when a resolver last gave it. expires: until when its TTL lets it be believed
    (the minimum over the CNAME chain); past that it is kept as last known good until a resolver answers again.
    """

    address: str
    seen: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class KnownName:
    """What is known of a host name: addresses, when last asked, and the last failure in words (empty when none)."""

    name: str
    addresses: tuple[KnownAddress, ...]
    asked: datetime | None = None
    failure: str = ""
