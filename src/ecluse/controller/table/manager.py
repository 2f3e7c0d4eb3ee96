"""The gate in the kernel: load beside, switch, read back, heal.

Knows nothing of records and people.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ecluse.controller.live_state import CompiledPolicy, compiled, with_addresses
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


_PATIENCE = 10
"""How often the regular look asks again for news of others' transactions, and a closing in a fight
whether it stands.
"""

Step = Callable[[str], None]
"""Told the name of each step of a change as it is passed; tests end the process there."""


class TableManager:
    """All transactions on table `inet ecluse`, one at a time (the caller holds the writer's lock)."""

    def __init__(
        self, firewall: Firewall, uids: tuple[int, ...], step: Step, warn: Callable[[str], None]
    ) -> None:
        self._firewall = firewall
        self._warn = warn
        self._uids = uids
        self._step = step
        self.loaded: dict[str, CompiledPolicy] = {}
        # What a person loads by hand stands there, so that no switch of ours goes through on top of
        # it.
        self._slot = switch.BOOT_SLOT
        self._redirect = False
        self._commits = 0
        self._known_generation: int | None = None
        self._harmless: set[int] = set()
        self._sound = False
        self._digests: dict[str, str] = {}
        self.unread = asyncio.Event()
        self.coming: set[str] = set()
        # What compiles while the writer's lock is held waits for no thread that somebody else's
        # work has.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gate")

    def end(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _apply(self, text: str) -> None:
        await self._firewall.apply(text)
        self._commits += 1

    async def _elements(self, gone: Sequence[NamedSet], come: Sequence[NamedSet]) -> None:
        await self._firewall.change_elements(gone, come)
        self._commits += 1

    async def _put(self, program: Program, give_way: Callable[[], bool] = lambda: False) -> None:
        """Put a program beside what is there: its structure, then the elements of its large maps.

        Touches no traffic.
        """
        await self._apply_load(program)
        await self._fill(program, give_way)

    async def _apply_load(self, program: Program) -> None:
        await self._apply(switch.load_text(program))
        self._redirect = self._redirect or bool(program.learned)

    async def _fill(self, program: Program, give_way: Callable[[], bool] = lambda: False) -> None:
        for piece in switch.pieces(program):
            if give_way():
                raise PreemptedError
            await self._elements((), (piece,))

    def new_slot(self) -> int:
        """Give a slot number that nothing has yet."""
        self._slot += 1
        return self._slot

    def compile(
        self, policy: Policy, digest: str, addresses: Addresses, slot: int
    ) -> CompiledPolicy:
        """Compile a policy for a slot. On any thread: nothing is touched."""
        return compiled(policy, digest, addresses, slot, self._uids)

    async def survey(self) -> None:
        """Find the slots that are taken, so that a new program never meets an old one's names."""
        held = await self._firewall.objects()
        self._redirect = table_names.DNS in held.get("chain", ())
        slots = [table_names.slot_of(name) or 0 for kind in held.values() for name in kind]
        self._slot = max([self._slot, *slots])

    async def kernel_levels(self, policy: Policy) -> dict[str, str] | None:
        """Say which levels the kernel's gates stand for, None when there is no whole state of ours."""
        chains = await self._firewall.chains()
        gates = [c for c in chains if table_names.is_switched(c)]
        return switch.read_levels(policy, await self._firewall.targets(gates)) if gates else None

    async def is_shut(self) -> bool:
        """Say whether a table stands that lets less than everything pass, whatever allowlist it was
        made from.
        """
        return "drop" in (await self._firewall.policies()).values()

    async def load(
        self, fresh: CompiledPolicy, addresses: Addresses, give_way: Callable[[], bool]
    ) -> None:
        """Put a compiled policy beside what is live, touching no traffic; one that stands already
        is left as it is.

        RulesetRejectedError, KernelError: nothing of it stands. GaveWayError: nor then, `give_way`
        said that somebody must not wait.
        """
        if fresh.digest in self.loaded:
            return
        await self._catch_up()
        fresh = with_addresses(fresh, addresses)  # they may have changed since it was compiled
        everywhere = dict.fromkeys(fresh.policy.zone_names(), "open")
        gates = switch.gate_text(fresh.policy, fresh.slot, everywhere)
        await self._firewall.check(switch.load_text(fresh.program) + gates)
        try:
            await self._put(fresh.program, give_way)
        except EcluseError:
            with contextlib.suppress(KernelError):  # what is left of it goes with the next tidying
                await self._apply(switch.undo_text(fresh.program))
                await self.settle()
            raise
        self.loaded[fresh.digest] = fresh
        await self.settle()

    async def close(
        self,
        loaded: CompiledPolicy,
        levels: Levels,
        addresses: Callable[[], Addresses],
        taken_up: Callable[[], object],
    ) -> tuple[CompiledPolicy, Levels, bool]:
        """Make a closing live.

        It never goes back: where the switch fails or does not show, the table is put in anew.

        addresses: gives those of host names, should the table be put in anew. taken_up: called as
        soon as the kernel has it, before it is read back. Gives what is loaded then, the levels,
        and whether it was read back: where the switch met a table that somebody loaded by hand,
        more closed, each zone keeps the most closed. KernelError when the kernel took nothing of
        it.
        """
        taken = False
        try:
            await self.switch(loaded, levels)
            taken = True
            self._step("applied")
            taken_up()
            if await self._confirmed(loaded, levels):
                return loaded, levels, True
        except Exception:  # noqa: BLE001, S110 - somebody else is at the table in this moment, or there is no thread
            pass
        by_hand = None
        with contextlib.suppress(Exception):
            by_hand = await self.kernel_levels(loaded.policy)
        try:
            closed = most_closed(loaded.policy.site, levels, by_hand or {})
            if taken and closed != dict(levels):
                return loaded, levels, False  # just now, and the healing, which follows it, tells
            levels = closed
            return (
                await self.bring_up(loaded.policy, loaded.digest, addresses(), levels),
                levels,
                True,
            )
        except Exception as error:  # what was taken stands, whatever else fails
            if not taken and not await self._is_guarded(loaded.policy, levels):
                raise _refused(error) from error
        return self.loaded.get(loaded.digest, loaded), levels, False

    async def switch(self, loaded: CompiledPolicy, levels: Levels) -> None:
        """Make these levels live: one small transaction, whatever the size of the allowlist."""
        where = switch.position(loaded.policy, loaded.slot, levels, redirect=self._redirect)
        said = await self._firewall.switch(where)
        self._commits += 1
        if said:
            self._warn(said)

    async def shows(self, loaded: CompiledPolicy, levels: Levels) -> bool:
        """Read the base chains and gates back and compare."""
        return await self._shown_at(loaded, levels) is not None

    async def _shown_at(self, loaded: CompiledPolicy, levels: Levels) -> int | None:
        """Read the base chains and gates back; give the ruleset's generation id, None when they are
        not as they should be.
        """
        wanted = switch.position(loaded.policy, loaded.slot, levels, redirect=self._redirect)
        found = await self._firewall.read_switch(wanted.targets)
        policies = {hook: found.policies.get(hook) for hook in wanted.policies()}
        stands = found.targets, policies, found.hooks
        return (
            found.generation
            if stands == (wanted.targets, wanted.policies(), wanted.hooks())
            else None
        )

    async def _confirmed(self, loaded: CompiledPolicy, levels: Levels) -> bool:
        """Read back after a switch, and count it on: it changed gates alone, which are compared by
        themselves.
        """
        shown_at = await self._shown_at(loaded, levels)
        if shown_at is not None and shown_at == self._expected():
            self._known_generation, self._commits = shown_at, 0
        return shown_at is not None

    async def verify(
        self, loaded: CompiledPolicy, levels: Levels, before: tuple[CompiledPolicy, Levels] | None
    ) -> None:
        """Read back; where the kernel shows something else, put back what was before and say what
        each step did.

        NotVerifiedError then, with the words.
        """
        if await self._confirmed(loaded, levels):
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
        now = (
            "the state before was put back"
            if back
            else "the state before could not be verified either"
        )
        raise NotVerifiedError(
            f"{message}; {now}", retry=back, hint="look at 'ecluse status' and 'ecluse events'"
        )

    @property
    def unsure(self) -> bool:
        """Say whether what the table should be is not known: others committed between our own
        transactions, or just after.
        """
        return not self._digests

    def left_alone(self, generation: int) -> None:
        """Take note of a transaction of others that touched nothing of our table, by its generation
        id.
        """
        self._harmless.add(generation)

    def _expected(self) -> int | None:
        """Give the generation id that the ruleset has while nobody else touched our table, as far
        as we heard.
        """
        known = self._known_generation
        if known is None:
            return None
        self._harmless = {one for one in self._harmless if one > known}
        return known + self._commits + len(self._harmless)

    async def hear_others(self) -> None:
        """Before what the table looks like was read: wait a moment to hear that a transaction of
        others left it alone.
        """
        for _ in range(_PATIENCE):
            if self._digests or await self._firewall.ruleset_generation() == self._expected():
                return
            await asyncio.sleep(0.01)

    async def _catch_up(self) -> None:
        """Count in the transactions of others that left our table alone, before one of our own
        makes it another.
        """
        now = await self._firewall.ruleset_generation()
        if self._known_generation is None or now == self._expected():
            return
        same = bool(self._digests) and await self._firewall.fingerprint() == self._digests
        if same and await self._firewall.ruleset_generation() == now:
            self._known_generation, self._commits = now, 0

    async def settle(self) -> None:
        """Take the table for ours as it is after our own transactions; what it looks like is read
        later (`read_back`).

        When somebody else committed in between, it is not: the next comparison fails and
        re-asserts.
        """
        now = await self._firewall.ruleset_generation()
        self._sound = self._expected() in {None, now}
        self._known_generation, self._commits, self._digests = now, 0, {}
        if self._sound:
            self.unread.set()

    async def read_back(self) -> bool:
        """Read what the table looks like, to know it again.

        False when it changed meanwhile: try again.

        The writer's lock is not held: 100,000 elements take 0.3 s, and a closing may come. Until it
        is read, whatever somebody else commits counts as a change of our table.
        """
        self.unread.clear()
        digests = await self._firewall.fingerprint()
        now = await self._firewall.ruleset_generation()
        if self.unread.is_set() or self._known_generation is None or not self._sound:
            return not self._sound
        if now != self._expected():
            self.unread.set()
            return False
        self._digests = digests
        return True

    async def in_step(self, loaded: CompiledPolicy, levels: Levels) -> bool:
        """Say whether the kernel shows what it should.

        Costs next to nothing while nobody committed anything.
        """
        now = await self._firewall.ruleset_generation()
        if now == self._expected() and not self._commits:
            # The DNS gate commits for ever: what it left alone is counted off.
            self._known_generation = now
            return self._sound
        same = (
            self._sound
            and bool(self._digests)
            and await self.shows(
                loaded, levels
            )  # little to read, and enough when the table is gone
            and await self._firewall.fingerprint() == self._digests
        )
        if same and await self._firewall.ruleset_generation() == now:
            self._known_generation, self._commits = now, 0
        return same

    async def bring_up(
        self, policy: Policy, digest: str, addresses: Addresses, levels: Levels
    ) -> CompiledPolicy:
        """Make a state live from whatever the table is, keeping kept flows where the table stands.

        The program is loaded beside what is there, and then switched to. Only if the kernel refuses
        that (a base chain was changed) is the table replaced, which may drop packets for a moment.
        Where no table stands and the gate is to be shut, a small one holds the line until the
        allowlist is loaded, however large it is.
        """
        known = await self._firewall.ruleset_generation()
        commits = self._commits
        await self.survey()
        if await self._is_bare():
            await self._hold(policy, levels)
        elif digest in self.loaded and switch.base_policy(policy, levels) == "drop":
            # Whatever was done to the table: from here on it drops what no rule of it judges,
            # before anything is compiled.
            with contextlib.suppress(KernelError):
                await self._apply(
                    switch.skeleton(self.loaded[digest].program.learned)
                    + switch.gate_text(policy, self.loaded[digest].slot, levels)
                )
        loaded = await asyncio.get_running_loop().run_in_executor(
            self._thread, self.compile, policy, digest, addresses, self.new_slot()
        )
        # Never in one transaction: the kernel makes the elements of a concatenated interval map
        # visible only after the chains of the same transaction are live, and kept packets would be
        # refused in between (docs/datapath.md).
        try:
            await self._apply_load(loaded.program)
        except KernelError:
            await self._anew(loaded, levels)
        else:
            await self._fill_or_undo(loaded.program)
        # What was known of the table holds no more from here on, and nothing is known until it is
        # settled anew.
        self._known_generation, self._commits, self._digests = known, self._commits - commits, {}
        await self.switch(loaded, levels)
        self._step("applied")
        self.loaded = {digest: loaded}
        if not await self.shows(loaded, levels):
            await self._anew(loaded, levels)
            await self.switch(loaded, levels)
            await self.verify(loaded, levels, None)
        self._step("verified")
        try:
            await self.prune({digest})
        except KernelError:  # somebody put things into our table that can't be taken out one by one
            await self._anew(loaded, levels)
            await self.switch(loaded, levels)
            await self.verify(loaded, levels, None)
            await self.prune({digest})
        return loaded

    async def _fill_or_undo(self, program: Program) -> None:
        """Fill a program that was put beside what stands; what stands is left alone when that
        fails. KernelError.
        """
        try:
            await self._fill(program)
        except KernelError:
            with contextlib.suppress(KernelError):
                await self._apply(switch.undo_text(program))
            raise

    def guard(self, policy: Policy, levels: Levels) -> bool:
        """Shut the gate at once where the table is gone, unless all is open; say whether that was
        done. Needs no lock.

        What it commits is not counted: if something else of ours was under way it met the deletion,
        and fails or is healed.
        """
        inside = [name for zone in policy.site.zones for name in zone.interfaces]
        return switch.base_policy(policy, levels) == "drop" and self._firewall.apply_closed_table(
            inside
        )

    async def _is_guarded(self, policy: Policy, levels: Levels) -> bool:
        """Say whether the smallest table shuts the gate, further than any level, where somebody
        takes ours away at once.
        """
        for _ in range(_PATIENCE):
            with contextlib.suppress(Exception):  # no thread, no memory: it is tried again
                if self.guard(policy, levels):
                    return True
                if table_names.GUARD in await self._firewall.chains() and await self._is_bare():
                    return True
            await asyncio.sleep(0.005)
        return False

    async def _is_bare(self) -> bool:
        """Say whether no program stands: nothing at all, or base chains and the guard alone."""
        return {*await self._firewall.chains()} <= {
            *table_names.BASE_CHAINS,
            *table_names.SOURCE_CHAINS,
            table_names.DNS,
            table_names.GUARD,
        }

    async def _hold(self, policy: Policy, levels: Levels, *, anew: bool = False) -> None:
        """Hold the line with a small table, if the gate is to be shut; anew: in place of the one
        that stands, in any case.
        """
        shut = switch.base_policy(policy, levels) == "drop"
        text = switch.hold_text(policy, self.new_slot(), self._uids) if shut else ""
        if anew or text:
            await self._apply((switch.NEW_TABLE if anew else "") + text)
            self._redirect = dns_redirect.is_on(policy) and bool(text)

    async def _anew(self, loaded: CompiledPolicy, levels: Levels) -> None:
        """Replace the table by a program, in one transaction as far as the gate is concerned: shut
        stays shut.
        """
        await self._hold(loaded.policy, levels, anew=True)
        await self._put(loaded.program)

    async def hold_learned(self, addresses: Mapping[str, frozenset[IPAddress]]) -> None:
        """Give addresses in the DNS gate's sets their whole time again, and count it on: nothing
        else is another then.
        """
        settled = not self._commits
        await self._firewall.renew_learned(addresses)
        self._commits += 1
        now = await self._firewall.ruleset_generation()
        if settled and now == self._expected():
            self._known_generation, self._commits = now, 0

    async def prune(self, keep: set[str]) -> None:
        """Take policies out of the kernel that nothing needs any more, and remember what the table
        looks like.
        """
        await self._catch_up()
        self.loaded = {d: one for d, one in self.loaded.items() if d in keep or d in self.coming}
        slots = [one.slot for one in self.loaded.values()]
        counters = {c for one in self.loaded.values() for c in one.program.counters}
        learned = {name for one in self.loaded.values() for name in one.program.learned}
        try:
            text = switch.removal_text(await self._firewall.objects(), slots, counters, learned)
        except ValueError as error:
            raise KernelError(
                f"what stands in table inet ecluse can't be tidied: {error}"
            ) from error
        if text:
            await self._apply(text)
        self._redirect = bool(learned)
        await self.settle()

    async def update(self, addresses: Addresses) -> bool:
        """Bring every loaded policy to new addresses by single elements.

        False when one needs more than elements.
        """
        whole = True
        touched: set[str] = set()
        await self._catch_up()
        try:
            for digest, one in list(self.loaded.items()):
                fresh = with_addresses(one, addresses)
                change = delta(one.program, fresh.program)
                if change is None:
                    whole = False
                elif change:
                    touched |= change.sets()
                    await self._elements(change.gone, change.come)
                    self.loaded[digest] = fresh
        finally:
            if touched:
                await self._learn(touched)
        return whole

    async def _learn(self, touched: Iterable[str]) -> None:
        """Read those maps again whose elements were all that our own transactions changed."""
        before = self._digests
        if not before:
            await self.settle()
            return
        read = await self._firewall.fingerprint(touched)
        now = await self._firewall.ruleset_generation()
        self._sound = self._expected() in {None, now}
        self._known_generation, self._commits = now, 0
        self._digests = before | read if self._sound else {}


def _refused(error: Exception) -> KernelError:
    """Put whatever kept a closing from the kernel into words."""
    if isinstance(error, KernelError):
        return error
    return KernelError(
        f"the kernel could not be told of it ({type(error).__name__}: {error})",
        retry=True,
        hint="look at 'ecluse status', and repeat the command; 'ecluse cut --no-daemon' closes without the daemon",
    )
