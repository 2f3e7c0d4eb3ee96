"""Bodies that are odd, and answers that are long."""

from ecluse.api.wire import GenerationDetail, Generations, Services, to_json, to_json_in_pieces
from ecluse.results import Plan, Refused, Status
from tests.unit.api.fake_controller import FakeController
from tests.unit.api.harness import (
    ask,
    running,
)


async def test_a_reason_never_stops_a_cut():
    async with running() as (commands, path, *_):
        status, _, _ = await ask(
            path, "POST", "/v1/level", {"level": "cut", "reason": "a\x00b\r\n\u202ec  d"}
        )
        assert (status, commands.calls[-1][4]) == (200, "a b c d")


async def test_what_is_written_in_pieces_is_what_is_written_whole():
    commands = FakeController()
    plan = await commands.plan(level=None, zones=None, rollback=None, reload=True)
    for value, kind in (
        (await commands.status(), Status),
        (Services(await commands.services()), Services),
        (Generations(commands.generations()), Generations),
        (GenerationDetail(commands.generation(1), None), GenerationDetail),
        (await commands.refused(10), Refused),
        (plan, Plan),
    ):
        assert to_json_in_pieces(value, kind) == to_json(value, kind)
