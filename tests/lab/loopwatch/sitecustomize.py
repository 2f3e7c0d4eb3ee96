"""Loaded by the daemon under test at its start (site(7)).

Writes down whatever holds its event loop for too long.

What counts is the processor time of the loop's own thread, callback by callback (time.thread_time),
so that a loaded machine accuses nobody: while others run, nothing is counted. What the loop waits
for in the kernel is not counted either.
"""

import os

_FILE = os.environ.pop("ECLUSE_LOOPWATCH", "")
_LIMIT = float(os.environ.pop("ECLUSE_LOOPWATCH_SECONDS", "0.02"))


def _watch() -> None:
    import asyncio.events
    import time

    plain = asyncio.events.Handle._run

    def run(self) -> None:
        began = time.thread_time()
        plain(self)
        took = time.thread_time() - began
        if took > _LIMIT:
            _write(f"{took * 1000:.1f} ms: {_words(self._callback)}\n")

    asyncio.events.Handle._run = run


def _words(callback) -> str:
    """Name a task with the chain of what it waits for after this step.

    Anything else as it shows itself.
    """
    task = getattr(callback, "__self__", None)
    coro = getattr(task, "get_coro", lambda: None)()
    names = []
    while coro is not None and len(names) < 12:
        frame = getattr(coro, "cr_frame", None)
        names.append(
            getattr(coro, "__qualname__", repr(coro))
            + (f":{frame.f_lineno}" if frame else " (ended)")
        )
        coro = getattr(coro, "cr_await", None)
    return " > ".join(names) or repr(callback)


def _write(line: str) -> None:
    handle = os.open(_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode("utf-8", "replace"))
    finally:
        os.close(handle)


if _FILE:
    _watch()
