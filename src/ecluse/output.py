"""What a process says goes through here: a bounded queue that one thread empties, so that no word
ever blocks or raises.

A terminal that was closed, a reader that is gone or does not read, a full disk: each costs lines,
which are counted, and nothing else. `trouble` says it while it lasts, and the first line that is
taken again says how many are missing.
"""

import contextlib
import errno
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO, cast

STDOUT, STDERR = 1, 2
MOST_BYTES = 1 << 20
"""What waits at most for a reader that does not read."""
AGAIN = 1.0
"""Seconds between two tries to write to what refuses."""
PATIENCE = 1.0
"""Seconds that the end of the process waits for the last lines to be taken."""


class Output:
    """Lines of text to a descriptor.

    A file to whoever prints (`write`, `flush`), and safe from any thread.

    missing: makes the line, with its end, that says how many were lost.
    """

    encoding = "utf-8"

    def __init__(self, descriptor: int, missing: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._missing = missing
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._lost = 0
        self._untold = 0
        self._refused = ""
        self._torn = False
        self._ends = False
        self._news = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> str:
        """Say that lines were lost and can't be told of in the log yet, with why; empty while all
        is written.
        """
        lost, why = self._untold, self._refused or "whatever reads it does not"
        return f"the log can't be written ({why}): {lost} lines of it are lost" if lost else ""

    @property
    def lost(self) -> int:
        """Count the lines that were never written, since the process began."""
        return self._lost

    def write(self, words: str) -> int:
        """Take some lines; whole ones only, or they may be torn by another thread's.

        Never waits, never raises.
        """
        line = words.encode("utf-8", "backslashreplace")
        with self._news:
            if self._waiting + len(line) > MOST_BYTES:
                self._lose(line)
            else:
                self._lines.append(line)
                self._waiting += len(line)
                self._begin()
                self._news.notify()
        return len(words)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def isatty(self) -> bool:
        """Say whether a person's terminal is at the other end."""
        return os.isatty(self._descriptor)

    def close(self, patience: float = PATIENCE) -> None:
        """Have what waits written, for at most so many seconds. What comes later is lost."""
        with self._news:
            self._ends = True
            self._news.notify()
            thread = self._thread
        if thread is not None:
            thread.join(patience)

    def _lose(self, line: bytes) -> None:
        count = max(1, line.count(b"\n"))
        self._lost += count
        self._untold += count

    def _begin(self) -> None:
        if self._thread is not None or self._ends:
            return
        thread = threading.Thread(target=self._run, name="output", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread just now: the next line tries again
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._news:
                while not (self._lines or self._ends or self._untold):
                    self._news.wait()
                if not self._lines and not self._untold:
                    return
                # What is lost came after what waits: it is told of behind it.
                told = 0 if self._lines else self._untold
                line = self._missing(told).encode() if told else self._lines.popleft()
                self._waiting -= 0 if told else len(line)
            wrong = self._put(line)
            with self._news:
                self._refused = wrong
                if not wrong:
                    self._untold -= told
                    continue
                # What waits behind it would wait as long: it is lost as well, rather than come
                # hours later.
                for other in ([] if told else [line]) + list(self._lines):
                    self._lose(other)
                self._lines.clear()
                self._waiting = 0
                if self._ends:
                    return
                self._news.wait_for(lambda: self._ends, AGAIN)

    def _put(self, line: bytes) -> str:
        """Write it all, however long that takes; give why that was not possible."""
        rest = memoryview(b"\n" + line if self._torn else line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # whoever gave it to us has made it so
                select.select([], [self._descriptor], [], AGAIN)
            except OSError as error:
                self._torn = self._torn or len(rest) < len(line)
                return os.strerror(error.errno or errno.EIO)
        self._torn = False
        return ""


@contextlib.contextmanager
def taking_all(output: Output) -> Iterator[None]:
    """Have all that this process prints, tracebacks and warnings of libraries included, go through
    `output`; close it then.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = cast(TextIO, output)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        output.close()


def open_standard_files() -> None:
    """See that 0, 1 and 2 are open, if only on /dev/null: the next file opened would take their
    place, and our words.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def say_last(words: str) -> None:
    """Write to standard error as the process ends; whoever does not take it within a second misses
    it.
    """
    last = Output(STDERR, lambda _lost: "")
    last.write(words)
    last.close()
