"""Background tasks: one that fails raises an alert, is counted, and is begun again."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial

from ecluse.alerts import Alerts, error_text
from ecluse.errors import EcluseError

_FIRST, _LONGEST = 0.05, 5.0
"""Seconds before what failed is begun again: at once, then twice as long each time."""
_CALM = 60.0
"""Seconds without a fault after which what failed counts as well again."""

Work = Callable[[], Awaitable[object]]


class Supervisor:
    """Runs the tasks of the controller: some for ever, some at regular looks, some once."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._for_ever: set[asyncio.Task[object]] = set()
        self._aside: set[asyncio.Task[object]] = set()
        self._faults: Counter[str] = Counter()

    def run_for_ever(self, name: str, work: Work) -> None:
        """Have `work` done for ever: where it fails or ends it is begun again.

        name: in words, for `status`.
        """
        self._for_ever.add(asyncio.get_running_loop().create_task(self._repeat(name, work)))

    def run_aside(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Do something once, beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside_ended)
        return task

    def run_regularly(self, name: str, seconds: float, steps: Sequence[tuple[str, Work]]) -> None:
        """Do these steps one after the other, every so many seconds.

        Each step has a name; one that fails raises an alert, and the others are done all the same.
        """

        async def look() -> None:
            while True:
                await asyncio.sleep(seconds)
                for step, work in steps:
                    await self.contain(step, work)

        self.run_for_ever(name, look)

    @property
    def alive(self) -> bool:
        """Say whether what runs for ever is at work, or about to begin again."""
        return bool(self._for_ever) and not any(task.done() for task in self._for_ever)

    @property
    def busy(self) -> bool:
        """Say whether something is being done aside."""
        return bool(self._aside)

    async def end(self) -> None:
        """End everything."""
        tasks = [*self._for_ever, *self._aside]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def contain(self, name: str, work: Work) -> None:
        """Do something by its name; a fault is an alert until it goes well."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the rule of this module
            self.report_fault(name, error)
        else:
            self._report_well(name)

    def report_fault(self, name: str, error: BaseException) -> None:
        """Raise an alert: something failed. It stands for as long as that goes on failing."""
        self._faults[name] += 1
        count, why = self._faults[name], error_text(error)
        self._alerts.raise_alert("task-failed", key=name, task=name, error=why, count=count)

    def _report_well(self, name: str) -> None:
        self._alerts.clear("task-failed", key=name)

    async def _repeat(self, name: str, work: Work) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST
        while True:
            began, calm = loop.time(), loop.call_later(_CALM, self._report_well, name)
            try:
                await work()
                raise EcluseError("it came to an end")  # noqa: TRY301 - told as any other fault
            except Exception as error:  # noqa: BLE001 - the rule of this module
                self.report_fault(name, error)
            finally:
                calm.cancel()
            pause = _FIRST if loop.time() - began >= _CALM else min(2 * pause, _LONGEST)
            await asyncio.sleep(pause)

    def _aside_ended(self, task: asyncio.Task[object]) -> None:
        self._aside.discard(task)
        if task.cancelled():
            return
        coroutine = getattr(task.get_coro(), "__name__", "unnamed").strip("_").replace("_", " ")
        name = f"background work ({coroutine})"
        error = task.exception()
        if error is None:
            self._report_well(name)
            return
        self.report_fault(name, error)
        # It may never be done again, so that nothing would clear the alert. Nor does it work again.
        forget = partial(self._alerts.clear, "task-failed", key=name, quiet=True)
        task.get_loop().call_later(_CALM, forget)
