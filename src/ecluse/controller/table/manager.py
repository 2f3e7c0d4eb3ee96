"""Our nft table in the kernel: load beside what is live, switch, read back, restore.

It knows nothing of records and people. The accounting of generation ids is in `tracker`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ecluse.controller.live_state import CompiledPolicy, compiled, with_addresses
from ecluse.controller.table.tracker import TableTracker
from ecluse.errors import EcluseError, KernelError, NotVerifiedError
from ecluse.policy import Addresses, IPAddress, Levels, Policy, most_closed
from ecluse.ports import Firewall
from ecluse.ruleset import dns_redirect, switch, table_names
from ecluse.ruleset.delta import delta
from ecluse.ruleset.program import NamedSet, Program


class PreemptedError(EcluseError):
    """A load was broken off because somebody who must not wait wants the table; begin it again."""

    def __init__(self) -> None:
        super().__init__("a load gave way to a closing", retry=True)


_GUARD_TRIES = 10
"""How often a closing that the kernel refused tries to shut the gate by the smallest table."""

Step = Callable[[str], None]
"""Called with the name of each step of a change as it is passed; tests end the process there."""


def _go_on() -> bool:
    return False


class TableManager:
    """All transactions on table `inet ecluse`, one at a time (the caller holds the lock).

    addresses: gives the addresses that host names have now. uids: the users whose look-ups no level
    cuts. warn: takes what did not go as it should although a switch was made.
    loaded: the policies that stand in the table, by digest. coming: digests of those that are being
    loaded, which no tidying takes away.
    """

    def __init__(
        self,
        firewall: Firewall,
        addresses: Callable[[], Addresses],
        uids: tuple[int, ...],
        step: Step,
        warn: Callable[[str], None],
    ) -> None:
        self._firewall = firewall
        self._addresses = addresses
        self._uids = uids
        self._step = step
        self._warn = warn
        self.tracker = TableTracker(firewall)
        self.loaded: dict[str, CompiledPolicy] = {}
        self.coming: set[str] = set()
        # What a person loads by hand stands in the boot slot, so that no switch of ours goes
        # through on top of it.
        self._slot = switch.BOOT_SLOT
        self._redirect = False
        # What compiles while the lock is held waits for no thread that somebody else's work has.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="table")

    def close_thread(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _apply(self, text: str) -> None:
        await self._firewall.apply(text)
        self.tracker.count_commit()

    async def _change_elements(self, gone: Sequence[NamedSet], come: Sequence[NamedSet]) -> None:
        await self._firewall.change_elements(gone, come)
        self.tracker.count_commit()

    async def _put(self, program: Program, gives_way: Callable[[], bool] = _go_on) -> None:
        """Put a program beside what is there: its structure, then the elements of its large maps.

        Touches no traffic.
        """
        await self._apply_structure(program)
        await self._fill(program, gives_way)

    async def _apply_structure(self, program: Program) -> None:
        await self._apply(switch.load_text(program))
        self._redirect = self._redirect or bool(program.learned)

    async def _fill(self, program: Program, gives_way: Callable[[], bool] = _go_on) -> None:
        for piece in switch.element_batches(program):
            if gives_way():
                raise PreemptedError
            await self._change_elements((), (piece,))

    async def _fill_or_undo(self, program: Program) -> None:
        """Fill a program beside what stands; where that fails it is taken out. KernelError."""
        try:
            await self._fill(program)
        except KernelError:
            with contextlib.suppress(KernelError):
                await self._apply(switch.undo_text(program))
            raise

    # -- reading -----------------------------------------------------------------------------------

    async def find_slots(self) -> None:
        """Find the slots that are taken, so that a new program never meets an old one's names."""
        objects = await self._firewall.objects()
        self._redirect = table_names.DNS in objects.get("chain", ())
        slots = [table_names.slot_of(name) or 0 for kind in objects.values() for name in kind]
        self._slot = max([self._slot, *slots])

    async def kernel_levels(self, policy: Policy) -> dict[str, str] | None:
        """Read the levels that the kernel's switch shows, None when it shows no whole state."""
        chains = await self._firewall.chains()
        gates = [c for c in chains if table_names.is_switched(c)]
        return (
            switch.levels_of_targets(policy, await self._firewall.targets(gates)) if gates else None
        )

    async def is_shut(self) -> bool:
        """Say whether a table stands, of any policy, that lets less than everything pass."""
        return "drop" in (await self._firewall.policies()).values()

    async def shows(self, compiled_policy: CompiledPolicy, levels: Levels) -> bool:
        """Read the base chains and the switch back and compare."""
        return await self._shown_at(compiled_policy, levels) is not None

    async def _shown_at(self, compiled_policy: CompiledPolicy, levels: Levels) -> int | None:
        """Read the switch back; give the generation id of the reading, None when it differs."""
        expected = self._position(compiled_policy, levels)
        found = await self._firewall.read_switch(expected.targets)
        policies = {hook: found.policies.get(hook) for hook in expected.policies()}
        stands = found.targets, policies, found.hooks
        same = stands == (expected.targets, expected.policies(), expected.hooks())
        return found.generation if same else None

    def _position(self, compiled_policy: CompiledPolicy, levels: Levels) -> switch.SwitchState:
        slot = compiled_policy.slot
        return switch.switch_state(compiled_policy.policy, slot, levels, redirect=self._redirect)

    async def _confirmed(self, compiled_policy: CompiledPolicy, levels: Levels) -> bool:
        """Read the switch back after it was set, and count it on where it shows.

        A switch changes nothing that the tracker's digests cover.
        """
        shown_at = await self._shown_at(compiled_policy, levels)
        if shown_at is not None:
            self.tracker.confirm(shown_at)
        return shown_at is not None

    async def in_step(self, compiled_policy: CompiledPolicy, levels: Levels) -> bool:
        """Say whether the kernel shows this state; cheap while nobody committed anything."""
        return await self.tracker.in_step(lambda: self.shows(compiled_policy, levels))

    # -- loading -----------------------------------------------------------------------------------

    def new_slot(self) -> int:
        """Give a slot number that nothing has yet."""
        self._slot += 1
        return self._slot

    def compile(self, policy: Policy, digest: str, slot: int) -> CompiledPolicy:
        """Compile a policy for a slot. On any thread: nothing is touched."""
        return compiled(policy, digest, self._addresses(), slot, self._uids)

    async def load(self, fresh: CompiledPolicy, gives_way: Callable[[], bool]) -> None:
        """Put a compiled policy beside what is live, touching no traffic, unless it stands already.

        Args:
            fresh: what was compiled just now.
            gives_way: asked between two pieces whether somebody who must not wait wants the table.

        Raises:
            RulesetRejectedError, KernelError: nothing of it stands.
            PreemptedError: nothing of it stands, as `gives_way` said so.
        """
        if fresh.digest in self.loaded:
            return
        await self.tracker.catch_up()
        # Addresses may have changed since it was compiled.
        fresh = with_addresses(fresh, self._addresses())
        everywhere = dict.fromkeys(fresh.policy.zone_names(), "open")
        gates = switch.switch_text(fresh.policy, fresh.slot, everywhere)
        await self._firewall.check(switch.load_text(fresh.program) + gates)
        try:
            await self._put(fresh.program, gives_way)
        except EcluseError:
            # What can't be undone goes with the next tidying.
            with contextlib.suppress(KernelError):
                await self._apply(switch.undo_text(fresh.program))
                await self.tracker.rebase()
            raise
        self.loaded[fresh.digest] = fresh
        await self.tracker.rebase()

    async def update(self, addresses: Addresses) -> bool:
        """Bring every loaded policy to these addresses by single elements.

        False when one needs more than elements.
        """
        whole = True
        changed: set[str] = set()
        await self.tracker.catch_up()
        try:
            for digest, one in list(self.loaded.items()):
                fresh = with_addresses(one, addresses)
                change = delta(one.program, fresh.program)
                if change is None:
                    whole = False
                elif change:
                    changed |= change.sets()
                    await self._change_elements(change.gone, change.come)
                    self.loaded[digest] = fresh
        finally:
            if changed:
                await self.tracker.read_sets(changed)
        return whole

    async def renew_learned(self, addresses: Mapping[str, frozenset[IPAddress]]) -> None:
        """Give addresses in the DNS proxy's sets their whole time again; nothing else changes."""
        await self._firewall.renew_learned(addresses)
        await self.tracker.confirm_commit()

    async def prune(self, keep: set[str]) -> None:
        """Take policies out of the kernel that are not in `keep` (digests). KernelError."""
        await self.tracker.catch_up()
        self.loaded = {d: one for d, one in self.loaded.items() if d in keep or d in self.coming}
        slots = [one.slot for one in self.loaded.values()]
        counters = {c for one in self.loaded.values() for c in one.program.counters}
        learned = {name for one in self.loaded.values() for name in one.program.learned}
        try:
            text = switch.removal_text(await self._firewall.objects(), slots, counters, learned)
        except ValueError as error:
            message = f"what stands in table inet ecluse can't be tidied: {error}"
            raise KernelError(message) from error
        if text:
            await self._apply(text)
        self._redirect = bool(learned)
        await self.tracker.rebase()

    # -- switching ---------------------------------------------------------------------------------

    async def switch(self, compiled_policy: CompiledPolicy, levels: Levels) -> None:
        """Make these levels live: one small transaction, whatever the size of the allowlist."""
        complaint = await self._firewall.switch(self._position(compiled_policy, levels))
        self.tracker.count_commit()
        if complaint:
            self._warn(complaint)

    async def verify(
        self,
        compiled_policy: CompiledPolicy,
        levels: Levels,
        before: tuple[CompiledPolicy, Levels] | None,
    ) -> None:
        """Read the switch back; where it shows something else, put back what was before.

        NotVerifiedError then, which says what became of each step.
        """
        if await self._confirmed(compiled_policy, levels):
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
        outcome = "was put back" if back else "could not be verified either"
        hint = "look at 'ecluse status' and 'ecluse events'"
        raise NotVerifiedError(f"{message}; the state before {outcome}", retry=back, hint=hint)

    async def close(
        self,
        compiled_policy: CompiledPolicy,
        levels: Levels,
        on_applied: Callable[[], object],
    ) -> tuple[CompiledPolicy, Levels, bool]:
        """Make a closing live. It never goes back.

        Where the switch fails or does not show, the table is put in again. Where it met a table
        that somebody loaded by hand, each zone keeps the more closed of the two levels.

        Args:
            compiled_policy: the policy that is live.
            levels: at least as closed as those that are live.
            on_applied: called as soon as the kernel has the levels, before they are read back.

        Returns:
            The policy as it is loaded then, its levels, and whether they were read back.

        Raises:
            KernelError: the kernel took nothing of it.
        """
        taken = False
        try:
            await self.switch(compiled_policy, levels)
            taken = True
            self._step("applied")
            on_applied()
            if await self._confirmed(compiled_policy, levels):
                return compiled_policy, levels, True
        except Exception:  # noqa: BLE001, S110 - others change the table, or no thread is left
            pass
        by_hand = None
        with contextlib.suppress(Exception):
            by_hand = await self.kernel_levels(compiled_policy.policy)
        try:
            closed = most_closed(compiled_policy.policy.site, levels, by_hand or {})
            if taken and closed != dict(levels):
                # Somebody closed further just now: the restoration, which follows it, says so.
                return compiled_policy, levels, False
            levels = closed
            again = await self.bring_up(compiled_policy.policy, compiled_policy.digest, levels)
        except Exception as error:  # what the kernel took stands, whatever else fails
            if not taken and not await self._is_guarded(compiled_policy.policy, levels):
                raise _kernel_error(error) from error
            return self.loaded.get(compiled_policy.digest, compiled_policy), levels, False
        return again, levels, True

    # -- restoring ---------------------------------------------------------------------------------

    async def bring_up(self, policy: Policy, digest: str, levels: Levels) -> CompiledPolicy:
        """Make a state live from whatever the table is, keeping kept flows where the table stands.

        The program is loaded beside what is there, and then switched to. Only if the kernel refuses
        that (a base chain was changed) is the table replaced, which may drop packets for a moment.
        Where no table stands and the gate is to be shut, a small one shuts it until the allowlist
        is loaded, however large it is.
        """
        mark = await self.tracker.mark()
        await self.find_slots()
        if await self._is_bare():
            await self._put_small_table(policy, levels)
        elif digest in self.loaded and switch.base_chain_policy(policy, levels) == "drop":
            # Whatever was done to the table: from here on it drops what no rule of it judges. This
            # comes before compiling, which takes a second for a large allowlist.
            known = self.loaded[digest]
            with contextlib.suppress(KernelError):
                await self._apply(
                    switch.skeleton(known.program.learned)
                    + switch.switch_text(policy, known.slot, levels)
                )
        # On a thread: the event loop still has to take commands, a further closing above all.
        fresh = await asyncio.get_running_loop().run_in_executor(
            self._thread, self.compile, policy, digest, self.new_slot()
        )
        # The structure and the switch never go in one transaction: the kernel makes the elements of
        # a concatenated interval map visible only after the chains of the same transaction are
        # live, and kept packets would be refused in between (docs/datapath.md).
        try:
            await self._apply_structure(fresh.program)
        except KernelError:
            # A base chain of the same name with another hook or priority: nothing fits beside it.
            await self._replace_table(fresh, levels)
        else:
            await self._fill_or_undo(fresh.program)
        # From here on the table is another. What the tracker knew of it is void, but commits of
        # others since the mark must still show: they may have changed what was put in just now.
        self.tracker.resume(mark)
        await self.switch(fresh, levels)
        self._step("applied")
        self.loaded = {digest: fresh}
        if not await self.shows(fresh, levels):
            await self._replace_and_verify(fresh, levels)
        self._step("verified")
        try:
            await self.prune({digest})
        except KernelError:
            # Somebody put things into our table that can't be taken out one by one.
            await self._replace_and_verify(fresh, levels)
            await self.prune({digest})
        return fresh

    async def _replace_and_verify(self, fresh: CompiledPolicy, levels: Levels) -> None:
        await self._replace_table(fresh, levels)
        await self.switch(fresh, levels)
        await self.verify(fresh, levels, None)

    async def _replace_table(self, fresh: CompiledPolicy, levels: Levels) -> None:
        """Replace the table by a program; a gate that is shut stays so in between."""
        await self._put_small_table(fresh.policy, levels, replace=True)
        await self._put(fresh.program)

    async def _put_small_table(
        self, policy: Policy, levels: Levels, *, replace: bool = False
    ) -> None:
        """Shut the gate by a small table, if it is to be shut. replace: what stands goes anyway."""
        shut = switch.base_chain_policy(policy, levels) == "drop"
        text = switch.interim_text(policy, self.new_slot(), self._uids) if shut else ""
        if replace or text:
            await self._apply((switch.NEW_TABLE if replace else "") + text)
            self._redirect = dns_redirect.is_on(policy) and bool(text)

    async def _is_bare(self) -> bool:
        """Say whether no program stands: nothing at all, or base chains and the guard alone."""
        return {*await self._firewall.chains()} <= {
            *table_names.BASE_CHAINS,
            *table_names.SOURCE_CHAINS,
            table_names.DNS,
            table_names.GUARD,
        }

    def guard(self, policy: Policy, levels: Levels) -> bool:
        """Shut the gate at once by the smallest table, where none stands; False when all is open.

        Needs no lock. What it commits is not counted: whatever else of ours was under way met the
        deletion, and fails or is restored.
        """
        inside = [name for zone in policy.site.zones for name in zone.interfaces]
        closed = switch.base_chain_policy(policy, levels) == "drop"
        return closed and self._firewall.apply_closed_table(inside)

    async def _is_guarded(self, policy: Policy, levels: Levels) -> bool:
        """Say whether the smallest table shuts the gate, further than any level.

        For a closing while somebody deletes our table over and over.
        """
        for _ in range(_GUARD_TRIES):
            with contextlib.suppress(Exception):  # no thread, no memory: it is tried again
                if self.guard(policy, levels):
                    return True
                if table_names.GUARD in await self._firewall.chains() and await self._is_bare():
                    return True
            await asyncio.sleep(0.005)
        return False


def _kernel_error(error: Exception) -> KernelError:
    """Say what kept a closing from the kernel."""
    if isinstance(error, KernelError):
        return error
    return KernelError(
        f"the kernel could not be told of it ({type(error).__name__}: {error})",
        retry=True,
        hint="look at 'ecluse status', and repeat the command; "
        "'ecluse cut --no-daemon' closes without the daemon",
    )
