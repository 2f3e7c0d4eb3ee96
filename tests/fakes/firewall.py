"""A firewall in memory that understands the texts that `ruleset/` writes: whole or not at all, like
the kernel.

It judges no packets (`ruleset/simulator.py` does); it keeps what stands in table `inet ecluse`,
refuses what the kernel refuses for the same reasons (a goto to a chain that is not there, a chain
deleted while it is used), and announces changes.
"""

import copy
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecluse.errors import KernelError, RulesetRejectedError
from ecluse.policy import IPAddress
from ecluse.ports import CounterValue, KernelChange, SetReading, SwitchReading
from ecluse.ruleset.flowtable import REMOVAL
from ecluse.ruleset.program import TABLE, NamedSet
from ecluse.ruleset.program_text import element_text
from ecluse.ruleset.switch import SwitchState
from ecluse.ruleset.table_names import BASE_CHAINS, GUARD, IDLE_CHAINS, is_switched
from tests.fakes.ports import Failing, Feed

_PRIORITIES = {
    "filter - 10": -10,
    "dstnat - 10": -110,
    "raw - 10": -310,
    "mangle": -150,
}  # nft(8), the names of priorities
_TARGET = re.compile(r"\b(?:goto|jump) ([\w.]+)")


@dataclass
class Table:
    """What stands in the table: chains as their rules' texts, sets and maps as their texts,
    counters.
    """

    chains: dict[str, list[str]] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=dict)
    hooks: dict[str, str] = field(default_factory=dict)
    dormant: bool = False
    sets: dict[str, list[str]] = field(default_factory=dict)
    maps: dict[str, list[str]] = field(default_factory=dict)
    counters: dict[str, CounterValue] = field(default_factory=dict)

    def used(self) -> set[str]:
        """Name every chain that something goes to."""
        texts = [*self.chains.values(), *self.maps.values()]
        return {name for lines in texts for line in lines for name in _TARGET.findall(line)}


