"""What was answered, by set: put into the kernel before the answer is given, put back when the table is made anew, kept on disk."""

import contextlib
import json
import os
import time
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from ecluse.kernel import tables
from ecluse.kernel.learned import Answered, handles, left, put
from ecluse.kernel.netlink import NETLINK_NETFILTER, DumpInterruptedError, Netlink, number
from ecluse.policy import IPAddress
from ecluse.ruleset import names
from ecluse.ruleset.dnsgate import KEPT_SECONDS

_TABLE_HANDLE = 4
_PIECE = 1000
_FRESH = 15
"""Seconds in which an address is not put in again: each time is a transaction, which disturbs whoever reads the table."""
SAVED = "learned.json"


class Memory:
    """The addresses in the kernel's sets, and until when they are kept (UNIX time: it is saved over a reboot)."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / SAVED
        self._netlink = Netlink(NETLINK_NETFILTER)
        self._until: dict[tuple[str, IPAddress], float] = self._saved()
        self._sets: dict[str, tuple[int, int]] = {}
        self._changed = False

    def __len__(self) -> int:
        return len(self._until)

    def learn(self, services: Iterable[str], addresses: Iterable[IPAddress]) -> None:
        """Put addresses into the sets of these services. OSError: they are not all there, so do not answer with them."""
        wanted = [
            Answered(name, address)
            for address in addresses
            for service in services
            for name in (
                names.learned(str(address.version), service),
                names.learned(str(address.version)),
            )
        ]
        until = time.time() + KEPT_SECONDS
        fresh = until - _FRESH
        due = [
            one
            for one in wanted
            if one.set not in self._sets or self._until.get((one.set, one.address), 0.0) < fresh
        ]
        self._put(due)
        for one in due:
            self._until[one.set, one.address] = until
        self._changed = self._changed or bool(due)

    def _put(self, wanted: list[Answered]) -> None:
        try:
            put(self._netlink, wanted)
        except OSError:
            # Answers of what the kernel refused may still be under way on this socket.
            self._netlink.close()
            self._netlink = Netlink(NETLINK_NETFILTER)
            raise

    def is_open(self) -> bool:
        """Say whether the kernel lets everything pass now: its own word, in the moment of the question."""
        return (tables.targets(self._netlink, ["forward"])["forward"] or "").endswith("_open")

    def tend(self) -> None:
        """Put back what is missing in a set that was made anew, and forget what is over. OSError: try again later."""
        with contextlib.suppress(DumpInterruptedError):
            table = tables.table(self._netlink)
            serial = number(table.get(_TABLE_HANDLE, b"")) if table else 0
            now = {name: (serial, handle) for name, handle in handles(self._netlink).items()}
            fresh = {name for name, which in now.items() if self._sets.get(name) != which}
            if fresh:
                self._put_back(fresh)
            self._sets = now

    def _put_back(self, fresh: set[str]) -> None:
        now = time.time()
        for name in fresh:
            there = left(self._netlink, name)
            missing = [
                Answered(name, address, int(until - now))
                for (where, address), until in self._until.items()
                if where == name and until - now >= 1 and address not in there
            ]
            for start in range(0, len(missing), _PIECE):
                self._put(missing[start : start + _PIECE])

    def save(self) -> None:
        """Look at what packets have kept alive, and put all that is kept on disk. OSError when that is not possible."""
        now = time.time()
        with contextlib.suppress(DumpInterruptedError):
            for name in self._sets:
                for address, seconds in left(self._netlink, name).items():
                    self._until[name, address] = now + seconds
        self._until = {key: until for key, until in self._until.items() if until > now}
        if not self._changed and not self._until:
            return
        self._changed = False
        rows = [[name, str(address), int(until)] for (name, address), until in self._until.items()]
        write_whole(self._file, json.dumps(rows), 0o600)

    def _saved(self) -> dict[tuple[str, IPAddress], float]:
        """Read what was saved; nothing where it is missing or damaged: names are asked for again."""
        now = time.time()
        try:
            rows = json.loads(self._file.read_text())
            found = {(str(name), ip_address(address)): float(until) for name, address, until in rows}
        except (OSError, ValueError, TypeError):
            return {}
        return {
            key: min(until, now + KEPT_SECONDS)
            for key, until in found.items()
            if until > now and names.is_learned(key[0])
        }


def write_whole(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as one: whoever reads it finds the old one or the new one. OSError when that is not possible."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    temporary.replace(path)
