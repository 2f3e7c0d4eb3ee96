"""The parts of the controller, made in order: each is given what it needs by name.

commands: `Planner`, `Transition`, `Startup`. Background tasks: `tasks/`. Records: `persist/`. Our
table in the kernel: `table/`. A part is given only parts that were made before it.

To add a task: make it in `_make_tasks`, and begin it in `begin_tasks`. What follows the levels is
named in `on_change`; what needs the counters in `counter_readers`; its alerts are registered with
`Alerts.register`; its part of the status is collected in `observe`.
"""

import os
from collections.abc import Callable

from ecluse.alerts import Alerts, by_severity
from ecluse.controller.context import Options, Ports
from ecluse.controller.events import EventBroadcaster
from ecluse.controller.extension_host import ExtensionHost
from ecluse.controller.live_state import LiveState, addresses_of
from ecluse.controller.persist.change_records import ChangeRecords
from ecluse.controller.plan import Planner
from ecluse.controller.startup import Startup
from ecluse.controller.status import Observations, StatusReader
from ecluse.controller.table.manager import Step, TableManager
from ecluse.controller.tasks.after_change import AfterChange
from ecluse.controller.tasks.flows import FlowJudges, FlowTask
from ecluse.controller.tasks.flowtable import FlowtableTask
from ecluse.controller.tasks.host_names import AddressChanges, AddressUse
from ecluse.controller.tasks.kernel_limits import KernelLimitsTask
from ecluse.controller.tasks.links import LinkReader, LinkTask
from ecluse.controller.tasks.preload import Preloader
from ecluse.controller.tasks.record_upkeep import RecordUpkeep
from ecluse.controller.tasks.regular_look import RegularLook
from ecluse.controller.tasks.second_lock import SecondLockTask
from ecluse.controller.tasks.supervisor import Supervisor
from ecluse.controller.tasks.tamper import Reconciler
from ecluse.controller.transition import Transition
from ecluse.extension import Environment
from ecluse.name_advice import Knowledge, owners_of
from ecluse.records import Actor
from ecluse.results import Event


