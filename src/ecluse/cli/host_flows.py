"""What the gateway itself uses now and `cut` would end, for `ecluse check --host`: no daemon."""

import os
from ipaddress import ip_address
from pathlib import Path

from ecluse.bypass import MachineWarning
from ecluse.errors import EcluseError
from ecluse.flow_judge import FlowJudge
from ecluse.gateway_flows import MOST_PEERS, ended_flows, ended_warnings
from ecluse.host_reading import HostReading
from ecluse.interface_zones import InterfaceZones
from ecluse.kernel import conntrack, read_links
from ecluse.policy import CUT, Addresses, IPAddress, Policy
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.disjoint import TangledError
from ecluse.state.layout import Layout
from ecluse.state.state_files import read_names


def gateway_flows(
    policy: Policy, host: HostReading
) -> tuple[tuple[MachineWarning, ...], tuple[str, ...]]:
    """Name the gateway's own connections that `cut` ends.

    The second part says why they could not be looked for; empty when they could.
    """
    try:
        entries, _ = conntrack.read_entries()
        program = compile_program(policy, _known_addresses(), 1)
        levels = dict.fromkeys(policy.zone_names(), CUT.name)
        local = frozenset(text.partition("/")[0] for _, text in host.addresses)
        judge = FlowJudge(policy, program, levels, local)
        near = sorted(judge.near_peers(entries), key=str)[:MOST_PEERS]
        names, zones = host.names(), InterfaceZones(policy)
        judge.mark_outside(
            address
            for address, index in read_links.read_outputs(near).items()
            if (name := names.get(index, "lo")) != "lo" and not zones.zones_of(name)
        )
        own: dict[bool, set[IPAddress]] = {True: set(), False: set()}
        for name, text in host.addresses:
            inside = name == "lo" or bool(zones.zones_of(name))
            own[inside].add(ip_address(text.partition("/")[0]))
        # The VLANs of one trunk have one link-local address: which of them sent, nobody knows.
        judge.mark_outside(judge.groups_reached(entries, own[False] - own[True]))
        rows = ended_flows(judge, entries)
    except (OSError, EcluseError, TangledError) as error:
        return (), (f"connections of the gateway itself ({error})",)
    told = ended_warnings(rows, CUT.name)
    return tuple(MachineWarning("gateway", what, is_bypass=False) for what in told), ()


def _known_addresses() -> Addresses:
    """Give the addresses of host names that the daemon saved last; none where it never ran."""
    at = Layout(Path(os.environ.get("ECLUSE_STATE_DIR") or "/var/lib/ecluse"))
    try:
        known = read_names(at.names) or {}
    except (OSError, EcluseError):
        return {}
    return {
        name: tuple(ip_address(one.address) for one in names.addresses)
        for name, names in known.items()
    }
