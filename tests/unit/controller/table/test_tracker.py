"""The accounting of generation ids: each of the states that the module names, and what ends it."""

import asyncio

import pytest

from ecluse.controller.table.tracker import TableTracker


class Kernel:
    """A generation id, the looks of our table, and how often they were read."""

    def __init__(self) -> None:
        self.generation = 40
        self.looks = {"": "rules", "k1_far": "elements"}
        self.reads = 0
        self.while_read = lambda: None

    async def ruleset_generation(self) -> int:
        return self.generation

    async def fingerprint(self, sets=None) -> dict[str, str]:
        self.reads += 1
        found = {k: v for k, v in self.looks.items() if sets is None or k in sets}
        self.while_read()
        return found


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
def tracker(kernel):
    return TableTracker(kernel)


def ours(kernel, tracker, changed=None):
    kernel.generation += 1
    kernel.looks |= changed or {}
    tracker.count_commit()


def theirs(kernel, changed=None):
    kernel.generation += 1
    kernel.looks |= changed or {}


async def shown() -> bool:
    return True


async def settled(kernel, tracker) -> None:
    """Bring it to READ: confirmed, and its looks known."""
    await tracker.rebase()
    assert await tracker.read_back()
    assert not tracker.unsure


async def test_nothing_is_expected_before_an_id_is_confirmed(kernel, tracker):
    assert tracker.expected() is None
    assert tracker.unsure
    assert not await tracker.in_step(shown)
    await tracker.rebase()
    assert tracker.expected() == 40
    assert tracker.unread.is_set()
    assert tracker.unsure


async def test_our_own_commits_are_expected_and_cost_no_reading(kernel, tracker):
    await settled(kernel, tracker)
    for _ in range(3):
        ours(kernel, tracker)
    assert tracker.expected() == kernel.generation
    tracker.confirm(kernel.generation)
    assert await tracker.in_step(shown)
    assert kernel.reads == 1


async def test_an_id_that_is_not_expected_is_not_confirmed(kernel, tracker):
    await settled(kernel, tracker)
    theirs(kernel)
    tracker.confirm(kernel.generation)
    assert tracker.expected() == kernel.generation - 1


async def test_a_foreign_commit_that_was_announced_as_harmless_costs_no_reading(kernel, tracker):
    await settled(kernel, tracker)
    for _ in range(5):
        theirs(kernel)
        tracker.ignore_foreign(kernel.generation)
        assert await tracker.in_step(shown)
    assert kernel.reads == 1
    assert len(tracker._foreign) <= 1, "what is counted off is forgotten"


async def test_one_that_was_not_announced_is_read_and_believed_if_nothing_differs(kernel, tracker):
    await settled(kernel, tracker)
    theirs(kernel)
    assert await tracker.in_step(shown)
    assert kernel.reads == 2
    assert tracker.expected() == kernel.generation


async def test_one_that_changed_our_table_is_found_and_stays_found(kernel, tracker):
    await settled(kernel, tracker)
    theirs(kernel, {"": "other rules"})
    assert not await tracker.in_step(shown)
    assert not await tracker.in_step(shown)


async def test_a_switch_that_shows_something_else_is_found_without_reading_the_table(
    kernel, tracker
):
    async def not_shown() -> bool:
        return False

    await settled(kernel, tracker)
    theirs(kernel)
    assert not await tracker.in_step(not_shown)
    assert kernel.reads == 1


async def test_a_foreign_commit_between_two_of_ours_makes_the_table_unsound(kernel, tracker):
    await settled(kernel, tracker)
    ours(kernel, tracker)
    theirs(kernel)
    ours(kernel, tracker)
    await tracker.rebase()
    assert tracker.unsure
    assert not await tracker.in_step(shown), "although its id is the confirmed one"
    assert await tracker.read_back(), "there is nothing to learn from its looks"
    assert tracker.unsure


async def test_a_restoration_ends_that_and_a_foreign_commit_during_it_does_not(kernel, tracker):
    await settled(kernel, tracker)
    theirs(kernel)
    await tracker.rebase()
    assert not await tracker.in_step(shown)
    mark = await tracker.mark()
    ours(kernel, tracker, {"": "our rules again"})
    tracker.resume(mark)
    await tracker.rebase()
    assert await tracker.in_step(shown)
    mark = await tracker.mark()
    ours(kernel, tracker)
    theirs(kernel)
    tracker.resume(mark)
    await tracker.rebase()
    assert not await tracker.in_step(shown)


async def test_looks_that_were_read_while_somebody_committed_are_read_again(kernel, tracker):
    await tracker.rebase()
    kernel.while_read = lambda: theirs(kernel)
    assert not await tracker.read_back()
    assert tracker.unread.is_set()
    assert tracker.unsure
    kernel.while_read = lambda: None
    theirs(kernel)
    assert not await tracker.read_back(), "nobody told that these left our table alone"
    for generation in range(41, kernel.generation + 1):
        tracker.ignore_foreign(generation)
    assert await tracker.read_back()
    assert not tracker.unsure


async def test_before_a_commit_of_ours_theirs_are_counted_in_by_reading(kernel, tracker):
    await settled(kernel, tracker)
    theirs(kernel)
    await tracker.catch_up()
    ours(kernel, tracker)
    assert tracker.expected() == kernel.generation
    theirs(kernel, {"": "other rules"})
    await tracker.catch_up()
    ours(kernel, tracker)
    assert tracker.expected() == kernel.generation - 1, "that one shows for ever"


async def test_sets_that_we_changed_are_read_and_the_rest_is_kept(kernel, tracker):
    await settled(kernel, tracker)
    ours(kernel, tracker, {"k1_far": "new elements"})
    kernel.looks[""] = "changed by a commit that nobody counted"
    await tracker.read_sets({"k1_far"})
    assert tracker._digests == {"": "rules", "k1_far": "new elements"}
    theirs(kernel)
    assert not await tracker.in_step(shown)


async def test_a_commit_that_changes_no_looks_is_confirmed_where_it_is_alone(kernel, tracker):
    await settled(kernel, tracker)
    kernel.generation += 1
    await tracker.confirm_commit()
    assert await tracker.in_step(shown)
    ours(kernel, tracker)
    kernel.generation += 1
    await tracker.confirm_commit()
    assert tracker.expected() == kernel.generation
    assert tracker._commits == 2, "the one before it is not read back yet"


async def test_an_announcement_is_waited_for_only_while_the_looks_are_unknown(kernel, tracker):
    await tracker.rebase()
    theirs(kernel)

    async def announce() -> None:
        await asyncio.sleep(0.015)
        tracker.ignore_foreign(kernel.generation)

    announcing = asyncio.create_task(announce())
    await tracker.wait_for_announcements()
    assert announcing.done()
    assert tracker.expected() == kernel.generation
