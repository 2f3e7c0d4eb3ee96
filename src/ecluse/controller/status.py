"""Answers in words and figures, from what is known.

Pure, but for `StatusReader`, which gathers what they are made from.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import ip_address
from itertools import islice

from ecluse.alerts import Alert, Alerts
from ecluse.controller import live_state as ls
from ecluse.controller.live_state import CurrentState, LiveState, Use
from ecluse.errors import KernelError
from ecluse.name_advice import Knowledge, address_states, failures, name_states
from ecluse.policy import GATEWAY, Policy, Service
from ecluse.ports import CounterValue, Firewall, Links, SetReading
from ecluse.results import (
    Leak,
    Purge,
    Refused,
    RefusedFlow,
    SecondLockState,
    ServiceStatus,
    Status,
    TableUse,
    Tamper,
)
from ecluse.ruleset import table_names
from ecluse.zone_links import LinkReading


@dataclass(frozen=True, slots=True)
class Observations:
    """What the parts of the controller noticed, as of one moment.

    counters, last_packet: as `RegularLook` has them. bypasses: what a look at the machine found,
    in words.
    extensions: field of `Status` -> its value.
    """

    alerts: tuple[Alert, ...]
    in_step: bool
    checked: datetime
    counters: Mapping[str, CounterValue]
    last_packet: Mapping[str, datetime]
    purge: Purge | None
    tamper: Tamper | None
    leak: Leak | None
    bypasses: tuple[str, ...]
    tables: tuple[TableUse, ...]
    extensions: Mapping[str, object | None]
    recorded: bool
    second_lock: SecondLockState | None = None


class StatusReader:
    """Reads what an answer says, asking the kernel now.

    Args:
        live: the live state.
        firewall: the refused sets.
        links: the gateway's own addresses.
        look_at_kernel: compares the kernel with the live state, and reads counters. KernelError.
        look_at_links: reads the machine's links.
        count: reads the second lock's counters; it never raises, and never waits for long.
        tell_links: raises and clears alerts about the machine, by its links as just read.
        observe: collects what the parts of the controller noticed.
        knowledge: gives what is known of host names; called on a thread.
        notices: gives further warnings, in words; called on a thread.
        version: of this program.
        alerts: take what is wrong.
    """

    def __init__(
        self,
        *,
        live: LiveState,
        firewall: Firewall,
        links: Links,
        look_at_kernel: Callable[[], Awaitable[None]],
        look_at_links: Callable[[], Awaitable[LinkReading]],
        count: Callable[[], Awaitable[None]],
        tell_links: Callable[[LinkReading], None],
        observe: Callable[[], Observations],
        knowledge: Callable[[], Knowledge],
        notices: Callable[[], tuple[str, ...]],
        version: str,
        alerts: Alerts,
    ) -> None:
        self._live = live
        self._firewall = firewall
        self._links = links
        self._look_at_kernel = look_at_kernel
        self._look_at_links = look_at_links
        self._count = count
        self._tell_links = tell_links
        self._observe = observe
        self._knowledge = knowledge
        self._notices = notices
        self._version = version
        self._alerts = alerts

    async def read_status(self) -> Status:
        """Say where we are."""
        try:
            await self._look_at_kernel()
        except KernelError as error:
            # Who asks at night wants what is known all the same; `checked` says how old it is.
            self._alerts.raise_alert("kernel-not-compared", error=error.message)
        else:
            self._alerts.clear("kernel-not-compared")
        seen = await self._look_at_links()
        await self._count()
        self._tell_links(seen)
        live, observed = self._live.current, self._observe()

        def build() -> Status:
            notices, knowledge = self._notices(), self._knowledge()
            return status(live, observed, knowledge, self._version, seen=seen, notices=notices)

        # On a thread: a large allowlist takes its time.
        return await asyncio.to_thread(build)

    async def refused(self, limit: int) -> Refused:
        """Say who keeps trying to get out, most packets first, without names."""
        reading = await self._firewall.refused()
        local = await self._links.local_addresses()
        return await asyncio.to_thread(refused, reading, self._live.current.policy, local, limit)


_NO_PACKETS = CounterValue(0, 0)


def status(
    live: CurrentState,
    observed: Observations,
    knowledge: Knowledge,
    version: str,
    *,
    seen: LinkReading,
    notices: tuple[str, ...],
) -> Status:
    """Build the whole answer to 'where are we'.

    Args:
        live: the live state.
        observed: what the parts of the controller noticed.
        knowledge: what is known of host names.
        version: of this program.
        seen: the machine's links, as just read.
        notices: further warnings, in words.
    """
    generation = live.generation
    living = seen.living_zones(live.policy)
    states = ls.states(live.loaded, live.levels, living)
    services = tuple(
        _service(live, service, use, states[service.name], living, observed, knowledge)
        for service, use in zip(live.policy.services, live.loaded.uses, strict=True)
    )
    told = dict.fromkeys(one.text for one in observed.alerts)
    odd = (
        *seen.machine_warnings(live.policy, cut=ls.closed_somewhere(live.policy, live.levels)),
        *observed.bypasses,
    )
    warnings = (
        *told,
        *(text for text in odd if text not in told),
        *(f"{s.name}: {text}" for s in services for text in s.warnings),
        *notices,
    )
    return Status(
        site=live.policy.site.name,
        title=live.policy.site.title,
        version=version,
        levels=dict(live.levels),
        generation=generation.number,
        since=generation.at,
        by=generation.actor.user,
        reason=generation.reason,
        authorised_by=generation.authorised_by,
        armed=observed.in_step,
        in_step=observed.in_step,
        checked=observed.checked,
        recorded=observed.recorded,
        services=services,
        refused_packets=observed.counters.get(table_names.REFUSED_OUT, _NO_PACKETS).packets,
        refused_inbound_packets=observed.counters.get(table_names.REFUSED_IN, _NO_PACKETS).packets,
        purge=observed.purge,
        last_tamper=observed.tamper,
        last_leak=observed.leak,
        warnings=warnings,
        tables=observed.tables,
        alerts=observed.alerts,
        second_lock=observed.second_lock,
        **observed.extensions,  # type: ignore[arg-type]  # by the names of its fields
    )


def _service(
    live: CurrentState,
    service: Service,
    use: Use,
    state: str,
    living: ls.Living,
    observed: Observations,
    knowledge: Knowledge,
) -> ServiceStatus:
    counter = table_names.counter_name(service.name)
    value = observed.counters.get(counter, _NO_PACKETS)
    return ServiceStatus(
        name=service.name,
        title=service.title,
        criticality=service.criticality.value,
        owner=service.owner,
        contact=service.contact,
        state=state,
        zones=use.zones,
        kept_in=ls.kept_in(live.loaded, use, live.levels, living),
        packets=value.packets,
        bytes=value.bytes,
        last_packet=observed.last_packet.get(counter),
        addresses=tuple(address_states(service, knowledge)),
        review=service.review,
        warnings=tuple(failures(service, knowledge)),
        names=tuple(name_states(live.policy, service, knowledge)),
    )


def refused(reading: SetReading, policy: Policy, local: frozenset[str], limit: int) -> Refused:
    """Sort the kernel's refused sets: flows and machines, most packets first.

    local: the gateway's own addresses.
    """
    rows = sorted(reading.rows, key=lambda e: (-e.packets, e.source, e.destination, e.port))
    flows = islice((e for e in rows if e.destination), limit)
    sources = islice((e for e in rows if not e.destination), limit)
    return Refused(
        tuple(_with_zone(e, policy, local) for e in flows),
        tuple(_with_zone(e, policy, local) for e in sources),
        reading.full,
        unread=reading.unread,
    )


def _with_zone(flow: RefusedFlow, policy: Policy, local: frozenset[str]) -> RefusedFlow:
    zone = GATEWAY if flow.source in local else policy.site.zone_of(ip_address(flow.source))
    return replace(flow, zone=zone)
