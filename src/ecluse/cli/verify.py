"""`ecluse verify`: proves, as root, that the kernel passes what is recorded; needs no daemon."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from types import SimpleNamespace

from ecluse.accounts import Accounts
from ecluse.cli.exit_codes import DONE, FOUND
from ecluse.cli.format import count_of, levels_summary
from ecluse.cli.queries import client, write_json
from ecluse.cli.terminal import Screen
from ecluse.config.settings import load_settings
from ecluse.errors import KernelError, StateError, UnreachableError
from ecluse.kernel.netlink import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    kernel_errors,
    retry_interrupted,
)
from ecluse.kernel.proxy_sets import learned_addresses
from ecluse.policy import Addresses, IPAddress, Levels, Policy
from ecluse.proof.dump import Dump, dump_table
from ecluse.proof.equal import PLACES, Difference, Prover
from ecluse.proof.meaning import Meaning
from ecluse.proof.read_table import UnknownError, read_table
from ecluse.records import Generation
from ecluse.ruleset.table_names import learned_set
from ecluse.state import state_files
from ecluse.state.layout import Layout

MOST = 10
"""Differences that are shown: one for each place, family and kind of packet there can be."""

_ASKED = ("ECLUSE_CONFIG_DIR", "ECLUSE_STATE_DIR", "ECLUSE_DNS_USER")
"""Variables of the daemon that are asked for; `ecluse.toml` is read as well."""

_UNPROVED = (
    "Not looked at: other tables, flowtables, the second lock, ways past the gate ('ecluse check "
    "--host' names those)."
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is to stand: a policy at levels, and the addresses of its host names.

    number: of its generation; 0 after a closing without the daemon. asked: the daemon said so, and
    not its files alone.
    """

    policy: Policy
    levels: Levels
    addresses: Addresses
    number: int
    asked: bool


def verify(args: SimpleNamespace, screen: Screen) -> int:
    """`ecluse verify`: compares the kernel's table with the recorded state, for every packet."""
    begin = time.monotonic()
    settings = load_settings((), {key: os.environ[key] for key in _ASKED if key in os.environ})
    state, gate = Layout(settings.state_dir), Accounts().uid(settings.dns_user)
    with kernel_errors("read the kernel's table", hint="run it as root (sudo)"):
        # Names and learned addresses may change while they are read: a difference is looked at
        # twice.
        recorded, found = _compare(args, state, gate)
        if found:
            recorded, found = _compare(args, state, gate)
    seconds = time.monotonic() - begin
    if args.json:
        _write(screen, recorded, found, seconds)
    else:
        _show(screen, recorded, found, seconds)
    return FOUND if found else DONE


def _compare(
    args: SimpleNamespace, state: Layout, gate: int | None
) -> tuple[Recorded, list[Difference]]:
    """Compare once. gate: the user of the DNS gate's process, None when there is none."""
    recorded = _asked(args, state) or _from_disk(state)
    dump, learned = _dump(), _learned(recorded.policy)
    daemon = state.root.stat().st_uid  # who made the state directory
    meaning = Meaning(
        recorded.policy,
        recorded.addresses,
        recorded.levels,
        learned,
        (daemon,) if gate is None else (daemon, gate),
    )
    try:
        return recorded, list(Prover(meaning).differences(read_table(dump)))
    except UnknownError as error:
        raise KernelError(
            f"nothing is proved: the kernel's table has what this does not understand: {error}",
            hint="'ecluse status' says whether the table is as the daemon wrote it",
        ) from error


def _dump() -> Dump:
    try:
        return dump_table("ecluse")
    except FileNotFoundError as error:
        raise KernelError(
            "table inet ecluse is not in the kernel: the gate does not stand",
            hint="type: sudo systemctl start ecluse, or: sudo ecluse cut --no-daemon",
        ) from error


