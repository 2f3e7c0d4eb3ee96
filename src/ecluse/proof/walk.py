"""Run a table for all packets of a view at once, as the kernel runs it for one.

Source: nft_do_chain in nf_tables_core.c, and nft_*.c for each expression.

At each step stands the region of packets that get there. A verdict takes its region out of the
chain; what no rule takes goes on to the next, and at the end of a base chain meets its policy.
"""

import sys
from dataclasses import dataclass, field

from ecluse.proof.packet import View
from ecluse.proof.read_table import (
    BaseChain,
    Compare,
    Effect,
    Key,
    Limit,
    Load,
    Lookup,
    Mask,
    Put,
    Rule,
    Set,
    Step,
    Swap,
    Table,
    UnknownError,
    Update,
    Verdict,
)
from ecluse.proof.regions import Box, Interval, Region

_HEADERS = {
    # offset and bytes of each field (RFC 791, RFC 8200, RFC 9293); ICMP's type is the first byte of
    # what are ports elsewhere.
    (4, "network"): {8: ("ttl", 1), 12: ("saddr", 4), 16: ("daddr", 4)},
    (6, "network"): {4: ("len", 2), 7: ("ttl", 1), 8: ("saddr", 16), 24: ("daddr", 16)},
    (4, "transport"): {0: ("sport", 2), 2: ("dport", 2)},
    (6, "transport"): {0: ("sport", 2), 2: ("dport", 2)},
}
_FLAGS = {"ct.state", "ct.status", "ct.label"}


@dataclass(frozen=True, slots=True)
class Held:
    """What a register holds: a field (or its first bytes) with the bits of a mask, or a constant.

    whole: bytes of the field; length: how many are held. host: as a number in host byte order.
    """

    field: str
    whole: int
    length: int
    host: bool = False
    mask: bytes | None = None
    data: bytes = b""


