"""What was learned since the machine started, in a file that outlives the process and not the
machine.

An address stands here before it is in the kernel. So what the kernel's sets hold beside it,
somebody else put in, and that stays true when the process is killed at any moment: what a process
has written is not lost with it, and needs no fsync, since a machine that goes down takes the
kernel's sets with it.
"""

import contextlib
import errno
import os
import re
from ipaddress import ip_address
from pathlib import Path

from ecluse.dnsproxy.whole_files import write_whole
from ecluse.lenient_rows import parse_rows
from ecluse.policy import IPAddress
from ecluse.ruleset.table_names import is_learned_set

FILE = "learned.record"
GROWTH = 4 << 20
"""Bytes of new lines after which the file is written anew, so that it stays in proportion to what
is held.
"""

Held = dict[str, dict[IPAddress, float]]
"""Set -> address -> until when it is kept, in seconds of CLOCK_BOOTTIME: no one sets that clock."""

Origins = dict[str, dict[IPAddress, frozenset[str]]]
"""A service's set -> address -> what led to it: names of their own, `*.operator.example` for what
lies below a wildcard.
"""

_ROW = re.compile(r"(\w+) ([0-9a-f.:]{2,45}) ([0-9]{1,15}) ([!-~]*)", re.ASCII)
_UNTOLD: frozenset[str] = frozenset()


class LearnedJournal:
    """The file.

    boot: the kernel's word for this run of the machine; without one nothing can be told of before.

    trouble: why it can't be written, empty when it can. While it can't, nobody may be taken for a
    stranger.
    """

    def __init__(self, directory: Path, boot: str) -> None:
        self._file = directory / FILE
        self._head = f"boot {boot}" if boot else ""
        self._descriptor: int | None = None
        self._grown = 0
        self.trouble = ""

    def load(self) -> tuple[Held, Origins, bool]:
        """Give what it holds, what led to it, and whether that is all: not when it is missing,
        damaged, or of another run of the machine.

        A last line without its end was being written when the process ended; its address is not in
        the kernel.
        """
        try:
            head, *lines = self._file.read_bytes().decode(errors="replace").split("\n")
        except OSError:
            return {}, {}, False
        if not lines or not self._head or head != self._head:
            return {}, {}, False
        held: Held = {}
        origins: Origins = {}
        rows, bad = parse_rows(lines[:-1], _row)
        for name, address, until, led in rows:
            if is_learned_set(name):
                held.setdefault(name, {})[address] = until
                remember(origins, name, address, led)
        return held, origins, not bad

    @property
    def is_sound(self) -> bool:
        """Say whether all that was learned stands in it."""
        return self._descriptor is not None

    @property
    def is_outgrown(self) -> bool:
        """Say whether it should be written anew."""
        return self._grown > GROWTH

    def append(self, fresh: Held, origins: Origins) -> None:
        """Add lines, before their addresses go into the kernel."""
        if self._descriptor is None or not fresh:
            return
        data = _lines(fresh, origins).encode()
        self._grown += len(data)
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._give_up(error.strerror)
            return
        if written != len(data):  # a disk that is full from there on
            self._give_up(os.strerror(errno.ENOSPC))

    def renew(self, held: Held, origins: Origins) -> None:
        """Write it anew, with what is held now; where that is not possible the old one goes on for
        as long as it may.
        """
        try:
            write_whole(self._file, f"{self._head}\n{_lines(held, origins)}", 0o600)
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            if self._descriptor is None or self.is_outgrown:
                self._give_up(error.strerror)
            return
        self.close()
        self._descriptor, self._grown, self.trouble = descriptor, 0, ""

    def _give_up(self, why: str | None) -> None:
        """Empty it, which a full disk allows: half of what was learned must not be taken for all of
        it by the next process.
        """
        with contextlib.suppress(OSError):
            os.truncate(self._file, 0)
        self.close()
        self._grown = 0
        self.trouble = (
            f"what is learned can't be recorded in {self._file} ({why}): addresses that somebody else puts "
            "into the gate's sets can't be told, and stay"
        )

    def close(self) -> None:
        """Write no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _row(line: str) -> tuple[str, IPAddress, float, str]:
    found = _ROW.fullmatch(line)
    if found is None:
        raise ValueError("no line of the record")
    return found[1], ip_address(found[2]), float(found[3]), found[4]


def led_by(origins: Origins, name: str, address: IPAddress) -> str:
    """Write what led to an address, in the order of the alphabet; empty where nothing tells."""
    return ",".join(sorted(origins.get(name, {}).get(address, _UNTOLD)))


def remember(origins: Origins, name: str, address: IPAddress, led: str) -> None:
    """Take note of what led to an address, as `led_by` writes it."""
    if led:
        origins.setdefault(name, {})[address] = frozenset(led.split(","))


def _lines(held: Held, origins: Origins) -> str:
    return "".join(
        f"{name} {address} {int(until)} {led_by(origins, name, address)}\n"
        for name, every in held.items()
        for address, until in every.items()
    )
