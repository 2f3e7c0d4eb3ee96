"""Every error that a person may meet: what failed, whether trying again makes sense, what to type
next.
"""


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


class Fault:
    """One thing wrong in one file.

    Line and column count from 1; 0 when the fault has no place in it.

    A frozen value, ordered by its place. Written out, since every command line imports this module
    and importing `dataclasses` alone takes longer than starting Python.
    """

    __slots__ = ("column", "expected", "file", "line", "wrong")

    file: str
    line: int
    column: int
    wrong: str
    expected: str

    def __init__(self, file: str, line: int, column: int, wrong: str, expected: str = "") -> None:
        put = super().__setattr__
        put("file", file)
        put("line", line)
        put("column", column)
        put("wrong", wrong)
        put("expected", expected)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a fault does not change: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a fault does not change: {name}")

    def _parts(self) -> tuple[str, int, int, str, str]:
        return self.file, self.line, self.column, self.wrong, self.expected

    def __eq__(self, other: object) -> bool:
        return self._parts() == other._parts() if isinstance(other, Fault) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self._parts() < other._parts() if isinstance(other, Fault) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self._parts() <= other._parts() if isinstance(other, Fault) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._parts())

    def __reduce__(self) -> tuple[type["Fault"], tuple[str, int, int, str, str]]:
        return Fault, self._parts()

    def __repr__(self) -> str:
        return f"Fault{self._parts()!r}"

    def here(self, wrong: str, expected: str = "") -> "Fault":
        """Give another fault at the same place."""
        return Fault(self.file, self.line, self.column, wrong, expected)

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
    """What was shown, or stood when it was sent, is not what stands now.

    Nothing was changed, or nothing was opened.
    """

    kind = "stale"


class GivenUpError(EcluseError):
    """Nobody waits any more for a command that was not begun yet and does not only close.

    It was left out.
    """

    kind = "given-up"


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
