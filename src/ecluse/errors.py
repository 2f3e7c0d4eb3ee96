"""Every error that a person may meet: what failed, whether trying again makes sense, what to type next."""

from dataclasses import dataclass


class EcluseError(Exception):
    """What failed, in words for the person at the keyboard.

    retry: the same command may work a moment later.
    hint: what to type or look at next; empty when there is nothing better than the message.
    """

    kind = "failed"

    def __init__(self, message: str, *, retry: bool = False, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.retry = retry
        self.hint = hint


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong in one file. Line and column count from 1; 0 when the fault has no place in it."""

    file: str
    line: int
    column: int
    wrong: str
    expected: str = ""

    def __str__(self) -> str:
        """Give `file:line:column: what is wrong, what was expected`."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.wrong}" + (f", expected {self.expected}" if self.expected else "")


class ConfigError(EcluseError):
    """The site's files have faults, all of them listed; nothing was changed."""

    kind = "config"

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = tuple(sorted(faults))
        count = len(self.faults)
        super().__init__(
            f"{count} fault{'s' if count != 1 else ''} in the site's files:\n"
            + "\n".join(str(fault) for fault in self.faults),
            hint="mend the lines named above, then run 'ecluse check' again",
        )


class RequestError(EcluseError):
    """The request itself is wrong: an unknown zone, level or generation. Nothing was changed."""

    kind = "request"


class NotFoundError(RequestError):
    """What was asked for does not exist (a generation, a level, a zone)."""

    kind = "not-found"


class StaleError(RequestError):
    """What was shown is not what would be applied now (the files changed in between). Nothing was changed."""

    kind = "stale"


class ForbiddenError(EcluseError):
    """Whoever asked may not command. Nothing was changed, and the attempt is in the audit log."""

    kind = "forbidden"


class KernelError(EcluseError):
    """The kernel or libnftables refused, with its own words; a transaction is whole or not at all."""

    kind = "kernel"


class RulesetRejectedError(KernelError):
    """The kernel would not take this ruleset (`nft -c`); nothing was changed."""

    kind = "ruleset-rejected"


class NotVerifiedError(KernelError):
    """The kernel does not show what was applied. The message says what stands in the kernel now."""

    kind = "not-verified"


class StateError(EcluseError):
    """The state directory could not be read or written."""

    kind = "state"


class CorruptError(StateError):
    """A state file is there and is not what was written (missing is not corrupt)."""

    kind = "corrupt"


class ResolveError(EcluseError):
    """A host name could not be resolved; the last good answer stands."""

    kind = "resolve"


class UnreachableError(EcluseError):
    """The daemon's socket does not answer."""

    kind = "unreachable"
