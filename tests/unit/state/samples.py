"""A small site and its records, as values."""

import dataclasses
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_network

from ecluse.policy import (
    CUT,
    ISOLATE,
    OPEN,
    Criticality,
    Destination,
    Direction,
    Lifeline,
    Policy,
    Preset,
    Service,
    Site,
    Traffic,
    Zone,
)
from ecluse.records import Action, Actor, AuditRecord, Generation, KnownAddress, KnownName
from ecluse.state.codec import policy_digest

NOW = datetime(2026, 3, 4, 3, 0, 5, 123000, tzinfo=UTC)
ACTOR = Actor(uid=1000, user="garde", pid=4242, command="ecluse cut", login=1000)

SITE = Site(
    name="hopital",
    title="Hôpital d'Écluse",
    zones=(
        Zone(
            "care",
            "Care",
            ("eth1", "vlan*"),
            (ip_network("10.10.0.0/24"), ip_network("2001:db8:10::/64")),
        ),
    ),
    lifeline=Lifeline(
        (ip_network("10.99.0.0/24"),), (Traffic(6, 22, 22),), (Preset.DHCP, Preset.ND)
    ),
    resolvers=(
        ip_network("203.0.113.53/32").network_address,
        ip_network("2001:db8::53/128").network_address,
    ),
    levels=(OPEN, CUT, ISOLATE),
)
LAB = Service(
    name="lab",
    title="Laboratory",
    owner="biology",
    contact="01 00 00 00 00",
    criticality=Criticality.VITAL,
    zones=("care",),
    hosts=(ip_network("10.10.0.7/32"),),
    destinations=(
        Destination(
            Direction.OUTBOUND,
            ("lab.example",),
            (ip_network("203.0.113.10/32"),),
            (Traffic(6, 443, 443),),
        ),
        Destination(Direction.INBOUND, (), (ip_network("2001:db8:99::/48"),), (Traffic(50),)),
    ),
    review=date(2027, 1, 1),
    note="résultats",
)
POLICY = Policy(SITE, (LAB,))
OTHER_POLICY = Policy(SITE, (LAB, dataclasses.replace(LAB, name="bank", review=None)))
PROGRAM = "table inet ecluse {\n\tchain k1_open {\n\t\taccept\n\t}\n}\n"
GATE = "add chain inet ecluse k1_gate\nflush chain inet ecluse k1_gate\n"
OPEN_LEVELS = {"care": "open", "gateway": "open"}
CUT_LEVELS = {"care": "cut", "gateway": "cut"}
GATES = {"open": GATE, "cut": GATE + "# cut\n", "isolate": GATE + "# isolate\n"}


def generation(number, levels=OPEN_LEVELS, policy=POLICY, **changes):
    values = {
        "number": number,
        "at": NOW + timedelta(minutes=number),
        "action": Action.LEVEL if number > 1 else Action.START,
        "levels": dict(levels),
        "policy": policy_digest(policy),
        "ruleset": "sha256:" + "0" * 64,
        "actor": ACTOR,
        "reason": "attaque en cours",
        "authorised_by": "directrice de garde",
        "previous": number - 1,
    }
    return Generation(**{**values, **changes})


def names():
    address = KnownAddress("203.0.113.10", NOW, NOW + timedelta(seconds=300))
    rich = replace(address, address="203.0.113.11", ttl=300, by=("192.0.2.53",), left=NOW, used=NOW)
    return {
        "web.example": KnownName("web.example", (rich,), NOW, "", NOW, "front.example"),
        "lab.example": KnownName("lab.example", (address,), NOW, ""),
        "bank.example": KnownName("bank.example", (), None, "SERVFAIL"),
    }


def audit_record(**changes):
    values = {
        "event": "level",
        "actor": ACTOR,
        "what": "level cut in every zone",
        "reason": "attaque",
    }
    return AuditRecord(**{**values, **changes})


def fill(store, audit, last=3):
    """Play a short life: start open, then cut, each change whole."""
    store.recover()
    program = store.write_program(PROGRAM, GATES)
    store.write_closed("table inet ecluse {\n}\n")
    for number in range(1, last + 1):
        levels = OPEN_LEVELS if number == 1 else CUT_LEVELS
        store.write_policy(POLICY)
        this = generation(number, levels)
        store.write_intent(this)
        store.point_boot(program, GATE, this)
        store.write_generation(this)
        audit.append(audit_record(from_generation=number - 1, to_generation=number, levels=levels))
        store.clear_intent()
    store.write_names(names())
