"""Background work that nothing ends for good: what fails is told, counted, and begun again."""

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

from ecluse.controller.context import Context
from ecluse.errors import EcluseError

_FIRST, _LONGEST = 0.05, 5.0
"""Seconds before what failed is begun again: at once, then twice as long each time."""
_CALM = 60.0
"""Seconds without a fault after which what failed counts as well again."""


class Supervisor:
    """The tasks of the controller. A watch is to run for ever; work aside is done once."""

    def __init__(self, shared: Context) -> None:
        self._s = shared
        self._watches: set[asyncio.Task[object]] = set()
        self._aside: set[asyncio.Task[object]] = set()
        self._faults: Counter[str] = Counter()

    def keep(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Have `work` done for ever: where it fails or ends it is begun again.

        name: in words, for `status`.
        """
        self._watches.add(asyncio.get_running_loop().create_task(self._for_ever(name, work)))

    def aside(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Do something once, beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside_ended)
        return task

    @property
    def alive(self) -> bool:
        """Say whether the watches are all at work, or about to begin again."""
        return bool(self._watches) and not any(task.done() for task in self._watches)

    @property
    def busy(self) -> bool:
        """Say whether something is being done aside."""
        return bool(self._aside)

    async def end(self) -> None:
        """End everything."""
        tasks = [*self._watches, *self._aside]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def contained(self, name: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Do one piece of a watch; what fails is told, and the others' turn comes all the same.

        False when it failed.
        """
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the rule of this module
            self.fault(name, error, "it is tried again")
            return False
        self.well(name)
        return True

    def fault(self, name: str, error: BaseException, then: str) -> None:
        """Tell that something failed, once for as long as it goes on failing.

        then: what becomes of it, in words.
        """
        self._faults[name] += 1
        topic = f"task {name}"
        text = f"{name} failed ({in_words(error)}); {then}"
        if topic not in self._s.notes.warnings:
            self._s.say("warning", text)
        count = self._faults[name]
        self._s.notes.warnings[topic] = text + (
            f" ({count} times since the start)" if count > 1 else ""
        )

    def well(self, name: str) -> None:
        """Take note that it works again."""
        if self._s.notes.warnings.pop(f"task {name}", None):
            self._s.say("warning", f"{name} works again")

    async def _for_ever(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST
        while True:
            began, calm = loop.time(), loop.call_later(_CALM, self.well, name)
            try:
                await work()
                raise EcluseError("it came to an end")  # noqa: TRY301 - told as any other fault
            except Exception as error:  # noqa: BLE001 - the rule of this module
                self.fault(name, error, "the gate holds, and it was begun again")
            finally:
                calm.cancel()
            pause = _FIRST if loop.time() - began >= _CALM else min(2 * pause, _LONGEST)
            await asyncio.sleep(pause)

    def _aside_ended(self, task: asyncio.Task[object]) -> None:
        self._aside.discard(task)
        if task.cancelled():
            return
        coroutine = task.get_coro()
        name = f"background work ({getattr(coroutine, '__name__', 'unnamed').strip('_').replace('_', ' ')})"
        error = task.exception()
        if error is None:
            self.well(name)
            return
        self.fault(name, error, "the gate holds, and it is done again when it is next due")
        task.get_loop().call_later(_CALM, self._s.notes.warnings.pop, f"task {name}", None)


def in_words(error: BaseException) -> str:
    """Say what went wrong; where nobody foresaw it, with the place."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, EcluseError):
        return error.message
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{type(error).__name__}: {error}" + "".join(
        f", {Path(x.filename).name}:{x.lineno}" for x in last
    )
