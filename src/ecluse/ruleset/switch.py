"""The texts that change the live table: skeleton, switch, removal of old slots.

Each text is one transaction, applied whole or not at all (nft(8): "the entire input is processed as
a single transaction").
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from ecluse.policy import GATEWAY, Levels, Policy, Site, level_named
from ecluse.ruleset import dns_redirect, exit_text, flowtable, source_check, table_names
from ecluse.ruleset.chains import gate_names
from ecluse.ruleset.compile import compile_program
from ecluse.ruleset.lifeline import open_output
from ecluse.ruleset.program import DROP, TABLE, Chain, NamedSet, Program
from ecluse.ruleset.program_text import host_name_elements_text, render, structure_text, text_pieces

PRIORITY, PRIORITY_NUMBER = "filter - 10", -10
"""Before the site's own filter chains: our `accept` only ends our chain, our `drop` is final."""

HOOKS = {
    chain: f"filter {chain} {PRIORITY_NUMBER}" for chain in table_names.BASE_CHAINS
} | source_check.HOOKS
"""Where each base chain hangs: type, hook, priority."""

REFUSED_SIZE = 65535
"""Bound of each refused set, in elements; a full set costs evidence, never a verdict."""

BOOT_SLOT = 1
"""The files on disk always use this slot: they are loaded into an empty table."""

_WRITABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_./\\-]*")
"""What nft reads as a name (its scanner, `string`)."""

NEW_TABLE = f"{flowtable.REMOVAL}table {TABLE} {{\n}}\ndelete table {TABLE}\n"
"""Takes away what stands, flows in a flowtable of ours too."""


def skeleton(learned: tuple[str, ...] = ()) -> str:
    """Write the parts that all slots share: base chains without rules, refused sets, counters.

    Loading it again changes nothing. No policy is stated: a new base chain accepts until a
    `SwitchState` says otherwise, and one of a closed gate keeps its drop.

    learned: the sets that the DNS proxy fills (`Program.learned`); with them comes the rest that a
    DNS gate needs.
    """
    dynamic = f"size {REFUSED_SIZE}\n\t\tflags dynamic,timeout\n\t\ttimeout 1d\n\t\tcounter"
    parts = [f"table {TABLE} {{"]
    parts += [
        f"\tcounter {name} {{\n\t}}" for name in (table_names.REFUSED_OUT, table_names.REFUSED_IN)
    ]
    for digit in ("4", "6"):
        address = f"ipv{digit}_addr"
        flow = f"{address} . {address} . inet_proto . inet_service"
        parts.append(f"\tset refused{digit} {{\n\t\ttype {flow}\n\t\t{dynamic}\n\t}}")
        parts.append(f"\tset refused_hosts{digit} {{\n\t\ttype {address}\n\t\t{dynamic}\n\t}}")
    parts += [
        f"\tchain {hook} {{\n\t\ttype filter hook {hook} priority {PRIORITY};\n\t}}"
        for hook in table_names.BASE_CHAINS
    ]
    parts += source_check.skeleton_parts()
    if learned:
        parts += [*dns_redirect.skeleton_parts(), *dns_redirect.learned_parts(learned)]
    return "\n".join([*parts, "}", ""])


@dataclass(frozen=True, slots=True)
class SwitchState:
    """The whole state of the switch: what a change of level states, whatever it was before.

    targets: base chain or gate -> the chain that its one rule goes to; empty for no rule. verdict:
    policy of the base chains. Its size does not depend on the allowlist. `text` is for files and
    people; `Firewall.switch` sends it to the kernel in its own form.
    """

    targets: Mapping[str, str]
    verdict: str

    def hooks(self) -> dict[str, str]:
        """Give the hook of each base chain: type, hook, priority."""
        return HOOKS | (
            {table_names.DNS: dns_redirect.HOOK} if table_names.DNS in self.targets else {}
        )

    def policies(self) -> dict[str, str]:
        """Give the policy of each base chain: the verdict on a packet that no rule judges.

        Those that check sources refuse nothing.
        """
        accept = dict.fromkeys(
            (c for c in table_names.SOURCE_CHAINS if c in self.targets), "accept"
        )
        return dict.fromkeys(table_names.BASE_CHAINS, self.verdict) | accept

    def text(self) -> str:
        """Write it as nft does."""
        lines = [
            f"add chain {TABLE} {hook} {{ policy {self.verdict}; }}"
            for hook in table_names.BASE_CHAINS
        ]
        for chain, target in self.targets.items():
            lines.append(f"flush chain {TABLE} {chain}")
            if target:
                lines.append(f"add rule {TABLE} {chain} goto {target}")
        return "\n".join([*lines, ""])