def _learned(policy: Policy) -> dict[str, frozenset[IPAddress]]:
    """Give what the DNS gate learned for each service: taken as the kernel has it."""
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        sets = retry_interrupted(lambda: learned_addresses(netlink))
    return {
        service.name: frozenset(
            ip_address(packed.to_bytes(4 if digit == "4" else 16, "big"))
            for digit in "46"
            for packed in sets.get(learned_set(digit, service.name), ())
        )
        for service in policy.services
    }


# -- what is recorded ------------------------------------------------------------------------------


def _asked(args: SimpleNamespace, state: Layout) -> Recorded | None:
    """Ask the daemon what is live; None when it does not answer."""
    try:
        daemon = client(args)
        status = daemon.get("/v1/status")
        services = daemon.get("/v1/services")["services"]
        number = status["generation"]
        generation = daemon.get(f"/v1/generations/{number}")["generation"]
    except UnreachableError:
        return None
    addresses: dict[str, set[IPAddress]] = {}
    for each in (one for service in services for one in service["addresses"]):
        addresses.setdefault(each["name"], set()).add(ip_address(each["address"]))
    policy = _policy(state, generation["policy"])
    return Recorded(policy, status["levels"], _sorted(addresses), number, asked=True)


def _from_disk(state: Layout) -> Recorded:
    """Read what the daemon recorded, or a closing without it."""
    by_hand = state_files.level_closed_offline(state)
    boot = None if by_hand else state_files.read_boot(state)
    record = boot.record if boot else _newest(state)
    if record is None:
        raise StateError("nothing is recorded here yet", hint="start the daemon once: eclused")
    policy = _policy(state, record.policy)
    levels = dict.fromkeys(policy.zone_names(), by_hand) if by_hand else record.levels
    known = state_files.read_names(state.names) or {}
    addresses = {
        name: {ip_address(each.address) for each in one.addresses} for name, one in known.items()
    }
    number = 0 if by_hand else record.number
    return Recorded(policy, levels, _sorted(addresses), number, asked=False)


def _newest(state: Layout) -> Generation | None:
    numbers = state.generation_numbers()
    return state_files.read_generation(state, max(numbers)) if numbers else None


def _policy(state: Layout, digest: str) -> Policy:
    policy = state_files.read_policy(state, digest)
    if policy is None:
        raise StateError(f"the policy {digest} is not on disk: nothing can be compared with it")
    return policy


def _sorted(addresses: Mapping[str, Iterable[IPAddress]]) -> Addresses:
    return {name: tuple(sorted(some, key=str)) for name, some in addresses.items()}


# -- what is said ----------------------------------------------------------------------------------


def _write(screen: Screen, it: Recorded, found: list[Difference], seconds: float) -> None:
    rows = [
        {
            "place": each.place,
            "what": each.what,
            "kernel": each.kernel,
            "packet": each.packet,
            "path": [f"{rule.chain} rule {rule.number}" for rule in each.path],
        }
        for each in found
    ]
    write_json(
        screen,
        {
            "equal": not found,
            "generation": it.number,
            "levels": dict(it.levels),
            "from_daemon": it.asked,
            "differences": rows,
            "seconds": round(seconds, 1),
        },
    )


def _show(screen: Screen, it: Recorded, found: list[Difference], seconds: float) -> None:
    state = f"generation {it.number}" if it.number else "a closing without the daemon"
    where = "" if it.asked else "; the daemon does not answer: addresses of names as last saved"
    screen.wrapped("", f"{it.policy.site.title}: {state}, {levels_summary(it.levels)}{where}")
    if not found:
        screen.wrapped(
            "",
            f"proved: table inet ecluse passes what that means, and nothing else, for every packet "
            f"at {len(PLACES)} places of its path, in both families ({seconds:.1f} s)",
            "good",
        )
        screen.wrapped("", _UNPROVED)
        return
    for each in islice(found, MOST):
        screen.wrapped("  ", str(each), "bad")
    screen.wrapped(
        "",
        f"NOT what that means: {count_of(len(found), 'kind')} of packets differ; one of each is "
        "shown. If more passes than should: 'ecluse isolate'.",
        "bad",
    )