class FakeFirewall(Failing):
    """See the module.

    table: None when there is none. refusal: why each switch goes as a text only. counted: give a
    counter packets to see them in status.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusal = ""
        self.table: Table | None = None
        self.generation = 1
        self.flowtable: tuple[str, ...] | None = None
        self.flowtables = 0
        self.evidence = SetReading((), full=False)
        self.over = SetReading((), full=False)
        self.answered: dict[str, frozenset[int]] = {}
        self.held: dict[str, frozenset[IPAddress]] = {}
        self.announced: Feed[KernelChange] = Feed()

    async def check(self, text: str) -> None:
        """Try `text` on a copy. RulesetRejectedError with the reason."""
        self._may_fail("check")
        try:
            _applied(self.table, text)
        except ValueError as error:
            raise RulesetRejectedError(
                f"the kernel would not take this ruleset: {error}"
            ) from error

    async def apply(self, text: str) -> None:
        """Apply `text` whole or not at all. KernelError with the reason."""
        self._may_fail("apply")
        self.flowtable = None
        self._commit(text, process="eclused", pid=1, ours=True)

    async def switch(self, position: SwitchState) -> str:
        """Put the switch into a position, whole or not at all. KernelError with the reason."""
        self._may_fail("switch")
        self.flowtable = None
        self._commit(position.text(), process="eclused", pid=1, ours=True)
        return self.refusal

    async def change_elements(self, gone: Sequence[NamedSet], come: Sequence[NamedSet]) -> None:
        """Change elements of maps, in one transaction. KernelError with the reason."""
        self._may_fail("change_elements")
        lines = [
            f"{verb} element {TABLE} {named.name} {{ {element_text(named, key)} }}"
            for verb, sets in (("delete", gone), ("add", come))
            for named in sets
            for key in named.elements
        ]
        self._commit("\n".join(lines), process="eclused", pid=1, ours=True)

    @property
    def flowtable_may_stand(self) -> bool:
        """Say whether one stands."""
        return self.flowtable is not None

    async def make_flowtable(self, devices: Sequence[str]) -> None:
        """Note its devices. KernelError with the reason."""
        self._may_fail("make_flowtable")
        self._commit("", process="eclused", pid=1, ours=True)
        self.flowtable = tuple(devices)
        self.flowtables += 1

    async def end_flowtable(self) -> None:
        """Forget it."""
        self._may_fail("end_flowtable")
        self._commit("", process="eclused", pid=1, ours=True)
        self.flowtable = None

    def apply_closed_table(self, inside: Sequence[str]) -> bool:
        """Make the smallest table, where there is none."""
        self._may_fail("apply_closed_table")
        if self.table is not None:
            return False
        lines = [
            f"table {TABLE} {{",
            f"\tchain {GUARD} {{",
            *(f'oifname "{n}" accept' for n in inside),
            "\t}",
        ]
        for hook in BASE_CHAINS:
            lines += [
                f"\tchain {hook} {{",
                f"type filter hook {hook} priority filter - 10; policy drop;",
            ]
            lines += [*(f'iifname "{n}" jump {GUARD}' for n in inside), "\t}"]
        self._commit("\n".join([*lines, "}"]), process="eclused", pid=1, ours=True)
        return True

    def tamper(self, text: str, process: str = "nft", pid: int = 4242) -> None:
        """Apply `text` as somebody else would, and announce it."""
        self._commit(text, process=process, pid=pid, ours=False)

    def _commit(self, text: str, *, process: str, pid: int, ours: bool) -> None:
        try:
            table = _applied(self.table, text)
        except ValueError as error:
            raise KernelError(
                f"the kernel refused the transaction, nothing was changed: {error}"
            ) from error
        touched = table != self.table
        gone = self.table is not None and table is None
        self.table = table
        self.generation += 1
        what = "changed" if table else "table deleted"
        self.announced.put(
            KernelChange(process, pid, ours, touched, what, generation=self.generation, gone=gone)
        )

    async def read_switch(self, chains: Iterable[str]) -> SwitchReading:
        """Read the switch back."""
        held = self.table
        hooks = {} if held is None or held.dormant else dict(held.hooks)
        return SwitchReading(
            await self.targets(chains), await self.policies(), hooks, self.generation
        )

    async def targets(self, chains: Iterable[str]) -> dict[str, str | None]:
        """Give each chain's goto target, None where it does anything else, or does not exist."""
        self._may_fail("targets")
        held = self.table.chains if self.table else {}
        result: dict[str, str | None] = {}
        for name in chains:
            rules = held.get(name, [])
            single = (
                rules[0].removeprefix("goto ")
                if len(rules) == 1 and rules[0].startswith("goto ")
                else None
            )
            result[name] = "" if name in IDLE_CHAINS and not rules else single
        return result

    async def policies(self) -> dict[str, str]:
        """Give the policy of every base chain."""
        return dict(self.table.policies) if self.table else {}

    async def chains(self) -> tuple[str, ...]:
        """Name every chain, sorted."""
        self._may_fail("chains")
        return tuple(sorted(self.table.chains)) if self.table else ()

    async def objects(self) -> dict[str, tuple[str, ...]]:
        """Name what the table holds."""
        if self.table is None:
            return {}
        kinds: dict[str, Iterable[str]] = {
            "chain": self.table.chains,
            "set": self.table.sets,
            "map": self.table.maps,
            "counter": self.table.counters,
        }
        return {kind: tuple(sorted(held)) for kind, held in kinds.items()}

    async def fingerprint(self, sets: Iterable[str] | None = None) -> dict[str, str]:
        """Give the elements of each set as one text, and under the empty name all else that is not
        switched.
        """
        self._may_fail("fingerprint")
        if self.table is None:
            return {}
        held = {**self.table.sets, **self.table.maps}
        found = {
            name: repr(sorted(held[name]))
            for name in (held if sets is None else sets)
            if name in held
        }
        if sets is not None:
            return found
        program = {n: r for n, r in self.table.chains.items() if not is_switched(n)}
        return {
            "": repr((sorted(program.items()), sorted(held), sorted(self.table.counters))),
            **found,
        }

    async def ruleset_generation(self) -> int:
        """Give the number of transactions so far."""
        self._may_fail("ruleset_generation")
        return self.generation

    async def counters(self) -> dict[str, CounterValue]:
        """Give every named counter."""
        return dict(self.table.counters) if self.table else {}

    async def learned(self) -> dict[str, frozenset[int]]:
        """Give what a test put into `answered`."""
        self._may_fail("learned")
        return dict(self.answered)

    async def half_expired(
        self, used: Mapping[str, frozenset[IPAddress]]
    ) -> Mapping[str, frozenset[IPAddress]]:
        """Give them all but those that were held on to."""
        return {
            name: old
            for name, every in used.items()
            if (old := every - self.held.get(name, frozenset()))
        }

    async def renew_learned(self, addresses: Mapping[str, frozenset[IPAddress]]) -> None:
        """Note what was held on to."""
        self._may_fail("renew_learned")
        self._commit("", process="eclused", pid=1, ours=True)
        self.held |= addresses

    async def refused(self) -> SetReading:
        """Give what a test put into `evidence`."""
        return self.evidence

    async def limited(self) -> SetReading:
        """Give what a test put into `over`."""
        self._may_fail("limited")
        return self.over

    def changes(self) -> AsyncIterator[KernelChange]:
        """Give every transaction from now on."""
        return self.announced.read()