def switch_state(
    policy: Policy, slot: int, levels: Levels, *, redirect: bool = False
) -> SwitchState:
    """Give the state of the switch at these levels."""
    return SwitchState(
        switch_targets(policy, slot, levels, redirect=redirect), base_chain_policy(policy, levels)
    )


def switch_targets(
    policy: Policy, slot: int, levels: Levels, *, redirect: bool = False
) -> dict[str, str]:
    """Give, for each base chain and gate, the chain that its one rule goes to.

    Args:
        levels: A level for every zone of the site and for `gateway`.
        redirect: The table has the chain that redirects DNS, so a site without a DNS gate has to
            state that it is idle.

    Raises:
        KeyError: A level is missing or unknown.
    """
    stem = table_names.prefix(slot)
    all_open = all(_passes_all(policy.site, levels[zone]) for zone in policy.zone_names())
    # Every day, when all is open, a packet is not asked where it comes from: that costs a tenth of
    # what a gateway forwards.
    result = {hook: stem + ("open" if all_open else hook) for hook in table_names.BASE_CHAINS}
    if all_open:
        result |= {
            "input": dns_redirect.open_input(policy, slot),
            "output": open_output(policy.site, slot),
        }
    for place in gate_names(policy):
        gate = table_names.gate_chain(slot, place)
        if place == table_names.ELSEWHERE:
            result[gate] = stem + ("open" if all_open else "refuse")
            continue
        level = levels[place.removesuffix(table_names.OWN_LINK).partition(".")[0]]
        open_ = _passes_all(policy.site, level)
        result[gate] = stem + "open" if open_ else table_names.level_chain(slot, level, place)
    result |= source_check.source_targets(slot, all_open=all_open)
    idle = {table_names.DNS: stem + "open"} if redirect else {}
    return result | idle | dns_redirect.redirect_targets(policy, slot, levels)


def _passes_all(site: Site, level: str) -> bool:
    return level_named(site, level).passes_all


def base_chain_policy(policy: Policy, levels: Levels) -> str:
    """Give the verdict on a packet that no rule judges: drop unless every zone is open.

    No packet gets there while our rules stand. It matters when somebody empties a base chain.
    """
    return (
        "accept"
        if all(_passes_all(policy.site, levels[z]) for z in policy.zone_names())
        else "drop"
    )


def switch_text(policy: Policy, slot: int, levels: Levels) -> str:
    """Write the state of the switch at these levels."""
    return switch_state(policy, slot, levels).text()


def by_hand_text(policy: Policy, levels: Levels) -> str:
    """Write the state of the switch for a person who loads it without the daemon.

    The second lock goes first, unless all levels keep nothing: it may be narrower than these.
    """
    keeps = any(
        _passes_all(policy.site, n) or level_named(policy.site, n).keeps for n in levels.values()
    )
    return (exit_text.REMOVAL if keeps else "") + switch_text(policy, BOOT_SLOT, levels)


