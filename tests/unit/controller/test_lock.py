"""The lock: urgent ones first, the others in order, and never lost."""

import asyncio

from ecluse.controller.lock import PriorityLock, always, never


def test_whoever_is_urgent_has_the_lock_next_and_the_rest_in_order():
    async def work():
        writer, order = PriorityLock(), []

        async def one(name, urgent):
            async with writer.hold(urgent):
                order.append(name)
                await asyncio.sleep(0)

        async with writer.hold():
            tasks = [asyncio.ensure_future(one(n, never)) for n in "abc"]
            tasks += [asyncio.ensure_future(one(n, always)) for n in "XY"]
            await asyncio.sleep(0)
            assert writer.urgent_waiting.is_set()
            tasks[0].cancel()
            tasks[3].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["Y", "b", "c"]
        assert not writer.urgent_waiting.is_set()
        assert not writer.locked()

    asyncio.run(work())


def test_a_lock_that_was_handed_to_somebody_who_is_cancelled_goes_on():
    async def work():
        writer = PriorityLock()
        await writer.acquire()
        waiting = [asyncio.ensure_future(writer.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        writer._hand_over()
        waiting[0].cancel()
        async with asyncio.timeout(2):
            await waiting[1]
        assert waiting[0].cancelled()
        assert writer.locked()

    asyncio.run(work())
