"""Packets and simulators over the small world of `policies.py`."""

from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.conntrack_entry import ConntrackEntry, Tuple
from ecluse.ruleset.simulator import Packet, Simulator
from tests.unit.ruleset import policies as w


def cut(policy, addresses=None, level="cut"):
    program = compile_program(policy, addresses or {}, 1, uids=(990,))
    return Simulator(program, switch.switch_targets(policy, 1, dict.fromkeys(w.ZONES, level)))


def flow(source, destination, protocol=6, port=443):
    from ipaddress import ip_address as ip

    return ConntrackEntry(
        protocol,
        Tuple(ip(source), ip(destination), 40000, port),
        Tuple(ip(destination), ip(source), port, 40000),
    )


def packet(connection, iif="care0", oif="wan0", hook="forward", **more):
    one = connection.original
    fields = {
        "source": one.source,
        "destination": one.destination,
        "protocol": connection.protocol,
        "connection": connection,
    }
    return Packet(hook, iif, oif, **{**fields, **more})
