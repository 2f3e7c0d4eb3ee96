"""The learned addresses in two files: a journal for the next process, a snapshot for the next boot.

The journal is in /run. An address stands there before it is in the kernel, so whatever else the
kernel's sets have, somebody else added. That holds when the process is killed at any moment, and
needs no fsync: a machine that goes down takes the kernel's sets with it.

The snapshot is on disk, in lines of nft: the boot unit puts them back before the network is up,
without a process of ours (systemd/boot.sh, which takes lines of this form alone). They are two
files because no DNS answer may wait for a disk.
"""

import contextlib
import errno
import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from ecluse.atomic_files import replace_file
from ecluse.lenient_rows import PARSE_ERRORS, parse_rows
from ecluse.policy import IPAddress
from ecluse.ruleset.dns_redirect import KEPT_SECONDS
from ecluse.ruleset.program import TABLE
from ecluse.ruleset.table_names import is_learned_set

JOURNAL, SNAPSHOT = "learned.record", "learned.nft"
GROWTH = 4 << 20
"""Bytes of new lines after which the journal is rewritten, so that it does not grow for ever."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TITLE = "# What the DNS gate of ecluse learned: "
_JOURNAL_ROW = re.compile(r"(\w+) ([0-9a-f.:]{2,45}) ([0-9]{1,15}) ([!-~]*)", re.ASCII)
_SNAPSHOT_ROW = re.compile(
    rf"add element {TABLE} (\w+) {{ ([0-9a-f.:]+) expires ([0-9]{{1,9}})s }}(?: # ([!-~]+))?",
    re.ASCII,
)
_Row = tuple[str, IPAddress, float, str]
"""Set, address, seconds, and the names that led to it, with commas between them."""


def boot_id() -> str:
    """Return the kernel's id of this boot (random(4)), empty where it has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def clock() -> float:
    """Return the seconds since boot: setting the machine's date does not change them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Learned:
    """Learned addresses by nft set.

    until: set -> address -> until when it is kept, by `clock`.
    origins: a service's set -> address -> the names that led to it; `*.operator.example` stands for
    a name below that wildcard.
    """

    until: dict[str, dict[IPAddress, float]] = field(default_factory=dict)
    origins: dict[str, dict[IPAddress, frozenset[str]]] = field(default_factory=dict)

    def add_row(self, name: str, address: IPAddress, until: float, origins: str) -> None:
        """Add a row of a file; one of another kind of set is left out."""
        if not is_learned_set(name):
            return
        self.until.setdefault(name, {})[address] = until
        if origins:
            self.origins.setdefault(name, {})[address] = frozenset(origins.split(","))

    def rows(self, of: dict[str, dict[IPAddress, float]] | None = None) -> Iterator[_Row]:
        """Return the rows to write, or those of some addresses of it alone."""
        for name, addresses in (self.until if of is None else of).items():
            origins = self.origins.get(name, {})
            for address, until in addresses.items():
                yield name, address, until, ",".join(sorted(origins.get(address, ())))


class LearnedStore:
    """Both files.

    boot: `boot_id`; without one the journal of a process before can't be told from an older one.
    trouble: why the journal can't be written, empty when it can. While it can't, no address may be
    taken for somebody else's.
    """

    def __init__(self, state_dir: Path, run_dir: Path, boot: str) -> None:
        self._journal, self._snapshot = run_dir / JOURNAL, state_dir / SNAPSHOT
        self._boot = boot
        self._descriptor: int | None = None
        self._grown = 0
        self.trouble = ""

    def load(self) -> tuple[Learned, bool]:
        """Return what was learned, and whether the kernel's sets may have more of ours than that.

        They have not where the journal is whole, nor in the first process since boot.
        """
        journal, whole = self.read_journal()
        snapshot, boot = self.read_snapshot()
        learned = Learned() if whole else snapshot
        longest = clock() + KEPT_SECONDS
        for name, addresses in journal.until.items():
            found = learned.until.setdefault(name, {})
            found |= {address: min(until, longest) for address, until in addresses.items()}
        for name, origins in journal.origins.items():
            learned.origins.setdefault(name, {}).update(origins)
        return learned, not whole and boot in {"", self._boot}

    # -- the journal -------------------------------------------------------------------------------

    def read_journal(self) -> tuple[Learned, bool]:
        """Return the journal, and whether it is whole: there, undamaged and of this boot.

        A last line without its end was being written when the process ended: its address is not in
        the kernel.
        """
        try:
            head, *lines = self._journal.read_bytes().decode(errors="replace").split("\n")
        except OSError:
            return Learned(), False
        if not lines or not self._boot or head != self._head:
            return Learned(), False
        found = Learned()
        rows, bad = parse_rows(lines[:-1], lambda line: _parse(line, _JOURNAL_ROW))
        for row in rows:
            found.add_row(*row)
        return found, not bad

    @property
    def _head(self) -> str:
        return f"boot {self._boot}" if self._boot else ""

    @property
    def is_sound(self) -> bool:
        """Say whether the journal has all that was learned."""
        return self._descriptor is not None

    @property
    def is_outgrown(self) -> bool:
        """Say whether the journal should be rewritten."""
        return self._grown > GROWTH

    def append(self, rows: Iterable[_Row]) -> None:
        """Add lines to the journal, before their addresses go into the kernel."""
        data = _journal_lines(rows).encode()
        if self._descriptor is None or not data:
            return
        self._grown += len(data)
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._give_up(error.strerror)
            return
        if written != len(data):  # the disk is full from there on
            self._give_up(os.strerror(errno.ENOSPC))

    def rewrite(self, learned: Learned) -> None:
        """Replace the journal; if that fails, the one before is used for as long as it may grow."""
        try:
            text = f"{self._head}\n{_journal_lines(learned.rows())}"
            replace_file(self._journal, text.encode(), mode=0o600, sync_name=False)
            descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            if self._descriptor is None or self.is_outgrown:
                self._give_up(error.strerror)
            return
        self.close()
        self._descriptor, self._grown, self.trouble = descriptor, 0, ""

    def _give_up(self, why: str | None) -> None:
        """Empty the journal, which works on a full disk too.

        The next process must not take half of what was learned for all of it.
        """
        with contextlib.suppress(OSError):
            os.truncate(self._journal, 0)
        self.close()
        self._grown = 0
        self.trouble = (
            f"what is learned can't be recorded in {self._journal} ({why}): addresses that somebody"
            " else puts into the gate's sets can't be told, and stay"
        )

    def close(self) -> None:
        """Write no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # -- the snapshot ------------------------------------------------------------------------------

    def save_snapshot(self, learned: Learned) -> None:
        """Write the snapshot: each address with the seconds that it has left. OSError."""
        now = clock()
        title = _TITLE + json.dumps({"boot": self._boot, "clock": now, "date": time.time()})
        lines = [
            f"add element {TABLE} {name} {{ {address} expires {int(until - now)}s }}"
            + (f" # {origins}" if origins else "")
            for name, address, until, origins in learned.rows()
            if until - now >= 1
        ]
        text = "\n".join([title, *lines, ""])
        replace_file(self._snapshot, text.encode(), mode=0o600, sync_name=False)

    def read_snapshot(self) -> tuple[Learned, str]:
        """Return the snapshot and the id of its boot; nothing if it is missing or damaged.

        After a reboot the machine's date alone tells how much time has passed; a date that went
        back counts as none. Addresses whose time is over by then are returned as over now: the boot
        unit, which trusts no date, may have put them back, so they are not somebody else's.
        """
        now = clock()
        try:
            title, *lines = self._snapshot.read_bytes().decode(errors="replace").split("\n")
            told = json.loads(title.removeprefix(_TITLE))
            boot, then, date = str(told["boot"]), float(told["clock"]), float(told["date"])
        except PARSE_ERRORS:
            return Learned(), ""
        if not (math.isfinite(then) and math.isfinite(date)):
            return Learned(), ""
        passed = max(0.0, now - then if boot == self._boot else time.time() - date)
        found = Learned()
        for name, address, seconds, origins in parse_rows(
            lines, lambda x: _parse(x, _SNAPSHOT_ROW)
        )[0]:
            left = min(seconds, KEPT_SECONDS) - passed
            if left > 0 or boot != self._boot:
                found.add_row(name, address, now + max(0.0, left), origins)
        return found, boot


def _journal_lines(rows: Iterable[_Row]) -> str:
    return "".join(f"{name} {addr} {int(until)} {origins}\n" for name, addr, until, origins in rows)


def _parse(line: str, form: re.Pattern[str]) -> _Row:
    found = form.fullmatch(line)
    if found is None:
        raise ValueError("no row of this file")
    return found[1], ip_address(found[2]), float(found[3]), found[4] or ""
