"""The health query: a lost one is sent again, a silent proxy is a timeout."""

import asyncio

import dns.exception
import dns.message
import dns.rcode
import pytest

from ecluse.dnsproxy import health
from tests.golden.cases import HERE, compiled

POLICY, _ = compiled(HERE / "10-dns-gate")


class Engine(asyncio.DatagramProtocol):
    """Answers every question but the first few.

    older: how many it refuses, since they are about orders that it has not read.
    """

    def __init__(self, lost: int, older: int = 0) -> None:
        self.lost, self.older, self.asked = lost, older, list[dns.message.Message]()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self.asked.append(query)
        if len(self.asked) > self.lost:
            reply = dns.message.make_response(query)
            if len(self.asked) <= self.lost + self.older:
                reply.set_rcode(dns.rcode.REFUSED)
            self.transport.sendto(reply.to_wire(), addr)


async def asked(lost: int) -> tuple[Engine, dns.message.Message | None]:
    loop = asyncio.get_running_loop()
    transport, engine = await loop.create_datagram_endpoint(
        lambda: Engine(lost), local_addr=("127.0.0.1", 0)
    )
    try:
        return engine, await health.ask_health("word", transport.get_extra_info("sockname")[1], 0.5)
    except dns.exception.Timeout:
        return engine, None
    finally:
        transport.close()


@pytest.mark.parametrize("lost", [0, 1, health.ATTEMPTS - 1])
def test_what_is_lost_is_asked_again(lost: int):
    engine, reply = asyncio.run(asked(lost))
    assert reply is not None
    assert reply.rcode() == dns.rcode.NOERROR
    assert len(engine.asked) == lost + 1
    assert {(q.id, q.question[0].name.to_text()) for q in engine.asked} == {
        (reply.id, f"word.{health.HEALTH}.")
    }


def test_what_is_silent_is_said_to_be():
    engine, reply = asyncio.run(asked(1000))
    assert reply is None
    assert len(engine.asked) == health.ATTEMPTS
