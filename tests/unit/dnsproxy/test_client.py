"""The daemon's client: a new configuration, and whatever stands in the report's place."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ecluse.dnsproxy.client import REPORT, DnsProxyClient
from ecluse.dnsproxy.proxy_config import proxy_config_of
from tests.golden.cases import HERE, compiled
from tests.unit.dnsproxy.test_health import Engine

POLICY, _ = compiled(HERE / "10-dns-gate")


@pytest.mark.parametrize(
    ("older", "wrong"),
    [(0, ""), (4, ""), (1000, "it works by an older configuration")],
)
def test_a_gate_has_a_moment_to_take_up_new_orders(tmp_path, older: int, wrong: str):
    async def main() -> str:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Engine(0, older), local_addr=("127.0.0.1", 0)
        )
        try:
            client = DnsProxyClient(tmp_path, tmp_path)
            config = proxy_config_of(POLICY, dict.fromkeys(POLICY.zone_names(), "cut"))
            await client.publish(replace(config, port=transport.get_extra_info("sockname")[1]))
            return await client.check()
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
