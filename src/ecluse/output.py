"""Output of a process through a bounded queue, so that no print ever blocks or raises.

One thread empties the queue. A closed terminal, a reader that is gone or does not read, a full
disk: each costs lines, which are counted, and nothing else. `trouble` describes it while it lasts,
and the first line that is written again says how many are missing.
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
"""Of the queue, for a reader that does not read."""
RETRY_SECONDS = 1.0
"""Between two tries to write."""
CLOSE_SECONDS = 1.0
"""How long the end of the process waits for the last lines to be written."""


class Output:
    """Lines of text to a descriptor, with the methods of a file; any thread may use it.

    Args:
        descriptor: where they go.
        missing: makes the line, with its end, that says how many were lost.
    """

    encoding = "utf-8"

    def __init__(self, descriptor: int, missing: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._missing = missing
        self._lines: deque[bytes] = deque()
        self._queued_bytes = 0
        self._lost = 0
        self._unreported = 0
        self._error = ""
        self._partial = False
        self._closing = False
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> str:
        """Describe the loss of lines that the log does not report yet; empty without one."""
        lost, why = self._unreported, self._error or "whatever reads it does not"
        return f"the log can't be written ({why}): {lost} lines of it are lost" if lost else ""

    @property
    def lost(self) -> int:
        """Count the lines that were never written, since the process began."""
        return self._lost

    def write(self, words: str) -> int:
        """Queue some lines. It never waits and never raises.

        They must be whole, or the lines of another thread may stand inside one.
        """
        line = words.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._queued_bytes + len(line) > MOST_BYTES:
                self._count_lost(line)
            else:
                self._lines.append(line)
                self._queued_bytes += len(line)
                self._start_thread()
                self._changed.notify()
        return len(words)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def isatty(self) -> bool:
        """Say whether a person's terminal is at the other end."""
        return os.isatty(self._descriptor)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait so many seconds for the queue to be written. Later lines are lost."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _count_lost(self, line: bytes) -> None:
        count = max(1, line.count(b"\n"))
        self._lost += count
        self._unreported += count

    def _start_thread(self) -> None:
        if self._thread is not None or self._closing:
            return
        thread = threading.Thread(target=self._run, name="output", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread just now: the next line tries again
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._lines or self._closing or self._unreported):
                    self._changed.wait()
                if not self._lines and not self._unreported:
                    return
                # Lost lines came after the queued ones, so they are reported behind those.
                reported = 0 if self._lines else self._unreported
                line = self._missing(reported).encode() if reported else self._lines.popleft()
                self._queued_bytes -= 0 if reported else len(line)
            error = self._write_all(line)
            with self._changed:
                self._error = error
                if not error:
                    self._unreported -= reported
                    continue
                # The rest of the queue is lost as well, rather than written hours later.
                for other in ([] if reported else [line]) + list(self._lines):
                    self._count_lost(other)
                self._lines.clear()
                self._queued_bytes = 0
                if self._closing:
                    return
                self._changed.wait_for(lambda: self._closing, RETRY_SECONDS)

    def _write_all(self, line: bytes) -> str:
        """Write a whole line, however long that takes; give the error's text, or empty."""
        rest = memoryview(b"\n" + line if self._partial else line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # another process may have set O_NONBLOCK on it
                select.select([], [self._descriptor], [], RETRY_SECONDS)
            except OSError as error:
                self._partial = self._partial or len(rest) < len(line)
                return os.strerror(error.errno or errno.EIO)
        self._partial = False
        return ""


@contextlib.contextmanager
def capture_prints(output: Output) -> Iterator[None]:
    """Send everything that this process prints through `output`, and close it at the end.

    That includes tracebacks and warnings of libraries.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = cast(TextIO, output)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        output.close()


def open_standard_files() -> None:
    """Open descriptors 0, 1 and 2 on /dev/null where they are closed.

    Otherwise the next opened file would get one of these numbers, and what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def write_last_words(words: str) -> None:
    """Write to standard error as the process ends, for at most a second."""
    last = Output(STDERR, lambda _lost: "")
    last.write(words)
    last.close()
