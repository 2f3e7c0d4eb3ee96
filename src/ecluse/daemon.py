"""eclused: wires the adapters to the controller, and serves the socket.

The kernel stays as it is when the daemon ends.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

import ecluse
from ecluse import gc_pause, systemd_notify
from ecluse.accounts import Accounts
from ecluse.alerts import error_text
from ecluse.api.listener import activated_fds
from ecluse.api.server import ApiServer, serve
from ecluse.atomic_files import replace_file
from ecluse.config.load import ConfigDirectory
from ecluse.config.settings import Settings, load_settings
from ecluse.controller import Controller
from ecluse.controller.context import Options, Ports
from ecluse.controller.table.manager import Step
from ecluse.errors import ConfigError, EcluseError
from ecluse.extensions import EXTENSIONS
from ecluse.instance_lock import drop_pending, guard_network, lock_state
from ecluse.kernel.bypass_scan import KernelBypassScan
from ecluse.kernel.conntrack import NfConntrack
from ecluse.kernel.exit_table import NftExitTable
from ecluse.kernel.nft_firewall import NftFirewall
from ecluse.kernel.rtnl_links import RtnlLinks
from ecluse.output import STDOUT, Output, capture_prints, write_last_words
from ecluse.records import Action, Actor, Command
from ecluse.resolve.resolver import DnsResolver
from ecluse.results import Event
from ecluse.safe_text import replace_unsafe
from ecluse.state.audit_log import HashChainAudit
from ecluse.state.layout import CLOSED_AT_BOOT
from ecluse.state.store import DirectoryState

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
_LOUD = {"tamper", "fight", "leak", "exit", "warning", "forbidden"}


def utc_now() -> datetime:
    """Give the time now, aware."""
    return datetime.now(UTC)


def configure_log(settings: Settings) -> tuple[Any, Output]:
    """Make the daemon's log: a line of JSON each on standard output, or words for a console.

    Gives where they go, too.
    """
    renderer: Any = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=os.isatty(STDOUT))
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def missing(count: int) -> str:
        entry = {"event": f"{count} lines of this log could not be written", "level": "warning"}
        return f"{renderer(None, 'warning', stamp(None, 'warning', entry))}\n"

    output = Output(STDOUT, missing)
    structlog.configure(
        processors=[structlog.processors.add_log_level, stamp, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            getattr(logging, settings.log_level.upper())
        ),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, output)),
    )
    return structlog.get_logger(), output


SWITCH_INTERVAL = 0.0005
"""Seconds that a thread which reads a large allowlist keeps the interpreter while a cut wants it;
Python's own is 5 ms.
"""


def _give_memory_back() -> None:
    """Give memory back that the start left unused, 2 MiB and more (malloc_trim(3))."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


def _words_of(note: Path) -> str:
    """Give what the boot unit left in a note (systemd/boot.sh), empty when there is none."""
    try:
        return replace_unsafe(note.read_text(encoding="utf-8", errors="replace").strip())
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{note} cannot be read: {error.strerror}"


def _empty(run_dir: Path, name: str) -> None:
    """Empty the file by which an extension that is not used configures its process.

    It may be of a policy before. Where it is missing, that process would work by its last one.
    """
    file = run_dir / name
    with contextlib.suppress(OSError):
        if name and (not file.exists() or file.stat().st_size):
            replace_file(file, b"", mode=0o644, sync_name=False)