_ANOTHERS = re.compile(rf"add table (?!{TABLE}\b)")
"""What somebody does beside our table."""


def _applied(table: Table | None, text: str) -> Table | None:
    """Give the table after a text.

    ValueError, with the reason, where the kernel would refuse it.
    """
    work = copy.deepcopy(table)
    lines = iter(text.replace(REMOVAL, "").splitlines())
    for line in lines:
        if line == f"table {TABLE} {{":
            work = work or Table()
            work.dormant = False  # as nft does where a block states no flags
            _block(work, lines)
        elif line in {f"delete table {TABLE}", "flush ruleset"}:
            if work is None and line != "flush ruleset":
                raise ValueError("No such file or directory")
            work = None
        elif line == f"add table {TABLE} {{ flags dormant; }}" and work is not None:
            work.dormant = True
        elif line.strip() and not _ANOTHERS.match(line):
            if work is None:
                raise ValueError("No such file or directory")
            _command(work, line)
    if work is not None:
        missing = work.used() - set(work.chains)
        if missing:
            raise ValueError(f"no chain {min(missing)}")
    return work


def _block(work: Table, lines: Iterable[str]) -> None:
    kind, name, body = "", "", list[str]()
    for line in lines:
        if line == "}":
            return
        if line.startswith("\t") and not line.startswith("\t\t") and line.endswith("{"):
            kind, name = line.split()[:2]
            body = []
        elif line == "\t}":
            _declare(work, kind, name, body)
        else:
            body.append(line.strip())


def _declare(work: Table, kind: str, name: str, body: list[str]) -> None:
    if kind == "counter":
        work.counters.setdefault(name, CounterValue(0, 0))
        return
    if kind == "chain":
        rules = [line for line in body if not line.startswith("type ")]
        if len(rules) < len(body):
            _hang(work, name, " ".join(body))
        if any(line.startswith("type filter hook") for line in body):
            stated = re.search(r"policy (\w+);", " ".join(body))
            work.policies[name] = stated[1] if stated else work.policies.get(name, "accept")
        work.chains.setdefault(name, []).extend(rules)
        return
    start = body.index("elements = {") + 1 if "elements = {" in body else len(body)
    elements = [line.rstrip(",") for line in body[start:] if line != "}"]
    held = work.sets if kind == "set" else work.maps
    held.setdefault(name, []).extend(e for e in elements if e not in held.get(name, []))


def _hang(work: Table, name: str, body: str) -> None:
    kind, hook, priority = re.findall(r"type (\w+) hook (\w+) priority ([^;]+);", body)[0]
    place = f"{kind} {hook} {_PRIORITIES.get(priority, priority)}"
    if work.hooks.setdefault(name, place) != place:
        raise ValueError(f"chain {name}: Operation not supported")


def _command(work: Table, line: str) -> None:
    words = line.replace(f" {TABLE} ", " ").split(maxsplit=3)
    verb, kind, name, rest = (*words, "")[:4]
    kinds: dict[str, dict[str, Any]] = {
        "chain": work.chains,
        "set": work.sets,
        "map": work.maps,
        "counter": work.counters,
    }
    held = kinds.get(kind, {})
    if verb == "add" and kind == "chain":
        work.policies[name] = rest.removeprefix("{ policy ").removesuffix("; }")
    elif verb == "add" and kind == "rule" and name in work.chains:
        work.chains[name].append(rest)
    elif verb == "flush" and kind == "chain" and name in work.chains:
        work.chains[name] = []
    elif verb == "delete" and name in held:
        if kind == "chain" and name in work.used():
            raise ValueError(f"chain {name}: Device or resource busy")
        if kind == "chain":
            work.policies.pop(name, None)
            work.hooks.pop(name, None)
        del held[name]
    elif kind == "element":
        _elements(work, verb, name, rest)
    else:
        raise ValueError(f"{line}: No such file or directory")


def _elements(work: Table, verb: str, name: str, rest: str) -> None:
    held = work.sets if name in work.sets else work.maps
    if name not in held:
        raise ValueError(f"set {name}: No such file or directory")
    for element in rest.removeprefix("{ ").removesuffix(" }").split(", "):
        key = element.partition(" : ")[0]
        there = [e for e in held[name] if e.partition(" : ")[0] == key]
        if verb == "delete" and not there:
            raise ValueError(f"element {key}: No such file or directory")
        held[name] = [e for e in held[name] if e not in there] + (
            [element] if verb == "add" else []
        )