def levels_of_targets(policy: Policy, read: Mapping[str, str | None]) -> dict[str, str] | None:
    """Give the levels that the kernel's gates stand for.

    None when they do not form one whole state of this policy. read: chain -> goto target, as the
    kernel has them (`Firewall.targets`).
    """
    live = read.get("forward")
    slot = table_names.slot_of(live) if live else None
    if slot is None:
        return None
    levels: dict[str, str] = {}
    for zone in policy.zone_names():
        gate = table_names.gate_chain(slot, f"{GATEWAY}.input" if zone == GATEWAY else zone)
        for level in policy.site.levels:
            place = f"{GATEWAY}.input" if zone == GATEWAY else zone
            wanted = (
                table_names.prefix(slot) + "open"
                if level.passes_all
                else table_names.level_chain(slot, level.name, place)
            )
            if read.get(gate) == wanted:
                levels[zone] = level.name
    if len(levels) != len(policy.zone_names()):
        return None
    whole = switch_targets(policy, slot, levels)
    # A table of an earlier build lacks some base chains: its level is a level all the same.
    lacking = {c for c in ("postrouting", *table_names.SOURCE_CHAINS) if not read.get(c)}
    if whole["forward"] == read.get("output"):  # nor did it label our look-ups while all is open
        lacking.add("output")
    # An earlier build had no gates for what came by a zone's own interface.
    lacking |= {gate for gate in whole if gate.endswith(table_names.OWN_LINK) and gate not in read}
    # An open gate of an earlier build had a rule where this one has none.
    before = table_names.prefix(slot) + "open"
    same = all(read.get(c) == (t or before) for c, t in whole.items() if c not in lacking)
    return levels if same else None


def load_text(program: Program) -> str:
    """Write the transaction that loads a program beside those that are there.

    It affects no traffic. The elements of its large maps are not in it: they follow by
    `Firewall.elements`, before anything switches to it.
    """
    return skeleton(program.learned) + structure_text(program)


BATCH_SIZE = 10_000
"""Elements of a hash that one transaction puts in: about 10 ms, which a cut may have to wait."""


def element_batches(program: Program) -> Iterator[NamedSet]:
    """Give the elements that `load_text` leaves out, one batch per transaction.

    An interval map is not split: the kernel copies it whole (nft_set_pipapo) for each transaction
    that changes it.
    """
    for named in program.sets:
        if not named.is_bulk or not named.elements:
            continue
        if named.interval or len(named.elements) <= BATCH_SIZE:
            yield named
            continue
        rest = iter(named.elements.items())
        while piece := dict(islice(rest, BATCH_SIZE)):
            yield replace(named, elements=piece)


def table_text(program: Program) -> str:
    """Write the whole table, with every gate closed: for boot, or when ours is gone or broken."""
    return NEW_TABLE + skeleton(program.learned) + render(program)


def removal_text(
    objects: Mapping[str, Iterable[str]],
    keep_slots: Iterable[int],
    counters: Iterable[str],
    learned: Iterable[str] = (),
) -> str:
    """Write the removal of everything that is not in use: old slots, and foreign objects.

    Chains are emptied first, since they go to one another. Empty when nothing is to be removed.

    Args:
        objects: What the table has, by kind (`Firewall.objects`).
        keep_slots: Slots that stay.
        counters: Counters that stay.
        learned: The sets that the DNS proxy fills for the slots that stay; without any, the
            redirect goes too.

    Raises:
        ValueError: For a name that no text can contain; it was not made by `nft`.
    """
    keep = set(keep_slots)
    shared = {
        *table_names.BASE_CHAINS,
        *table_names.SOURCE_CHAINS,
        *table_names.REFUSED_SETS,
        table_names.REFUSED_OUT,
        table_names.REFUSED_IN,
        *learned,
    }
    if shared & {table_names.learned_set("4"), table_names.learned_set("6")}:
        shared |= {
            table_names.DNS,
            table_names.DNS_LIMITED,
            table_names.rate_set("4"),
            table_names.rate_set("6"),
            *table_names.LIMITED_SETS,
        }
    lines: list[str] = []

    def old(name: str) -> bool:
        if table_names.slot_of(name) in keep or name in shared:
            return False
        if not _WRITABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name that nft can read")
        return True

    chains = [name for name in objects.get("chain", ()) if old(name)]
    lines += [f"flush chain {TABLE} {name}" for name in chains]
    lines += [f"delete map {TABLE} {name}" for name in objects.get("map", ()) if old(name)]
    lines += [f"delete chain {TABLE} {name}" for name in chains]
    lines += [f"delete set {TABLE} {name}" for name in objects.get("set", ()) if old(name)]
    used = set(counters)
    lines += [
        f"delete counter {TABLE} {name}"
        for name in objects.get("counter", ())
        if name not in used and old(name)
    ]
    for kind in sorted(objects.keys() - {"chain", "map", "set", "counter"}):
        lines += [f"delete {kind} {TABLE} {name}" for name in objects[kind] if old(name)]
    return "\n".join([*lines, ""]) if lines else ""


