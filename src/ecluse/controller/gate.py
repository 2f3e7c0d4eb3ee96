"""The gate in the kernel: load beside, switch, read back, heal. Knows nothing of records and people."""

from collections.abc import Callable

from ecluse.controller.live import Loaded, compiled
from ecluse.errors import KernelError, NotVerifiedError
from ecluse.policy import Addresses, Levels, Policy
from ecluse.ports import Firewall
from ecluse.ruleset import names, switch
from ecluse.ruleset.compile import compile_program

Step = Callable[[str], None]
"""Told the name of each step of a change as it is passed; tests end the process there."""


class Gate:
    """All transactions on table `inet ecluse`, one at a time (the caller holds the writer's lock)."""

    def __init__(self, firewall: Firewall, daemon_uid: int, step: Step) -> None:
        self._firewall = firewall
        self._uid = daemon_uid
        self._step = step
        self.loaded: dict[str, Loaded] = {}
        self._slot = 0
        self._commits = 0
        self._known_generation: int | None = None
        self._fingerprint: str | None = None

    async def _apply(self, text: str) -> None:
        await self._firewall.apply(text)
        self._commits += 1

    def _compile(self, policy: Policy, digest: str, addresses: Addresses) -> Loaded:
        self._slot += 1
        return compiled(policy, digest, addresses, self._slot, self._uid)

    async def survey(self) -> None:
        """Find the slots that are taken, so that a new program never meets an old one's names."""
        held = await self._firewall.objects()
        slots = [names.slot_of(name) or 0 for kind in held.values() for name in kind]
        self._slot = max([self._slot, *slots])

    async def kernel_levels(self, policy: Policy) -> dict[str, str] | None:
        """Say which levels the kernel's gates stand for, None when there is no whole state of ours."""
        chains = await self._firewall.chains()
        gates = [c for c in chains if c in names.BASE_CHAINS or names.is_gate(c)]
        return switch.read_levels(policy, await self._firewall.targets(gates)) if gates else None

    async def is_shut(self) -> bool:
        """Say whether a table stands that lets less than everything pass, whatever allowlist it was made from."""
        return "drop" in (await self._firewall.policies()).values()

    async def check(self, policy: Policy, addresses: Addresses) -> None:
        """Ask the kernel whether it would take this policy. RulesetRejectedError when not; nothing changes."""
        program = compile_program(policy, addresses, self._slot + 1, self._uid)
        everywhere = dict.fromkeys(policy.zone_names(), "open")
        await self._firewall.check(
            switch.load_text(program) + switch.gate_text(policy, program.slot, everywhere)
        )

    async def load(self, policy: Policy, digest: str, addresses: Addresses) -> Loaded:
        """Put a policy beside what is live, touching no traffic. One that stands already is only brought up to date."""
        if digest in self.loaded:
            return self.loaded[digest]
        await self._catch_up()
        loaded = self._compile(policy, digest, addresses)
        await self._apply(switch.load_text(loaded.program))
        self.loaded[digest] = loaded
        await self.settle()
        return loaded

    async def close(self, loaded: Loaded, levels: Levels, addresses: Addresses) -> tuple[Loaded, bool]:
        """Make a closing live. It never goes back: where the switch fails or does not show, the table is put in anew.

        Gives what is loaded then, and whether it was read back. KernelError when the kernel took nothing of it.
        """
        taken = False
        try:
            await self.switch(loaded, levels)
            taken = True
            self._step("applied")
            if await self.shows(loaded, levels):
                await self._advance()
                return loaded, True
        except KernelError:
            pass  # somebody else is at the table in this very moment
        try:
            return await self.bring_up(loaded.policy, loaded.digest, addresses, levels), True
        except KernelError:
            if not taken:
                raise
        return self.loaded.get(loaded.digest, loaded), False

    async def switch(self, loaded: Loaded, levels: Levels) -> None:
        """Make these levels live: one small transaction, whatever the size of the allowlist."""
        await self._apply(switch.gate_text(loaded.policy, loaded.slot, levels))

    async def shows(self, loaded: Loaded, levels: Levels) -> bool:
        """Read the base chains and gates back and compare."""
        wanted = switch.targets(loaded.policy, loaded.slot, levels)
        verdict = dict.fromkeys(names.BASE_CHAINS, switch.base_policy(loaded.policy, levels))
        return await self._firewall.targets(wanted) == wanted and await self._firewall.policies() == verdict

    async def verify(self, loaded: Loaded, levels: Levels, before: tuple[Loaded, Levels] | None) -> None:
        """Read back; where the kernel shows something else, put back what was before and say what each step did.

        NotVerifiedError then, with the words.
        """
        if await self.shows(loaded, levels):
            await self._advance()
            return
        message = "the kernel does not show the levels that were applied"
        if before is None:
            raise NotVerifiedError(message, retry=True, hint="look at 'nft list table inet ecluse'")
        try:
            await self.switch(*before)
            back = await self.shows(*before)
        except KernelError as error:
            raise NotVerifiedError(
                f"{message}; going back to the state before failed too: {error.message}",
                hint="look at 'nft list table inet ecluse'; if in doubt pull the cable",
            ) from error
        now = "the state before was put back" if back else "the state before could not be verified either"
        raise NotVerifiedError(
            f"{message}; {now}", retry=back, hint="look at 'ecluse status' and 'ecluse events'"
        )

    async def _advance(self) -> None:
        """Count our own switches on: they change gates alone, which are compared by themselves."""
        now = await self._firewall.ruleset_generation()
        if self._known_generation is not None and now == self._known_generation + self._commits:
            self._known_generation, self._commits = now, 0

    @property
    def unsure(self) -> bool:
        """Say whether others committed between our own transactions, so that what the table should be is not known."""
        return self._fingerprint is None

    async def _catch_up(self) -> None:
        """Count in the transactions of others that left our table alone, before one of our own makes it another."""
        now = await self._firewall.ruleset_generation()
        if self._known_generation is None or now == self._known_generation + self._commits:
            return
        same = self._fingerprint is not None and await self._firewall.fingerprint() == self._fingerprint
        if same and await self._firewall.ruleset_generation() == now:
            self._known_generation, self._commits = now, 0

    async def settle(self) -> None:
        """Remember what the table looks like after our own transactions, to know it again.

        When somebody else committed in between, nothing is remembered: the next comparison fails and re-asserts.
        """
        expected = None if self._known_generation is None else self._known_generation + self._commits
        before = await self._firewall.ruleset_generation()
        fingerprint = await self._firewall.fingerprint()
        after = await self._firewall.ruleset_generation()
        undisturbed = before == after and expected in {None, after}
        self._fingerprint = fingerprint if undisturbed else None
        self._known_generation, self._commits = after, 0

    async def in_step(self, loaded: Loaded, levels: Levels) -> bool:
        """Say whether the kernel shows what it should. Costs next to nothing while nobody committed anything."""
        now = await self._firewall.ruleset_generation()
        if now == self._known_generation and not self._commits and self._fingerprint is not None:
            return True
        same = (
            self._fingerprint is not None
            and await self.shows(loaded, levels)  # little to read, and enough when the table is gone
            and await self._firewall.fingerprint() == self._fingerprint
        )
        if same and await self._firewall.ruleset_generation() == now:
            self._known_generation, self._commits = now, 0
        return same

    async def bring_up(self, policy: Policy, digest: str, addresses: Addresses, levels: Levels) -> Loaded:
        """Make a state live from whatever the table is, keeping kept flows where the table stands.

        The program is loaded beside what is there, and then switched to. Only if the kernel refuses that (a base
        chain was changed) is the table replaced, which may drop packets for a moment. Where no table stands and the
        gate is to be shut, a small one holds the line until the allowlist is loaded, however large it is.
        """
        known = await self._firewall.ruleset_generation()
        await self.survey()
        held = switch.base_policy(policy, levels) == "drop" and not await self._firewall.chains()
        if held:
            self._slot += 1
            await self._apply(switch.hold_text(policy, self._slot, self._uid))
        loaded = self._compile(policy, digest, addresses)
        # Never in one transaction: the kernel makes the elements of a concatenated interval map visible only after
        # the chains of the same transaction are live, and kept packets would be refused in between (docs/datapath.md).
        text = switch.load_text(loaded.program)
        try:
            await self._apply(text)
        except KernelError:
            await self._apply(switch.NEW_TABLE + text)
        # What was known of the table holds no more from here on, and nothing is known until it is settled anew.
        self._known_generation, self._commits, self._fingerprint = known, 1 + held, None
        await self.switch(loaded, levels)
        self._step("applied")
        self.loaded = {digest: loaded}
        if not await self.shows(loaded, levels):
            await self._apply(switch.NEW_TABLE + text)
            await self.switch(loaded, levels)
            await self.verify(loaded, levels, None)
        self._step("verified")
        await self.prune({digest})
        return loaded

    async def prune(self, keep: set[str]) -> None:
        """Take policies out of the kernel that nothing needs any more, and remember what the table looks like."""
        await self._catch_up()
        self.loaded = {digest: one for digest, one in self.loaded.items() if digest in keep}
        slots = [one.slot for one in self.loaded.values()]
        counters = {c for one in self.loaded.values() for c in one.program.counters}
        text = switch.removal_text(await self._firewall.objects(), slots, counters)
        if text:
            await self._apply(text)
        await self.settle()

    async def update(self, addresses: Addresses) -> bool:
        """Bring every loaded policy to new addresses by single elements. False when one needs more than elements."""
        whole = True
        changed = False
        await self._catch_up()
        try:
            for digest, one in list(self.loaded.items()):
                fresh = compiled(one.policy, digest, addresses, one.slot, self._uid)
                text = switch.delta_text(one.program, fresh.program)
                if text is None:
                    whole = False
                elif text:
                    await self._apply(text)
                    changed = True
                    self.loaded[digest] = fresh
        finally:
            if changed:
                await self.settle()
        return whole