@dataclass
class Walk:
    """What a table does with the packets of a view.

    effects: what it does beside a verdict, and to which packets. trace: each rule that gave a
    verdict, in order, if asked for.
    """

    table: Table
    view: View
    effects: dict[str, Region] = field(default_factory=dict)
    trace: list[Rule] | None = None
    accepted: Region = field(init=False)

    def __post_init__(self) -> None:
        self.accepted = self.view.space.none

    def enter(self, base: BaseChain, packets: Region) -> Region:
        """Give those of these packets that a base chain accepts."""
        self.accepted = self.view.space.none
        rest = self._chain(base.name, packets)
        accepted = self.accepted
        return self.view.space.either(accepted, rest) if base.policy == "accept" else accepted

    def _chain(self, name: str, packets: Region) -> Region:
        """Give what comes to the end of a chain, or is returned."""
        s = self.view.space
        back = s.none
        for rule in self.table.rules[name]:
            if packets is s.none:
                break
            if self._judges_nothing(rule):
                continue
            for here, verdict in self._rule(rule, packets):
                if here is not s.none:
                    if self.trace is not None:
                        self.trace.append(rule)
                    taken, returned = self._follow(verdict, here)
                    packets, back = s.without(packets, taken), s.either(back, returned)
        return s.either(back, packets)

    def _follow(self, verdict: Verdict, here: Region) -> tuple[Region, Region]:
        """Give which packets a verdict takes out of a chain, and which of them are returned."""
        s = self.view.space
        if verdict.word == "jump":
            return s.without(here, self._chain(verdict.chain, here)), s.none
        if verdict.word == "goto":  # it comes back to the last jump
            return here, self._chain(verdict.chain, here)
        if verdict.word == "accept":
            self.accepted = s.either(self.accepted, here)
        return here, here if verdict.word == "return" else s.none

    def _judges_nothing(self, rule: Rule) -> bool:
        """Say whether a rule only counts and records, or jumps to where that is all.

        No chain leads back to itself (nft_chain_validate).
        """
        for step in rule.steps:
            if isinstance(step, Effect) or (isinstance(step, Lookup) and step.verdict):
                return False
            if isinstance(step, Update) and step.set in self.table.asked:
                return False
            if isinstance(step, Verdict):
                return step.word == "jump" and all(
                    map(self._judges_nothing, self.table.rules[step.chain])
                )
        return True

    def _rule(self, rule: Rule, packets: Region) -> list[tuple[Region, Verdict]]:
        """Give which packets come to a rule's verdict, and it; of a map, each of them."""
        registers: dict[int, Held] = {}
        try:
            for step in rule.steps:
                if packets is self.view.space.none:
                    break
                if isinstance(step, Verdict):
                    return [(packets, step)]
                if isinstance(step, Lookup) and step.verdict:
                    return self._by_map(step, registers, packets)
                packets = self.view.space.both(packets, self._step(step, registers, packets))
        except UnknownError as error:
            raise UnknownError(f"rule {rule.number} of chain {rule.chain}: {error}") from None
        return []

    def _by_map(
        self, step: Lookup, registers: dict[int, Held], packets: Region
    ) -> list[tuple[Region, Verdict]]:
        """Give for which packets a map gives each of its verdicts."""
        named = self.table.sets[step.set]
        parts: dict[Verdict, list[tuple[Key, Verdict | None]]] = {}
        for key, verdict in named.elements:
            if verdict:
                parts.setdefault(verdict, []).append((key, verdict))
        found = []
        for verdict, elements in parts.items():
            part = Set(named.name, named.length, named.moving, tuple(elements))
            here = self._in_set(part, step.source, registers)
            found.append((self.view.space.both(packets, here), verdict))
        return found

    def _step(self, step: Step, registers: dict[int, Held], packets: Region) -> Region:
        """Give for which packets the rule goes on."""
        s = self.view.space
        match step:
            case Load():
                return self._load(step, registers, packets)
            case Compare():
                return self._compare(step, registers)
            case Lookup():
                found = self._in_set(self.table.sets[step.set], step.source, registers)
                return s.without(s.all, found) if step.negate else found
            case Limit(over):
                self._once("within", packets)
                return self.view.variable("within", int(not over), int(not over))
            case Update():
                return self._update(step, registers, packets)
            case Effect():
                word = _effect(step, registers)
                self.effects[word] = s.either(self.effects.get(word, s.none), packets)
            case Put(dest, data):
                _hold(registers, dest, Held("", 0, len(data), data=data))
            case Mask() | Swap():
                _change(step, registers)
        return s.all

    def _once(self, name: str, packets: Region) -> None:
        """Two rates, or two full sets, are two questions, and there is one variable."""
        if self.trace is None and self.view.space.asks(packets, self.view.level[name]):
            raise UnknownError(f"a second {'rate' if name == 'within' else 'set'} for one packet")

    def _update(self, step: Update, registers: dict[int, Held], packets: Region) -> Region:
        """A full set ends the rule, but for a key that is in it (nft_dynset_eval)."""
        v, s, named = self.view, self.view.space, self.table.sets[step.set]
        held = self._fields(step.source, named.length, registers)
        there = s.none  # of a key with a constant in it nothing is known
        if all(one.field for one in held):
            there = self._in_set(named, step.source, registers)
        fresh = s.without(packets, there)
        if fresh is s.none or s.both(v.consistent(), fresh) is s.none:
            return s.all
        if step.set in self.table.asked:
            # What it puts in is found by the next packet, and by the next rule for this one.
            raise UnknownError(f"packets fill set {step.set}, which is asked")
        self._once("room", packets)
        if step.over:
            # Whether it is counted already changes by each packet.
            self._once("within", packets)
            return s.both(v.variable("room", 1, 1), v.variable("within", 0, 0))
        return s.either(v.variable("room", 1, 1), there)

    def _load(self, step: Load, registers: dict[int, Held], packets: Region) -> Region:
        v = self.view
        if step.field in {"network", "transport"}:
            return self._payload(step, registers)
        name = step.field
        if name[:2] in {"4.", "6."}:
            if int(name[0]) != v.version:
                return v.space.none
            name = name[2:]
        if name.startswith("ct.") and name != "ct.state" and v.kind.track == "none":
            return v.space.none
        if name not in _FLAGS and name not in v.fields:
            # It need not break: `meta skuid` at input is a socket's that was found early.
            raise UnknownError(f"{name} at {v.hook}")
        for word, done in self.effects.items():
            # What this run has changed of a packet's connection, it does not know.
            changed = word == "notrack" or (word.startswith("label") and name == "ct.label")
            if (
                changed
                and name.startswith("ct.")
                and v.space.both(done, packets) is not v.space.none
            ):
                raise UnknownError(f"{name} is asked after `{word}`")
        _hold(registers, step.dest, Held(name, step.length, step.length, step.host))
        return v.loads(name) if name not in _FLAGS else v.space.all

    def _payload(self, step: Load, registers: dict[int, Held]) -> Region:
        """Read bytes of a header, which may be several fields, or the first bytes of one."""
        v, s = self.view, self.view.space
        there, at, left, words = s.all, step.offset, step.length, step.dest
        while left:
            known = _HEADERS[v.version, step.field].get(at)
            if known is None:
                raise UnknownError(f"bytes from {step.offset} of the {step.field} header")
            name, whole = known
            take = min(whole, left)
            if take % 4 and left > take:
                # nft joins tests of neighbours (udp sport and dport); so does this.
                _hold(registers, words, Held("sport+dport", 4, 4))
                if (step.field, step.offset, step.length) != ("transport", 0, 4):
                    raise UnknownError("several fields in one load")
                return s.both(v.loads("sport"), v.loads("dport"))
            _hold(registers, words, Held(name, whole, take))
            there = s.both(there, v.loads(name))
            at, left, words = at + take, left - take, words + take // 4
        return there

    def _fields(self, source: int, length: int, registers: dict[int, Held]) -> list[Held]:
        """Give what stands in `length` bytes of registers: each field fills whole words."""
        found = []
        while length > 0:
            held = registers.get(source)
            if held is None:
                raise UnknownError("a register that nothing was put into")
            found.append(held)
            words = (held.length + 3) // 4
            source, length = source + words, length - 4 * words
        return found

    def _compare(self, step: Compare, registers: dict[int, Held]) -> Region:
        s = self.view.space
        held = registers.get(step.source)
        if held is None:
            raise UnknownError("a register that nothing was put into")
        # What is read is filled with zeros to a whole word (nft_reg_store8, nft_payload_eval).
        beyond = [end[held.length :] for end in (step.first, step.last or b"")]
        if not held.field or any(map(any, beyond)) or len(step.first) > held.length + 3 & ~3:
            raise UnknownError("a constant, or more than was read, is compared")
        if held.field in _FLAGS:
            found = self._flags(step, held)
        elif held.field == "sport+dport":
            if step.last is not None or len(step.first) != 4 or held.mask:
                raise UnknownError("a range over several fields")
            port = [int.from_bytes(step.first[n : n + 2], "big") for n in (0, 2)]
            box = ((port[0],) * 2, (port[1],) * 2)
            found = self.view.in_boxes(("sport", "dport"), lambda: [box])
        else:
            found = self.view.any_of(*self._range(held, step.first, step.last or step.first))
        return s.without(s.all, found) if step.negate else found

    def _range(self, held: Held, first: bytes, last: bytes) -> tuple[str, list[Interval]]:
        """Give the values of a field whose first bytes are in a range."""
        length = min(len(first), held.length)
        first, last = first[:length], last[:length]
        if held.host:
            if length != held.whole or held.mask or first != last:
                raise UnknownError(f"{held.field} in a range of its host's byte order")
            first = last = first[::-1] if sys.byteorder == "little" else first
        low, high = int.from_bytes(first, "big"), int.from_bytes(last, "big")
        shift = 8 * (held.whole - length)
        if held.mask is not None:
            mask = int.from_bytes(held.mask[:length], "big")
            free = (1 << 8 * length) - 1 - mask
            if free & (free + 1) or low != high or low & free:
                raise UnknownError(f"a mask of {held.field} that is no prefix")
            high = low | free
        low, high = low << shift, (high << shift) | ((1 << shift) - 1)
        if held.field == "local":  # RTN_LOCAL (linux/rtnetlink.h)
            if low != 2:
                raise UnknownError("a kind of address that is not `local`")
            low = high = 1
        return held.field, [(low, high)]

    def _flags(self, step: Compare, held: Held) -> Region:
        """Give where the flags of a mask are as they are compared: all of them as written."""
        s = self.view.space
        if held.mask is None or step.last is not None or len(step.first) != held.length:
            raise UnknownError(f"{held.field} without a mask, or not all of it")
        mask, wanted = (int.from_bytes(b, sys.byteorder) for b in (held.mask, step.first))
        there = s.all
        for number in (n for n in range(mask.bit_length()) if mask >> n & 1):
            known = self.view.bit(held.field, number)
            if known is None:
                raise UnknownError(f"flag {number} of {held.field}")
            there = s.both(there, known if wanted >> number & 1 else s.without(s.all, known))
        return there if not wanted & ~mask else s.none

    def _in_set(self, named: Set, source: int, registers: dict[int, Held]) -> Region:
        """Give where the registers are in a set."""
        fields = self._fields(source, named.length, registers)
        if any(h.mask or h.field in {*_FLAGS, "sport+dport", "local"} for h in fields):
            raise UnknownError(f"set {named.name}: a field that is not asked of a set")
        if not all(h.field for h in fields):
            raise UnknownError(f"set {named.name}: a constant is asked of it")
        read = fields[0].length if len(fields) == 1 else sum(h.length + 3 & ~3 for h in fields)
        if read != named.length:
            raise UnknownError(f"set {named.name}: keys of another length")
        names = tuple(h.field for h in fields)
        # Sets without a name of their own are parts of one, for each verdict.
        key = (named, *(h.host for h in fields))
        return self.view.in_boxes(names, lambda: self._boxes(named, fields), key)

    def _boxes(self, named: Set, fields: list[Held]) -> list[Box]:
        """Cut keys into their fields; each begins at a word (nft: concatenations are padded)."""
        if len(fields) == 1:
            return [(self._range(fields[0], *key)[1][0],) for key, _ in named.elements]
        cuts = []
        at = 0
        for held in fields:
            if held.host or held.length != held.whole:
                raise UnknownError(f"set {named.name}: a field in its host's byte order")
            cuts.append((at, at + held.length))
            at += (held.length + 3) & ~3
        found = named.cut.get(tuple(cuts))
        if found is None:
            number = int.from_bytes
            found = named.cut[tuple(cuts)] = [
                tuple([(number(low[a:b], "big"), number(high[a:b], "big")) for a, b in cuts])
                for (low, high), _ in named.elements
            ]
        return found