class Parts:
    """Every part of the controller, joined to the others.

    Args:
        ports: the outside.
        options: the daemon's settings.
        step: called with the name of each step of a change as it is passed.
        log: takes every event.
        troubles: gives what the process itself suffers from.
    """

    def __init__(
        self,
        ports: Ports,
        options: Options,
        step: Step,
        log: Callable[[Event], None],
        troubles: Callable[[], tuple[str, ...]],
    ) -> None:
        self._ports = ports
        self._options = options
        self._step = step
        self._troubles = troubles
        self.itself = Actor(os.getuid(), "eclused", os.getpid(), "eclused")
        self.live = LiveState()
        self.events = EventBroadcaster(ports.clock, self.live.summary, log)
        self.alerts = Alerts(ports.clock, self.events.emit)
        # What is true at the moment of a status alone; nobody would clear it for the commands.
        self._status_alerts = Alerts(ports.clock, self.events.emit)
        self._make_table_and_records()
        self._make_tasks()
        self._make_commands()

    def _make_table_and_records(self) -> None:
        ports, options, live = self._ports, self._options, self.live

        def warn(text: str) -> None:
            self.events.emit("warning", text)

        self._addresses = lambda: addresses_of(ports.resolver.known())
        self.table = TableManager(ports.firewall, self._addresses, options.uids, self._step, warn)
        self.records = ChangeRecords(
            store=ports.store,
            audit=ports.audit,
            live=live,
            seconds=options.seconds,
            clock=ports.clock,
            itself=self.itself,
            uids=options.uids,
            keep_generations=options.keep_generations,
            known_names=ports.resolver.known,
            step=self._step,
        )

    def _make_tasks(self) -> None:
        ports, options, live = self._ports, self._options, self.live
        alerts, emit, clock = self.alerts, self.events.emit, ports.clock
        table, records = self.table, self.records
        self.supervisor = Supervisor(alerts)
        run_aside = self.supervisor.run_aside
        self.upkeep = RecordUpkeep(live, records, options.keep_generations, emit)
        self.judges = FlowJudges(live, ports.firewall, ports.links, options.daemon_uid)
        self.flows = FlowTask(
            live=live,
            judges=self.judges,
            conntrack=ports.conntrack,
            clock=clock,
            alerts=alerts,
            emit=emit,
        )
        self.preloader = Preloader(
            live=live,
            table=table,
            resolver=ports.resolver,
            generations=records.generations,
            read_policy=records.read_policy,
            keep_in_kernel=options.keep_in_kernel,
            alerts=alerts,
            step=self._step,
        )
        self.extensions = ExtensionHost(
            extensions=options.extensions,
            environment=Environment(
                settings=options.settings,
                policy=lambda: live.current.policy,
                levels=lambda: live.current.levels,
                firewall=ports.firewall,
                clock=clock,
                alerts=alerts,
                emit=emit,
            ),
            run_for_ever=self.supervisor.run_for_ever,
            contain=self.supervisor.contain,
            report_fault=self.supervisor.report_fault,
        )
        self.link_reader = LinkReader(ports.links)
        self.flowtable = FlowtableTask(
            live=live,
            firewall=ports.firewall,
            count_commit=table.tracker.confirm_commit,
            look_at_links=self.link_reader.look,
            alerts=alerts,
        )
        self.second_lock = SecondLockTask(
            live=live,
            table=ports.exit_table,
            count_commit=table.tracker.confirm_commit,
            look_at_links=self.link_reader.look_patiently,
            addresses=self._addresses,
            store_for_boot=records.store_boot_lock,
            remove_for_boot=records.remove_boot_lock,
            append_line=records.append_lines,
            itself=self.itself,
            tick=options.tick,
            clock=clock,
            alerts=alerts,
            emit=emit,
        )
        self.after_change = AfterChange(
            hold_lock=live.lock.hold,
            run_aside=run_aside,
            on_change=(self.second_lock.follow, self.extensions.follow),
            announce_purge=self.flows.announce_purge,
            purge=self.flows.purge,
            prune=self.preloader.prune,
            prepare_files=self.upkeep.prepare_files,
            keep_previous_ready=self.preloader.keep_previous_ready,
            emit=emit,
            at_last=self.flowtable.follow,
        )
        self.reconciler = Reconciler(
            live=live,
            table=table,
            records=records,
            firewall=ports.firewall,
            clock=clock,
            itself=self.itself,
            run_aside=run_aside,
            report_fault=self.supervisor.report_fault,
            after_change=self.after_change.begin,
            end_leaked=self.flows.end_leaked,
            keep_previous_ready=self.preloader.keep_previous_ready,
            hear_second_lock=self.second_lock.hear,
            alerts=alerts,
            emit=emit,
        )
        self.address_changes = AddressChanges(
            live=live,
            table=table,
            resolver=ports.resolver,
            run_aside=run_aside,
            keep_previous_ready=self.preloader.keep_previous_ready,
            save_names=self.upkeep.save_names,
            renew_boot_soon=self.upkeep.renew_boot_soon,
            before_update=self.second_lock.before_update,
            on_update=self.second_lock.follow,
            alerts=alerts,
            emit=emit,
        )
        self.address_use = AddressUse(
            live=live,
            table=table,
            resolver=ports.resolver,
            conntrack=ports.conntrack,
            firewall=ports.firewall,
            judge_for=self.judges.judge_for,
            save_names=self.upkeep.save_names,
            tick=options.tick,
            alerts=alerts,
        )
        self.links = LinkTask(
            live=live,
            links=ports.links,
            bypass_scan=ports.bypass_scan,
            reader=self.link_reader,
            append_line=records.append_lines,
            itself=self.itself,
            alerts=alerts,
            emit=emit,
            second_lock_stands=self.second_lock.stands,
            on_interface=self.second_lock.follow,
            on_rename=self.second_lock.follow_renamed,
            on_change=self.flowtable.follow,
        )
        self.kernel_limits = KernelLimitsTask(ports.links, alerts)
        self.regular_look = RegularLook(
            live=live,
            table=table,
            firewall=ports.firewall,
            clock=clock,
            counter_readers=(self.extensions.read_counters,),
            alerts=alerts,
        )

    def _make_commands(self) -> None:
        ports, live, alerts, emit = self._ports, self.live, self.alerts, self.events.emit
        self.planner = Planner(
            live=live,
            records=self.records,
            source=ports.source,
            conntrack=ports.conntrack,
            addresses=self._addresses,
            uids=self._options.uids,
            look_at_links=self.link_reader.look,
            judge_for=self.judges.judge_for,
            find_refused=self.judges.refused,
            place_near_peers=self.judges.place_near_peers,
            bypasses=self.links.bypasses_at,
            alerts=alerts,
        )
        self.transition = Transition(
            live=live,
            table=self.table,
            records=self.records,
            look_at_links=self.link_reader.look,
            restore=self.reconciler.restore,
            request_check=self.reconciler.request_check,
            after_change=self.after_change.begin,
            before_opening=self.second_lock.before_opening,
            itself=self.itself,
            alerts=alerts,
            emit=emit,
            step=self._step,
        )
        self.status_reader = StatusReader(
            live=live,
            firewall=ports.firewall,
            links=ports.links,
            look_at_kernel=self.regular_look.look,
            look_at_links=self.link_reader.look,
            count=self.second_lock.count,
            tell_links=self.links.raise_alerts,
            observe=self.observe,
            knowledge=self._knowledge,
            notices=lambda: (*self._troubles(), *map(str, ports.source.warnings())),
            version=self._options.version,
            alerts=alerts,
        )
        self.startup = Startup(
            live=live,
            table=self.table,
            records=self.records,
            store=ports.store,
            source=ports.source,
            resolver=ports.resolver,
            conntrack=ports.conntrack,
            closed_at_boot=self._options.closed_at_boot,
            itself=self.itself,
            run_aside=self.supervisor.run_aside,
            alerts=alerts,
            emit=emit,
        )

    # -- the background work -----------------------------------------------------------------------

    def listen(self) -> None:
        """Hear announcements of kernel and resolver from now on, before the tasks begin."""
        self.reconciler.listen()
        self.address_changes.listen()

    def begin_tasks(self) -> None:
        """Begin the background work."""
        run = self.supervisor.run_for_ever
        run("hearing of changes of the table", self.reconciler.hear)
        run("restoring the table", self.reconciler.reconcile)
        run("reading back what was loaded", self.regular_look.read_back)
        run("following addresses of host names", self.address_changes.follow)
        run("hearing of changes of links", self.links.hear)
        run("looking at the links", self.links.run)
        run("looking who uses which address", self.address_use.run)
        run("keeping the flowtable of kept flows", self.flowtable.run)
        run("keeping the second lock", self.second_lock.run)
        run("looking how full the kernel's tables are", self.kernel_limits.run)
        self.extensions.follow()
        steps = (
            ("comparing with the kernel", self.regular_look.look_or_alert),
            ("putting the table back", self.reconciler.recheck),
            ("telling that a series of changes is over", self.reconciler.end_series),
            ("loading new addresses", self.address_changes.retry),
            ("ending old connections", self.flows.retry_purge),
            ("recording what waits", self.upkeep.write_waiting),
            ("tidying old records", self.upkeep.tidy),
            ("renewing the boot ruleset", self.upkeep.renew_boot_when_due),
            ("loading extensions", self.extensions.load_missing),
            ("giving memory back", self.regular_look.collect_garbage),
        )
        self.supervisor.run_regularly("the regular look", self._options.tick, steps)

    # -- observations ------------------------------------------------------------------------------

    def observe(self) -> Observations:
        """Collect what the parts noticed, for `status`."""
        live, alerts, waiting = self.live, self._status_alerts, self.records.queue.waiting
        if self.events.log_failure:
            alerts.raise_alert("event-log-failed", error=self.events.log_failure)
        if waiting:
            alerts.raise_alert("not-recorded", writes=", ".join(waiting))
        else:
            alerts.clear("not-recorded")
        if live.in_step:
            alerts.clear("out-of-step")
        else:
            alerts.raise_alert("out-of-step")
        extensions = self.extensions.states()  # before the alerts: it raises those of its own
        return Observations(
            alerts=by_severity((*alerts.standing(), *self.alerts.standing())),
            in_step=live.in_step,
            checked=live.checked or self._ports.clock(),
            counters=self.regular_look.counters,
            last_packet=dict(self.regular_look.last_packet),
            purge=self.flows.purges.get(live.current.generation.number),
            tamper=self.reconciler.last_tamper,
            leak=self.flows.last_leak,
            bypasses=self.links.bypass_texts(),
            tables=self.kernel_limits.tables,
            extensions=extensions,
            recorded=not waiting,
            second_lock=self.second_lock.state(),
        )

    def _knowledge(self) -> Knowledge:
        """Give all that is known of host names now; to be called on a thread."""
        resolver, known = self._ports.resolver, self._ports.resolver.known()
        last_good, now = self._options.last_good, self._ports.clock()
        return Knowledge(known, resolver.tallies(), last_good, now, owners_of(known))