def undo_text(program: Program) -> str:
    """Write the removal of a program that nothing was switched to.

    Counters stay: other programs may count in them.
    """
    held = {
        "chain": [chain.name for chain in program.chains],
        "map": [named.name for named in program.sets if named.value],
        "set": [named.name for named in program.sets if not named.value],
    }
    return removal_text(held, (), ())


def _slot_names(program: Program) -> re.Pattern[str]:
    """Match the slot's prefix where a name begins.

    Not inside a name: a zone or an interface may look like one (`k2-labor`).
    """
    return re.compile(rf'(?<![\w."]){table_names.prefix(program.slot)}')


def _boot_parts(program: Program) -> Iterator[str]:
    """Write the boot text piece by piece, but for the elements that host names fill."""
    slot, at_boot = _slot_names(program), table_names.prefix(BOOT_SLOT)
    yield NEW_TABLE + skeleton(program.learned)
    for text, bulk in text_pieces(program):
        yield text if bulk else slot.sub(at_boot, text)


def _boot_names(program: Program) -> str:
    return _slot_names(program).sub(table_names.prefix(BOOT_SLOT), host_name_elements_text(program))


class BootText:
    """A program's boot text and its digest.

    It is the whole table as the files on disk have it: under BOOT_SLOT, gates closed; the same
    whatever slot the program has. Elements from host names come last, so that for other addresses
    the digest goes on from the fixed part.
    """

    def __init__(self, program: Program) -> None:
        self._parts: tuple[str, ...] | None = tuple(_boot_parts(program))
        self._fixed = hashlib.sha256()
        for text in self._parts:
            self._fixed.update(text.encode())

    def digest(self, program: Program) -> str:
        """Give `sha256:HEX` of the boot text of this program.

        program: the one given at first, or one that differs by addresses of host names alone.
        """
        whole = self._fixed.copy()
        whole.update(_boot_names(program).encode())
        return "sha256:" + whole.hexdigest()

    def text(self, program: Program) -> str:
        """Give the boot text itself.

        The text that was written for the digest serves the first caller, and is freed then.
        """
        parts, self._parts = self._parts, None
        return "".join(parts or _boot_parts(program)) + _boot_names(program)


def interim_text(policy: Policy, slot: int, uids: tuple[int, ...] = (0,)) -> str:
    """Write a table for the time in which the real one is loaded: the lifeline passes.

    The rest is dropped in silence, without evidence: some of it is kept, and will be sent again.
    Small whatever the allowlist's size. Its gates stand for no level: a daemon that dies here must
    not find a level at its start.
    """
    bare = Policy(policy.site, ())
    program = compile_program(bare, {}, slot, uids)
    stem = table_names.prefix(slot)
    silent = {f"{stem}refuse", f"{stem}reject", f"{stem}drop"}
    chains = tuple(Chain(c.name, ((DROP,),)) if c.name in silent else c for c in program.chains)
    hooks = (*table_names.BASE_CHAINS, *table_names.SOURCE_CHAINS)
    shut = SwitchState({hook: stem + hook for hook in hooks}, "drop")
    return load_text(replace(program, chains=chains)) + shut.text()


def closed_text(policy: Policy, uids: tuple[int, ...] = (0,)) -> str:
    """Write the ruleset of last resort: the site's lifeline alone, complete by itself."""
    bare = Policy(policy.site, ())
    program = compile_program(bare, {}, 1, uids)
    isolate = dict.fromkeys(policy.zone_names(), policy.site.levels[-1].name)
    return table_text(program) + switch_text(bare, 1, isolate)