def _effect(step: Effect, registers: dict[int, Held]) -> str:
    """Put an order into words, with the label or port that a register holds."""
    data = registers[step.source].data if step.source >= 0 else b""
    if step.word == "redirect":
        return f"redirect {int.from_bytes(data[:2], 'big')}"
    if step.word == "label":
        number = int.from_bytes(data, sys.byteorder)
        if number.bit_count() != 1:
            raise UnknownError("several labels at once")
        return f"label {number.bit_length() - 1}"
    return step.word


def _hold(registers: dict[int, Held], at: int, new: Held) -> None:
    """Put into registers; what was there, even in part, is gone."""
    end = at + (new.length + 3) // 4
    for other, held in [*registers.items()]:
        if other < end and at < other + (held.length + 3) // 4:
            del registers[other]
    registers[at] = new


def _change(step: Mask | Swap, registers: dict[int, Held]) -> None:
    """Change what a register holds (nft_bitwise.c, nft_byteorder.c)."""
    held = registers[step.source]
    turned = isinstance(step, Swap) and (not held.host or step.length != held.length)
    if held.mask is not None or turned:
        raise UnknownError("a register is changed twice")
    if isinstance(step, Mask):
        if held.length > len(step.mask):
            raise UnknownError("a mask shorter than what it is for")
        held = Held(held.field, held.whole, held.length, held.host, step.mask)
    else:
        held = Held(held.field, held.whole, held.length, host=False)
    _hold(registers, step.dest, held)
