"""A site with a DNS gate, and the same without one."""

import asyncio
from dataclasses import replace

from ecluse.dnsproxy.process_report import DnsReport
from ecluse.policy import DnsProxySettings
from tests.golden.cases import HERE, compiled
from tests.unit.controller.machine import Machine

DNS_POLICY, _ = compiled(HERE / "10-dns-gate")


DNS_PLAIN = replace(
    DNS_POLICY,
    site=replace(DNS_POLICY.site, dns=DnsProxySettings()),
    services=tuple(
        replace(
            s,
            destinations=tuple(
                replace(d, wildcards=(), hosts=("a.lab.example",)) for d in s.destinations
            ),
        )
        for s in DNS_POLICY.services
    ),
)


DNS_ZONES = DNS_POLICY.zone_names()


DNS_CUT, DNS_OPEN = dict.fromkeys(DNS_ZONES, "cut"), dict.fromkeys(DNS_ZONES, "open")


TELLS = DnsReport((), 1, 3, {}, 7, ())


def until(machine: Machine, true) -> None:
    async def wait():
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.01)

    machine.run(wait())
