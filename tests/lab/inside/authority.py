"""An authoritative server that fails as it is told.

`python -m tests.lab.inside.authority FILE ADDRESS...`.

Answers on port 5353 of each address. FILE, read for every question, is JSON: address -> name
-> how to answer, a word of WAYS with its arguments: `["records", [OWNER, TTL, ADDRESS or ALIAS],
...]`, `["rcode", "SERVFAIL"]`.
"""

import asyncio
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.rcode

from tests.unit.resolve import server

PORT = 5353
_turns: defaultdict[tuple[str, int], Iterator[int]] = defaultdict(itertools.count)


def _rotate(name: str, ttl: int, size: int, *pool: str) -> Callable:
    """Answer with the next `size` addresses of the pool, the same for every client.

    One count for each name and type: with one for all, the questions between two of ours may always
    be as many as make the same addresses come again, and half of the pool is never seen.
    """

    def behaviour(query: Any, transport: str) -> Any:
        first = next(_turns[name, query.question[0].rdtype]) * size
        some = [pool[(first + n) % len(pool)] for n in range(size)]
        return server.records(*((name, ttl, address) for address in some))(query, transport)

    return behaviour


WAYS: dict[str, Callable] = {
    "records": server.records,
    "rcode": lambda word: server.rcode(dns.rcode.from_text(word)),
    "silence": lambda: server.drop,
    "garbage": lambda: server.truncated_on_udp(
        lambda q, t: server.framed(b"garbage that is no message")
    ),
    "long": lambda *rows: server.truncated_on_udp(server.records(*rows)),
    "rotate": _rotate,
}


class _Told:
    """Answers by name, as the file says now."""

    def __init__(self, file: Path, address: str) -> None:
        self._file, self._address = file, address

    def get(self, name: str, default: Callable) -> Callable:
        told = json.loads(self._file.read_text(encoding="utf-8")).get(self._address, {})
        if name not in told:
            return default
        way, *arguments = told[name]
        return WAYS[way](*arguments)


async def main(file: Path, addresses: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for address in addresses:
            group.create_task(_serve(file, address))


async def _serve(file: Path, address: str) -> None:
    async with server.Server(address, PORT) as one:
        one.answers = _Told(file, address)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
