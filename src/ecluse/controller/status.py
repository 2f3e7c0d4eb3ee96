"""Answers in words and figures, from what is known.

Pure, but for `note_counters`, which remembers what it was shown.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_address
from itertools import islice

from ecluse.controller import live_state as lv
from ecluse.controller.context import Notes
from ecluse.controller.live_state import CurrentState, Use
from ecluse.dns_cache_advice import flush
from ecluse.flow_judge import protocol_name
from ecluse.name_advice import Knowledge, address_states, failures, name_states
from ecluse.policy import GATEWAY, DnsMode, Levels, Policy, Service, level_named
from ecluse.ports import CounterValue, RefusedElement, RefusedQuery, SetReading
from ecluse.records import Action, Generation
from ecluse.results import (
    DnsState,
    LimitedMachine,
    Refused,
    RefusedFlow,
    RefusedName,
    ServiceStatus,
    Status,
)
from ecluse.ruleset import dns_redirect, table_names
from ecluse.ruleset.compile import zones_by_service
from ecluse.zone_links import Sight

_DOMAINS = 5
"""Wildcards that one warning names."""
_MANY = 5
"""So many names under one domain are told as one."""
_TOLD, _NAMED = 10, 3
"""How many machines that ask too much are told of, and are named in the warning."""


def levels_text(levels: Levels) -> str:
    """Say levels in words: `every zone is at cut`, or each zone with its own."""
    values = set(levels.values())
    if len(values) == 1:
        return f"every zone is at {next(iter(values))}"
    return ", ".join(f"{zone} is at {level}" for zone, level in levels.items())


def change_text(generation: Generation) -> str:
    """Say what a change made live, and by whom."""
    what = {
        Action.ROLLBACK: f"went back to generation {generation.back_to}: ",
        Action.RELOAD: "took the files' allowlist: ",
    }.get(generation.action, "")
    reason = f" ({generation.reason})" if generation.reason else ""
    return f"{generation.actor.user} {what}{levels_text(generation.levels)}{reason}"


def note_counters(notes: Notes, counters: Mapping[str, CounterValue], now: datetime) -> None:
    """Remember when each counter was seen to rise; a counter that fell was made anew."""
    for name, value in counters.items():
        before = notes.counters.get(name)
        # On the first look a counter may have stood for long: when its last packet came is not
        # known then.
        if before is not None and value.packets and value.packets != before.packets:
            notes.last_packet[name] = now
    notes.counters = dict(counters)


def status(
    live: CurrentState,
    notes: Notes,
    knowledge: Knowledge,
    version: str,
    *,
    seen: Sight,
    waiting: tuple[str, ...],
    notices: tuple[str, ...],
) -> Status:
    """Build the whole answer to 'where are we'."""
    generation = live.generation
    living = seen.living(live.policy)
    states = lv.states(live.loaded, live.levels, living)
    services = tuple(
        _service(live, service, use, states[service.name], living, notes, knowledge)
        for service, use in zip(live.policy.services, live.loaded.uses, strict=True)
    )
    warnings = [*machine_warnings(notes, seen, live.policy, live.levels)]
    if not notes.in_step:
        warnings.insert(0, "the kernel does not show what it should; it is being put back")
    if waiting:
        warnings.insert(0, "not on disk yet: " + ", ".join(waiting))
    warnings += [one.what for one in notes.exits]
    gate = _dns(live, notes)
    if gate is not None and gate.limited:
        warnings.append(_limited_words(gate.limited, live.policy.site.dns.limits.client_queries))
    warnings += [f"{s.name}: {text}" for s in services for text in s.warnings]
    nothing = CounterValue(0, 0)
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
        armed=notes.in_step,
        in_step=notes.in_step,
        checked=notes.checked or knowledge.now,
        recorded=not waiting,
        services=services,
        refused_packets=notes.counters.get(table_names.REFUSED_OUT, nothing).packets,
        refused_inbound_packets=notes.counters.get(table_names.REFUSED_IN, nothing).packets,
        purge=notes.purges.get(generation.number),
        last_tamper=notes.tamper,
        last_leak=notes.leak,
        warnings=(*warnings, *notices),
        dns=gate,
        tables=notes.tables,
    )


def machine_warnings(notes: Notes, seen: Sight, policy: Policy, levels: Levels) -> tuple[str, ...]:
    """Say what is wrong on this machine for a policy at some levels: what was noticed, and what was
    seen of its links just now.
    """
    cut = not all(level_named(policy.site, level).passes_all for level in levels.values())
    return (*notes.warnings.values(), *seen.words(policy, cut=cut))


def stale_caches(before: Policy, left: Levels, policy: Policy, levels: Levels) -> tuple[str, ...]:
    """Say of which wildcards DNS servers inside may hold addresses that the DNS gate never learned,
    when zones come under it.

    before, left: the policy and levels until now. Such an address is refused until it is asked for
    anew.
    """
    come = {
        zone
        for zone in policy.zone_names()
        if zone != GATEWAY
        and dns_redirect.redirects(policy, levels, zone)
        and not (zone in left and dns_redirect.redirects(before, left, zone))
    }
    if not come:
        return ()
    known = tuple(s for s in policy.services if any(d.wildcards for d in s.destinations))
    used = zones_by_service(replace(policy, services=known))
    domains = dict.fromkeys(
        wildcard
        for service in known
        for zone in come.intersection(used[service.name])
        if service.criticality in level_named(policy.site, levels[zone]).keeps
        for destination in service.destinations
        for wildcard in destination.wildcards
    )
    if not domains:
        return ()
    some = ", ".join(f"*.{one}" for one in islice(domains, _DOMAINS))
    more = f" and {len(domains) - _DOMAINS} more" if len(domains) > _DOMAINS else ""
    each = "" if len(domains) == 1 else ", and so for each"
    said = (
        f"DNS servers and machines inside may hold addresses of {some}{more} from before, which the DNS gate never learned: "
        f"they are refused until they are asked for anew. Type on the servers: {flush(next(iter(domains)))}{each}"
    )
    return (said,)


def _dns(live: CurrentState, notes: Notes) -> DnsState | None:
    gate, told = live.policy.site.dns, notes.dns
    if gate.mode is DnsMode.NEVER:
        return None
    return DnsState(
        mode=gate.mode.value,
        working=notes.dns_works,
        learned=told.learned if told else 0,
        refused=told.refused if told else 0,
        strained=told.strained if told else {},
        removed=told.removed if told else 0,
        removed_last=told.removed_last if told else "",
        adopted=told.adopted if told else 0,
        limited=_limited(live.policy, notes.limited),
        validating=told.validating if told else (),
    )


def _limited(policy: Policy, elements: Iterable[RefusedElement]) -> tuple[LimitedMachine, ...]:
    """Say who asks the DNS gate too much; a server that is named under `internal` by now has no
    such bound.
    """
    servers = {str(server) for each in policy.site.dns.internal for server in each.servers}
    rows = sorted(elements, key=lambda e: (-e.packets, e.source))
    return tuple(
        LimitedMachine(e.source, policy.site.zone_of(ip_address(e.source)), e.packets, e.idle)
        for e in rows
        if e.source not in servers
    )[:_TOLD]


def _limited_words(machines: Sequence[LimitedMachine], most: int) -> str:
    """Say what the bound of one machine drops, and what to do about it."""
    named = [
        f"{one.source} ({'zone ' + one.zone if one.zone else 'no zone'}, {one.questions:,} questions)"
        for one in machines[:_NAMED]
    ]
    more = " and others" if len(machines) > _NAMED else ""
    return (
        f"the DNS gate drops what one machine asks beyond {most} questions a second, within the last hour of "
        f"{', '.join(named)}{more}. A DNS server of the inside loses kept names by it, for all machines behind it: name it "
        "in site.yaml (dns_gate: internal: servers), then type: ecluse reload. Any other machine that asks so much may be "
        "infected"
    )


def _service(
    live: CurrentState,
    service: Service,
    use: Use,
    state: str,
    living: lv.Living,
    notes: Notes,
    knowledge: Knowledge,
) -> ServiceStatus:
    counter = table_names.counter(service.name)
    value = notes.counters.get(counter, CounterValue(0, 0))
    return ServiceStatus(
        name=service.name,
        title=service.title,
        criticality=service.criticality.value,
        owner=service.owner,
        contact=service.contact,
        state=state,
        zones=use.zones,
        kept_in=lv.kept_in(live.loaded, use, live.levels, living),
        packets=value.packets,
        bytes=value.bytes,
        last_packet=notes.last_packet.get(counter),
        addresses=tuple(address_states(service, knowledge)),
        review=service.review,
        warnings=tuple(failures(service, knowledge)),
        names=tuple(name_states(live.policy, service, knowledge)),
    )


def refused_names(
    questions: Iterable[RefusedQuery], policy: Policy, now: datetime
) -> Iterator[RefusedName]:
    """Say what the DNS gate refused, with the zone of who asked, and how long ago."""
    for one in _gathered(questions):
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


def _gathered(questions: Iterable[RefusedQuery]) -> Iterable[RefusedQuery]:
    """Make one of many names under one domain that a machine asked for: a tunnel asks for each but
    once.
    """
    families: dict[tuple[str, str, str], list[RefusedQuery]] = {}
    for one in questions:
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


def refused(evidence: SetReading, policy: Policy, local: frozenset[str], limit: int) -> Refused:
    """Sort the kernel's evidence: flows and machines, most packets first.

    local: the gateway's own addresses.
    """
    rows = sorted(evidence.rows, key=lambda e: (-e.packets, e.source, e.destination, e.port))
    flows = islice((e for e in rows if e.destination), limit)
    sources = islice((e for e in rows if not e.destination), limit)
    return Refused(
        tuple(_refused_flow(e, policy, local) for e in flows),
        tuple(_refused_flow(e, policy, local) for e in sources),
        evidence.full,
        unread=evidence.unread,
    )


def _refused_flow(element: RefusedElement, policy: Policy, local: frozenset[str]) -> RefusedFlow:
    zone = GATEWAY if element.source in local else policy.site.zone_of(ip_address(element.source))
    return RefusedFlow(
        source=element.source,
        destination=element.destination,
        protocol=protocol_name(element.protocol) if element.destination else "",
        port=element.port,
        packets=element.packets,
        bytes=element.bytes,
        last=element.idle,
        zone=zone,
    )
