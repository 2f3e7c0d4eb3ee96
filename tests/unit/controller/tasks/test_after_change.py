"""What follows a change: in order, told where it fails, and never in the way of the answer."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from ecluse.controller.tasks.after_change import AfterChange
from ecluse.errors import KernelError
from ecluse.records import Action, Generation
from tests.unit.controller.machine import CUT, WHO

AT = datetime(2026, 1, 1, tzinfo=UTC)
GENERATION = Generation(7, AT, Action.LEVEL, CUT, "sha256:p", "sha256:r", WHO, "", "", 6)


class World:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.refusal: KernelError | None = None
        self.tasks: list[asyncio.Task] = []

    @asynccontextmanager
    async def hold_lock(self):
        self.done.append("lock")
        yield
        self.done.append("unlock")

    async def prune(self) -> None:
        self.done.append("prune")
        if self.refusal:
            raise self.refusal

    def step(self, name):
        async def work(*_):
            self.done.append(name)

        return work

    def part(self) -> AfterChange:
        return AfterChange(
            hold_lock=self.hold_lock,
            run_aside=lambda work: self.tasks.append(asyncio.create_task(work)),
            on_change=(lambda: self.done.append("dns"),),
            announce_purge=lambda generation: self.done.append(f"purge of {generation.number}"),
            purge=self.step("purge"),
            prune=self.prune,
            prepare_files=self.step("files"),
            keep_previous_ready=self.step("previous"),
            emit=lambda kind, text: self.events.append((kind, text)),
            at_last=lambda: self.done.append("flowtable"),
        )


@pytest.fixture
def world():
    return World()


async def test_at_once_only_what_follows_the_state_is_told(world):
    world.part().begin(GENERATION)
    assert world.done == ["dns", "purge of 7"]
    await asyncio.gather(*world.tasks)
    assert world.done[2:] == ["purge", "lock", "prune", "unlock", "files", "previous", "flowtable"]
    assert world.events == []


async def test_policies_that_cannot_be_taken_out_keep_nothing_else_from_its_turn(world):
    world.refusal = KernelError("busy")
    world.part().begin(GENERATION)
    await asyncio.gather(*world.tasks)
    assert world.done[-3:] == ["files", "previous", "flowtable"]
    ((kind, text),) = world.events
    assert (kind, text[-4:]) == ("warning", "busy")
