"""Alerts: what is wrong at this moment, as values with a code.

An alert is raised by its code, stands until it is cleared, and then is gone: nothing is kept of it.
Its English text comes from the table `KINDS` below, and from no other place. A part that a site may
not use (the DNS proxy) brings its own table, which `Alerts.register` adds.

Warnings of `ecluse check` concern files, and are no alerts.
"""

import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from ecluse.errors import EcluseError

Parameter = str | int | float


class Severity(StrEnum):
    """How soon somebody has to look: critical now, warning today, info when convenient."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


_ORDER = tuple(one.value for one in Severity)


@dataclass(frozen=True, slots=True)
class AlertKind:
    """What alerts of one code have in common.

    text: a template (`str.format`) with the names of the parameters.
    event: kind of the event that tells of it when it is raised, empty for none.
    cleared: template of the text of the event that tells of its end; cleared_event: its kind, empty
    for none.
    """

    severity: Severity
    text: str
    event: str = "warning"
    cleared: str = ""
    cleared_event: str = "warning"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong now.

    parameters: what `text` is made from. since: when it was raised.
    """

    code: str
    parameters: Mapping[str, Parameter]
    since: datetime
    severity: str
    text: str


_CRITICAL, _WARNING, _INFO = Severity.CRITICAL, Severity.WARNING, Severity.INFO

KINDS: Mapping[str, AlertKind] = MappingProxyType(
    {
        "accounting-off": AlertKind(
            _INFO,
            "the kernel does not count packets per connection (net.netfilter.nf_conntrack_acct): "
            "a leak would be told in connections only",
        ),
        "addresses-not-loaded": AlertKind(
            _WARNING,
            "new addresses could not be loaded: {error}",
            cleared="new addresses are loaded again",
        ),
        "address-use-unknown": AlertKind(
            _WARNING,
            "addresses that left their name stay kept: nobody can say who uses them ({error})",
            cleared="it is known again who uses which address",
        ),
        "asymmetric-flows": AlertKind(
            _WARNING,
            "{count} TCP connections of '{service}' are seen from one side only: the other end is "
            "silent, or its packets take another way than this gateway; those pass at 'open' and "
            "are refused at a cut (known issues: one half of a connection)",
            cleared="no TCP connection of '{service}' is seen from one side only any more",
        ),
        "boot-precaution": AlertKind(
            _WARNING, "closed at boot as a precaution: {reason}", cleared_event=""
        ),
        "bypass-found": AlertKind(_WARNING, "{what}", event="", cleared_event=""),
        "bypass-scan-failed": AlertKind(
            _WARNING,
            "ways past the gate could not be looked for: {error}",
            cleared="ways past the gate are looked for again",
        ),
        "change-pending": AlertKind(
            _INFO,
            "{levels}: this is being applied, and counts once it is on disk",
            event="",
            cleared_event="",
        ),
        "event-log-failed": AlertKind(
            _WARNING,
            "an event could not be told to the daemon's log: {error}",
            event="",
            cleared_event="",
        ),
        "files-differ": AlertKind(
            _INFO,
            "the site's files differ from what is live: 'ecluse plan --reload' shows how",
            cleared_event="",
        ),
        "files-faulty": AlertKind(
            _WARNING,
            "the site's files have {count} fault(s) and wait unused: run 'ecluse check'",
            cleared_event="",
        ),
        "second-lock-missing": AlertKind(
            _WARNING,
            "the second lock does not stand as it should ({error}): the gate's own table holds; "
            "'ecluse check --host' names ways past it",
            cleared="the second lock is as it should be again",
        ),
        "way-past-gate": AlertKind(
            _CRITICAL,
            "something goes past the gate: the second lock dropped {packets} packet(s) at "
            "{devices} that the gate did not refuse: {examples}. Find what sends them, and end it; "
            "'ecluse check --host' names ways",
        ),
        "flowtable-missing": AlertKind(
            _WARNING,
            "fast_path: the kernel takes no flowtable ({error}): kept packets go by the chains, "
            "which is slower and as safe",
            cleared="the flowtable of kept flows stands again, or is not wanted any more",
        ),
        "generation-not-ready": AlertKind(
            _INFO,
            "the generation before can't be kept ready ({error}); a rollback takes longer",
            cleared="the generation before is ready for a rollback again",
        ),
        "kernel-not-compared": AlertKind(
            _CRITICAL,
            "the kernel could not be compared: {error}",
            cleared="the kernel is compared again",
        ),
        "kernel-tables-unknown": AlertKind(
            _WARNING,
            "how full the kernel's tables are is not known: {error}",
            cleared="it is known again how full the kernel's tables are",
        ),
        "kernel-table-full": AlertKind(
            _CRITICAL,
            "the kernel's table of {table} is {percent} % full ({used:,} of {most:,}): once it is "
            "full, new flows fail, kept ones too. Raise {knob} (sysctl -w), and see in "
            "'ecluse refused' who fills it",
            cleared="the kernel's table of {table} has room again",
            cleared_event="table",
        ),
        "machine-odd": AlertKind(_WARNING, "{what}", event="", cleared_event=""),
        "nat64-zone": AlertKind(_WARNING, "{what}", event="", cleared_event=""),
        "not-recorded": AlertKind(
            _WARNING, "not on disk yet: {writes}", event="", cleared_event=""
        ),
        "old-flows-not-ended": AlertKind(
            _WARNING,
            "old connections could not be ended ({error}); they are refused, and it is tried again",
            event="purge",
            cleared_event="",
        ),
        "opening-taken-back": AlertKind(
            _WARNING,
            "taken back: {reason}; for a moment {levels}, and what began then is ended",
            cleared_event="",
        ),
        "out-of-step": AlertKind(
            _CRITICAL,
            "the kernel does not show what it should; it is being put back",
            event="",
            cleared_event="",
        ),
        "policy-from-files": AlertKind(
            _WARNING,
            "{problem}; the allowlist was read from the files instead",
            cleared_event="",
        ),
        "policy-older": AlertKind(
            _WARNING,
            "{problem}; the allowlist of generation {generation} is used instead",
            cleared_event="",
        ),
        "routes-not-kept": AlertKind(_WARNING, "{what}", event="", cleared_event=""),
        "routes-unknown": AlertKind(
            _WARNING,
            "the machine's routes could not be read: {error}",
            cleared="the machine's routes are read again",
        ),
        "table-changed-repeatedly": AlertKind(
            _CRITICAL,
            "{processes} changed the gate's table over and over: {times} times since {began} UTC; "
            "it is put back each time, but packets get through in between and kept services stall: "
            "find what runs it and stop it ('ecluse events' tells who)",
            event="",
            cleared_event="",
        ),
        "table-not-restored": AlertKind(
            _CRITICAL,
            "our table was changed and could not be restored: {error}",
            event="tamper",
            cleared_event="",
        ),
        "task-failed": AlertKind(
            _WARNING,
            "{task} failed ({error}; {count} time(s) since the start); "
            "the gate holds, and it is tried again",
            cleared="{task} works again",
        ),
        "tunnel-not-kept": AlertKind(_WARNING, "{what}", event="", cleared_event=""),
        "unknown-flows": AlertKind(
            _WARNING,
            "{count} entries of the connection table are of no kind that this version knows: they "
            "were neither ended nor counted, and the chains judge their packets all the same",
            cleared_event="",
        ),
        "zone-links-odd": AlertKind(_WARNING, "{what}", event="", cleared_event=""),
    }
)
"""Code -> what alerts of that code have in common."""