class Daemon:
    """One run of eclused.

    `step` and `adapters` are for tests that end the process at a step or wrap a port.
    """

    def __init__(
        self,
        settings: Settings,
        log: Any,
        *,
        step: Step = lambda _name: None,
        adapters: Callable[[Ports], Ports] = lambda ports: ports,
    ) -> None:
        self._settings = settings
        self._log = log
        self._step = step
        self._adapters = adapters
        self._stop = asyncio.Event()
        self.output: Output | None = None
        """Where its log goes, for `status` to say what of it was lost."""

    def _troubles(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.output.trouble if self.output else "",)))

    async def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, stop.

        EcluseError when it can't start; the kernel then stays as it was.
        """
        settings = self._settings
        # A terminal that closes, or a reload too early, must not end a daemon that is still
        # starting.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        lock = await asyncio.to_thread(lock_state, settings.state_dir)
        guard = await asyncio.to_thread(guard_network)
        asyncio.get_running_loop().add_reader(guard, drop_pending, guard)
        firewall = NftFirewall()
        exit_table = NftExitTable()
        store = DirectoryState(settings.state_dir)
        resolver = DnsResolver(
            clock=utc_now,
            timeout=settings.dns_timeout,
            minimum_ttl=settings.dns_minimum_ttl,
            known=await asyncio.to_thread(store.read_names),
            last_good=timedelta(days=settings.dns_keep_days),
        )
        links = RtnlLinks()
        ports = Ports(
            firewall=firewall,
            conntrack=NfConntrack(),
            links=links,
            resolver=resolver,
            store=store,
            audit=HashChainAudit(store.audit_path, utc_now),
            source=ConfigDirectory(settings.config_dir),
            clock=utc_now,
            bypass_scan=KernelBypassScan(),
            exit_table=exit_table,
        )
        closed_at_boot = settings.run_dir / CLOSED_AT_BOOT
        options = Options(
            version=ecluse.__version__,
            daemon_uid=os.getuid(),
            dns_uid=Accounts().uid(settings.dns_user),
            keep_generations=settings.keep_generations,
            keep_in_kernel=settings.keep_in_kernel,
            last_good=timedelta(days=settings.dns_keep_days),
            closed_at_boot=_words_of(closed_at_boot),
            extensions=EXTENSIONS,
            settings=settings,
        )
        controller = Controller(
            self._adapters(ports),
            options,
            step=self._step,
            log=self._log_event,
            troubles=self._troubles,
        )
        try:
            await controller.start()
            for unused in controller.parts.extensions.unused():
                await asyncio.to_thread(_empty, settings.run_dir, unused.config_file)
            # What stands now is the record's. Left in place after a crash before this line, it is
            # read once more.
            with contextlib.suppress(OSError):
                closed_at_boot.unlink(missing_ok=True)
            server = await self._serve(controller)
            gc_pause.collect_young_only()
            asyncio.get_running_loop().run_in_executor(None, _give_memory_back)
            try:
                await self._until_stopped(controller)
            finally:
                systemd_notify.notify("STOPPING=1")
                await server.close()
                await controller.stop()
        finally:
            await resolver.close()
            links.close()
            exit_table.close()
            firewall.close()
            os.close(lock)
            asyncio.get_running_loop().remove_reader(guard)
            guard.close()

    def _log_event(self, event: Event) -> None:
        say = self._log.warning if event.kind in _LOUD else self._log.info
        say(event.message, kind=event.kind, generation=event.generation, levels=dict(event.levels))

    async def _serve(self, controller: Controller) -> ApiServer:
        settings = self._settings
        return await serve(
            controller,
            socket_path=settings.socket,
            listen_fds=activated_fds(os.environ),
            mode=settings.permissions,
            group=settings.socket_group or "",
            readers=settings.readers_group,
            operators=settings.operators_group,
            log=self._log,
        )

    async def _until_stopped(self, controller: Controller) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(self._reload(controller))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        systemd_notify.notify("READY=1\nSTATUS=armed")
        seconds = systemd_notify.watchdog_seconds()
        if seconds is None:
            await self._stop.wait()
            return
        while not self._stop.is_set():
            await self._feed_watchdog(controller, seconds)

    async def _feed_watchdog(self, controller: Controller, seconds: float) -> None:
        """Give a sign of life only after the whole path to the kernel has worked once more."""
        try:
            async with asyncio.timeout(seconds):
                await controller.prove_alive()
            if controller.alive:
                systemd_notify.notify("WATCHDOG=1")
        except Exception as error:  # noqa: BLE001 - a look that fails is no reason to end
            self._log.error("no sign of life to the watchdog", why=repr(error))
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    async def _reload(self, controller: Controller) -> None:
        actor = Actor(os.getuid(), "eclused", os.getpid(), "SIGHUP")
        try:
            await controller.reload(Command(Action.RELOAD, actor, "SIGHUP", ""))
        except Exception as error:  # noqa: BLE001 - nobody waits for it: the log has it
            self._log.error("reload failed; the allowlist before it stands", why=str(error))


def fail(error: EcluseError) -> int:
    """Say on standard error what is wrong and what to do; give the exit code."""
    write_last_words(
        "".join(f"eclused: {words}\n" for words in (error.message, error.hint) if words)
    )
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


def unexpected(error: Exception) -> EcluseError:
    """Say what ended the daemon: what, where, and that the gate stands as it did."""
    return EcluseError(
        f"the daemon could not go on: {error_text(error)}; the gate stays as it stands",
        hint="free what the machine lacks (memory, descriptors, processes), then start it again; "
        "'ecluse cut --no-daemon' closes without it",
    )


def _ignored(fault: "sys.UnraisableHookArgs") -> None:
    """Say in a line what Python can only ignore (a destructor that fails), not as a traceback."""
    with contextlib.suppress(Exception):
        sys.stderr.write(f"eclused: ignored: {fault.exc_value!r}\n")


def main(
    argv: Sequence[str] | None = None, make: Callable[[Settings, Any], Daemon] = Daemon
) -> int:
    """Run the daemon in the foreground.

    Exit codes: 0 stopped, 1 could not run, 2 settings or site's files are wrong.
    """
    try:
        sys.unraisablehook = _ignored
        settings = load_settings(sys.argv[1:] if argv is None else argv, os.environ)
        log, output = configure_log(settings)
        sys.setswitchinterval(SWITCH_INTERVAL)
        with capture_prints(output):
            daemon = make(settings, log)
            daemon.output = output
            with asyncio.Runner() as runner:
                runner.run(daemon.run())
    except EcluseError as error:
        return fail(error)
    except KeyboardInterrupt:
        return EXIT_DONE
    except Exception as error:  # noqa: BLE001 - no traceback at 3 in the morning
        return fail(unexpected(error))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
