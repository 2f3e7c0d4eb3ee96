"""Small tables and views, as values."""

import struct

from ecluse.proof.packet import Kind, View
from ecluse.proof.read_table import BaseChain, Compare, Load, Lookup, Rule, Table, Verdict

ACCEPT, DROP = Verdict("accept"), Verdict("drop")


def view(track="flow", hook="forward", version=4, direction=0, *, dnat=False, homes=()):
    return View(version, hook, -10, Kind(track, direction, dnat), {}, homes)


def table(rules, *, policy="drop", hook="forward", sets=None):
    """rules: chain -> list of steps; the base chain is `base`."""
    return Table(
        (BaseChain("base", "filter", hook, -10, policy),),
        {
            name: tuple(Rule(name, at, tuple(steps)) for at, steps in enumerate(each, 1))
            for name, each in rules.items()
        },
        sets or {},
    )


def link(name, *, field="iifname", negate=False):
    """Steps that ask for an interface."""
    return [Load(4, 16, field), Compare(4, name.encode().ljust(16, b"\0"), None, negate)]


def look(name, *, negate=False):
    """Steps that look the source up."""
    return [Load(4, 4, "network", offset=12), Lookup(name, 4, negate)]


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def nested(kind, *parts):
    return attribute(kind | 0x8000, b"".join(parts))


def number(kind, value, size=4):
    return attribute(kind, value.to_bytes(size, "big", signed=value < 0))


def text(kind, value):
    return attribute(kind, value.encode() + b"\0")
