"""The DNS proxy's part of the daemon: its configuration, its alerts, its part of the status.

The proxy is a process of its own, and the kernel has the redirect: nothing here stands in the way
of a question.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from ipaddress import ip_address
from types import MappingProxyType

from ecluse.accounts import Accounts
from ecluse.alerts import AlertKind, Severity
from ecluse.dnsproxy.client import DnsProxyClient
from ecluse.dnsproxy.process_report import DnsReport, RefusedQuery
from ecluse.dnsproxy.proxy_config import proxy_config_of
from ecluse.errors import EcluseError
from ecluse.extension import Environment
from ecluse.policy import DnsMode, Policy
from ecluse.ports import CounterValue
from ecluse.results import DnsState, LimitedMachine, RefusedFlow, RefusedName
from ecluse.ruleset.dns_redirect import is_on
from ecluse.ruleset.table_names import DNS_LIMITED

_EVERY = 1.5
"""Seconds between two checks; a proxy that is dead or hangs is told of after two at the latest."""
_MANY = 5
"""So many names under one domain are one row."""
_LISTED, _NAMED = 10, 3
"""How many machines that ask too much the status lists, and the alert names."""

DNS_ALERTS: Mapping[str, AlertKind] = MappingProxyType(
    {
        "dns-client-limit": AlertKind(
            Severity.WARNING,
            "the DNS gate drops what one machine asks beyond {limit} questions a second, within "
            "the last hour of {machines}. A DNS server of the inside loses kept names by it, for "
            "all machines behind it: name it in site.yaml (dns_gate: internal: servers), then "
            "type: ecluse reload. Any other machine that asks so much may be infected",
            cleared="within the last hour no machine asked the DNS gate too much",
        ),
        "dns-failed": AlertKind(
            Severity.CRITICAL,
            "the DNS gate: {problem}; what has an address already goes on, names are not answered",
            cleared="the DNS gate works again",
            cleared_event="dns",
        ),
        "dns-no-user": AlertKind(
            Severity.CRITICAL,
            "the DNS gate: this machine has no user for it: see dns_user in ecluse.toml",
            cleared="the DNS gate has a user again",
            cleared_event="dns",
        ),
        "dns-not-checked": AlertKind(
            Severity.CRITICAL,
            "the DNS gate: {error}",
            cleared="the DNS gate can be checked again",
            cleared_event="dns",
        ),
        "dns-trouble": AlertKind(
            Severity.WARNING,
            "the DNS gate: {trouble}",
            cleared="the DNS gate is without trouble again",
            cleared_event="dns",
        ),
    }
)
"""Alerts of the DNS proxy (`Alerts.register`)."""


_NO_REPORT = DnsReport(trouble=(), starts=0, learned=0, filtered={}, refused=0, questions=())


def make_part(environment: Environment) -> "DnsProxyPart":
    """Make the part, with a client of the real process."""
    settings = environment.settings
    proxy = DnsProxyClient(settings.run_dir, settings.dns_dir)
    return DnsProxyPart(environment, proxy, has_user=Accounts().uid(settings.dns_user) is not None)


class DnsProxyPart:
    """Configures the proxy whenever levels or names change, and says within seconds if it fails.

    proxy: the process. has_user: this machine has a user for it.
    """

    def __init__(self, environment: Environment, proxy: DnsProxyClient, *, has_user: bool) -> None:
        self._policy, self._levels = environment.policy, environment.levels
        self._firewall, self._clock = environment.firewall, environment.clock
        self._alerts, self._emit = environment.alerts, environment.emit
        self._proxy = proxy
        self._has_user = has_user
        self.alerts = DNS_ALERTS
        self.routes = ()
        self.tasks = {"looking after the DNS gate": self.run}
        self._changed = asyncio.Event()
        self._works = False
        self._report: DnsReport | None = None
        self._limited: tuple[LimitedMachine, ...] = ()

    def wake(self) -> None:
        """Configure the proxy at once: levels or names changed."""
        self._changed.set()

    async def run(self) -> None:
        """Configure and check until cancelled."""
        while True:
            self._changed.clear()
            await self._check()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._changed.wait()

    async def _check(self) -> None:
        """Publish the configuration and check the proxy.

        One that answers may have other trouble, such as a full disk.
        """
        policy, alerts = self._policy(), self._alerts
        try:
            await self._proxy.publish(proxy_config_of(policy, self._levels()))
            on = is_on(policy)
            problem = await self._proxy.check() if on and self._has_user else ""
            before, report = self._report, await self._proxy.report() if on else None
        except EcluseError as error:
            self._works = False
            alerts.raise_alert("dns-not-checked", error=error.message)
            return
        alerts.clear("dns-not-checked")
        self._works = not on or (self._has_user and not problem)
        if on and not self._has_user:
            alerts.raise_alert("dns-no-user")
            return
        alerts.clear("dns-no-user")
        if problem:
            alerts.raise_alert("dns-failed", problem=problem)
        else:
            alerts.clear("dns-failed")
        if report and report.trouble:
            alerts.raise_alert("dns-trouble", trouble="; ".join(report.trouble))
        else:
            alerts.clear("dns-trouble")
        if on:
            self._report = report
            self._emit_foreign_addresses(before, report)

    def _emit_foreign_addresses(self, before: DnsReport | None, now: DnsReport | None) -> None:
        """Tell what the process found in its sets that it never learned.

        It counts from its start.
        """
        if now is None:
            return
        if now.removed and (before is None or now.removed != before.removed):
            self._emit(
                "warning",
                f"the DNS gate took {now.removed} of somebody else's addresses out of its sets by "
                f"now, the newest: {now.removed_last}",
            )
        if now.adopted and (before is None or now.adopted != before.adopted):
            self._emit(
                "warning",
                f"the DNS gate's record was lost: {now.adopted} addresses in its sets are kept "
                "that nothing tells of",
            )

    # -- its part of the status --------------------------------------------------------------------

    async def read_counters(self, counters: Mapping[str, CounterValue]) -> None:
        """Read which machines ask too much, if the counter of what was dropped says that some do.

        counters: the table's counters, as they were just read.
        """
        dropped = counters.get(DNS_LIMITED)
        rows = (await self._firewall.limited()).rows if dropped and dropped.packets else ()
        policy = self._policy()
        self._limited = limited_machines(policy, rows)
        if self._limited and policy.site.dns.mode is not DnsMode.NEVER:
            self._alerts.raise_alert(
                "dns-client-limit",
                limit=policy.site.dns.limits.client_queries,
                machines=_machines_text(self._limited),
            )
        else:
            self._alerts.clear("dns-client-limit")

    def state(self) -> DnsState | None:
        """Give its part of the status, None where the site has no DNS proxy."""
        settings, report = self._policy().site.dns, self._report or _NO_REPORT
        if settings.mode is DnsMode.NEVER:
            return None
        return DnsState(
            mode=settings.mode.value,
            working=self._works,
            learned=report.learned,
            refused=report.refused,
            strained=report.filtered,
            removed=report.removed,
            removed_last=report.removed_last,
            adopted=report.adopted,
            limited=self._limited,
            validating=report.validating,
        )

    async def refused_names(self) -> tuple[tuple[RefusedName, ...], int]:
        """Give the names that were asked for in vain, and how many rows could not be read."""
        policy = self._policy()
        report = await self._proxy.report() if is_on(policy) else None
        if report is None:
            return (), 0
        return tuple(refused_names(report.questions, policy, self._clock())), report.unread


def limited_machines(policy: Policy, elements: Iterable[RefusedFlow]) -> tuple[LimitedMachine, ...]:
    """Give the machines that ask too much, the worst first.

    A server that is named under `internal` by now has no such bound.
    """
    servers = {str(server) for each in policy.site.dns.internal for server in each.servers}
    rows = sorted(elements, key=lambda e: (-e.packets, e.source))
    return tuple(
        LimitedMachine(e.source, policy.site.zone_of(ip_address(e.source)), e.packets, e.last)
        for e in rows
        if e.source not in servers
    )[:_LISTED]


def _machines_text(machines: Sequence[LimitedMachine]) -> str:
    named = [
        f"{one.source} ({'zone ' + one.zone if one.zone else 'no zone'}, "
        f"{one.questions:,} questions)"
        for one in machines[:_NAMED]
    ]
    return ", ".join(named) + (" and others" if len(machines) > _NAMED else "")


def refused_names(
    queries: Iterable[RefusedQuery], policy: Policy, now: datetime
) -> Iterator[RefusedName]:
    """Say what the DNS proxy refused, with the zone of the machine that asked, and how long ago."""
    for one in _by_domain(queries):
        idle = max(0, int(now.timestamp() - one.last))
        yield RefusedName(
            one.client,
            policy.site.zone_of(ip_address(one.client)),
            one.name,
            one.type,
            one.why,
            one.times,
            idle,
        )


def _by_domain(queries: Iterable[RefusedQuery]) -> Iterable[RefusedQuery]:
    """Make one row of many names under one domain that a machine asked for.

    A tunnel asks for each of its names but once.
    """
    families: dict[tuple[str, str, str], list[RefusedQuery]] = {}
    for one in queries:
        families.setdefault((one.client, one.name.partition(".")[2], one.why), []).append(one)
    rows: list[RefusedQuery] = []
    for (client, domain, why), every in families.items():
        if len(every) < _MANY or "." not in domain:
            rows += every
            continue
        kinds, times = {one.type for one in every}, sum(one.times for one in every)
        last = max(one.last for one in every)
        rows.append(RefusedQuery(client, f"*.{domain}", ", ".join(sorted(kinds)), why, times, last))
    return sorted(rows, key=lambda one: (-one.times, one.client, one.name))