OF_THE_MACHINE = frozenset(
    {
        *("bypass-found", "machine-odd", "nat64-zone", "routes-not-kept", "tunnel-not-kept"),
        "zone-links-odd",
    }
)
"""Codes of what a look at the machine finds; the links task tells of it in events of its own."""


def by_severity(alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    """Sort alerts, the most severe first; of one severity the order stays."""
    return tuple(sorted(alerts, key=lambda one: _ORDER.index(one.severity)))


class Alerts:
    """The alerts that stand. Only the event loop changes them.

    clock: gives the time now. emit: takes the kind and the text of an event.
    """

    def __init__(self, clock: Callable[[], datetime], emit: Callable[[str, str], None]) -> None:
        self._clock = clock
        self._emit = emit
        self._kinds = dict(KINDS)
        self._raised: dict[tuple[str, str], Alert] = {}

    def register(self, kinds: Mapping[str, AlertKind]) -> None:
        """Add the kinds of a part that brings its own. ValueError for a code that is taken."""
        taken = self._kinds.keys() & kinds.keys()
        if taken:
            raise ValueError(f"alert codes are taken: {', '.join(sorted(taken))}")
        self._kinds |= kinds

    def raise_alert(
        self, code: str, key: str = "", *, quiet: bool = False, **parameters: Parameter
    ) -> None:
        """Raise an alert, or give one that stands other parameters: `since` stays then.

        An event tells of it when it is new, unless `quiet`.

        Args:
            code: one of the registered kinds (KeyError for another).
            key: tells alerts of one code apart, where several can stand at once.
            parameters: every parameter of the kind's text.
        """
        kind, before = self._kinds[code], self._raised.get((code, key))
        text = kind.text.format(**parameters)
        since = before.since if before else self._clock()
        self._raised[code, key] = Alert(code, parameters, since, kind.severity.value, text)
        if before is None and kind.event and not quiet:
            self._emit(kind.event, text)

    def clear(self, code: str, key: str = "", *, quiet: bool = False) -> bool:
        """Take an alert away; an event tells of it, unless `quiet`. False when it did not stand."""
        kind, alert = self._kinds[code], self._raised.pop((code, key), None)
        if alert is not None and kind.cleared_event and not quiet:
            text = kind.cleared.format(**alert.parameters) or f"over: {alert.text}"
            self._emit(kind.cleared_event, text)
        return alert is not None

    def clear_others(self, code: str, keys: Collection[str]) -> None:
        """Take the alerts of a code away whose keys are none of these."""
        for other, key in list(self._raised):
            if other == code and key not in keys:
                self.clear(code, key)

    def is_raised(self, code: str, key: str = "") -> bool:
        """Say whether this alert stands."""
        return (code, key) in self._raised

    def standing(self) -> tuple[Alert, ...]:
        """Give the alerts that stand, the most severe first, of these the oldest."""
        return by_severity(self._raised.values())

    def texts(self) -> tuple[str, ...]:
        """Give their texts, in the same order, but for what is odd about the machine.

        An answer to a command or a plan judges that again, for the levels that it is about.
        """
        return tuple(one.text for one in self.standing() if one.code not in OF_THE_MACHINE)


def error_text(error: BaseException) -> str:
    """Say what went wrong; where nobody foresaw it, with the place in the code."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, EcluseError):
        return error.message
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__}: {error}" + "".join(
        f", {Path(x.filename).name}:{x.lineno}" for x in last
    )
