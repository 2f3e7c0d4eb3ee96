"""The gate's question about itself: what a full queue loses is asked again; what is silent is
silent.
"""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import dns.exception
import dns.message
import dns.rcode
import pytest

from ecluse.dnsproxy import health
from ecluse.dnsproxy.client import REPORT, DnsProxyClient
from ecluse.ruleset.proxy_config import proxy_config_of
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


@pytest.mark.parametrize(("older", "wrong"), [(0, ""), (4, ""), (1000, "it works by older orders")])
def test_a_gate_has_a_moment_to_take_up_new_orders(tmp_path, older: int, wrong: str):
    async def main() -> str:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Engine(0, older), local_addr=("127.0.0.1", 0)
        )
        try:
            mailbox = DnsProxyClient(tmp_path, tmp_path)
            orders = proxy_config_of(POLICY, dict.fromkeys(POLICY.zone_names(), "cut"))
            await mailbox.publish(replace(orders, port=transport.get_extra_info("sockname")[1]))
            return await mailbox.check()
        finally:
            transport.close()

    assert asyncio.run(main()) == wrong


def _link(file: Path) -> None:
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        _link,
        lambda file: os.truncate(os.open(file, os.O_CREAT | os.O_WRONLY), 1 << 40),
        lambda file: file.write_text("[" * 100_000),
    ],
    ids=["fifo", "link", "large", "deep"],
)
def test_whatever_stands_in_the_reports_place_is_no_report(tmp_path, put):
    """It is user ecluse-dns's to write, and the daemon's to read."""
    put(tmp_path / REPORT)
    assert asyncio.run(asyncio.wait_for(DnsProxyClient(tmp_path, tmp_path).report(), 10)) is None
