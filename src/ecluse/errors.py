"""Every error that a person may meet: what failed, whether to try again, what to type next.

Every command line imports this module, so it imports nothing that takes time.
"""

TYPE_CHECKING = False  # as in cli/main.py
if TYPE_CHECKING:
    from ecluse.faults import Fault


class EcluseError(Exception):
    """A failure, in words for the person at the keyboard.

    Args:
        message: what failed.
        retry: the same command may work a moment later.
        hint: what to type or look at next; empty when nothing is better than the message.
    """

    kind = "failed"

    def __init__(self, message: str, *, retry: bool = False, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.retry = retry
        self.hint = hint


class ConfigError(EcluseError):
    """The site's files have faults, all of them listed; nothing was changed."""

    kind = "config"

    def __init__(self, faults: "tuple[Fault, ...]") -> None:
        self.faults = tuple(sorted(faults))
        count = len(self.faults)
        super().__init__(
            f"{count} fault{'s' if count != 1 else ''} in the site's files:\n"
            + "\n".join(str(fault) for fault in self.faults),
            hint="mend the lines named above, then run 'ecluse check' again",
        )


class RequestError(EcluseError):
    """The request itself is wrong, for instance an unknown zone or level. Nothing was changed."""

    kind = "request"


class NotFoundError(RequestError):
    """The generation, level or zone that was named does not exist."""

    kind = "not-found"


class StaleError(RequestError):
    """The state is no longer the one that the person was shown, or knew when sending.

    Nothing was changed, or nothing was opened.
    """

    kind = "stale"


class GivenUpError(EcluseError):
    """A command that does more than close was left out: its sender hung up before it began."""

    kind = "given-up"


class ForbiddenError(EcluseError):
    """The user may not command. Nothing was changed, and the attempt is in the audit log."""

    kind = "forbidden"


class KernelError(EcluseError):
    """The kernel or libnftables refused, in its own words. A transaction is whole or not at all."""

    kind = "kernel"


class RulesetRejectedError(KernelError):
    """The kernel would not take this ruleset (`nft -c`); nothing was changed."""

    kind = "ruleset-rejected"


class NotVerifiedError(KernelError):
    """The kernel does not show what was applied. The message says what is loaded in it now."""

    kind = "not-verified"


class StateError(EcluseError):
    """The state directory could not be read or written."""

    kind = "state"


class CorruptError(StateError):
    """A state file exists but is not as it was written (a missing file is not corrupt)."""

    kind = "corrupt"


class UnreachableError(EcluseError):
    """The daemon's socket does not answer."""

    kind = "unreachable"
