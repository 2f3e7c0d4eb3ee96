"""The gateway as a virtual machine.

Debian's own kernel, boots in 10 to 20 s under emulation, loses power when told to.

It is commanded through the guest agent (a serial line: no cut reaches it), its network cards end in
the lab's namespaces. Its writes go to an overlay of its own. A reboot ends the emulator and starts
it again on the same disk.
"""

import base64
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.lab.hosts import ROOT
from tests.vm import guest, images, taps
from tests.vm.nspawn import Done

# Parts of a boot that no test looks at; each costs up to a second under emulation.
_MASKED = (
    *(
        "e2scrub_reap.service",
        "systemd-logind.service",
        "getty@tty1.service",
        "serial-getty@ttyS0.service",
    ),
    *("systemd-binfmt.service", "systemd-pstore.service", "systemd-random-seed.service"),
    *("modprobe@configfs.service", "modprobe@drm.service", "modprobe@efi_pstore.service"),
    *(
        "modprobe@loop.service",
        "modprobe@dm_mod.service",
        "dev-hugepages.mount",
        "dev-mqueue.mount",
    ),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
)
_KERNEL = (
    "root=/dev/nvme0n1 rootfstype=ext4 rw console=ttyS0 net.ifnames=0 quiet panic=-1 "
    "mitigations=off "
    "systemd.show_status=yes " + " ".join(f"systemd.mask={unit}" for unit in _MASKED)
)


PATIENCE = (
    400.0  # seconds for a boot: 15 on an idle machine with two cores, ten times that on a busy one
)


class _Line:
    """A UNIX socket that speaks JSON, a line a message: the guest agent's or the emulator's own."""

    def __init__(self, path: Path, deadline: float) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._sock.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    self._sock.close()
                    raise
                time.sleep(0.01)
        self._inbox = b""

    def send(self, **message: Any) -> None:
        self._sock.settimeout(PATIENCE)
        self._sock.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float) -> dict:
        """Give the next message. TimeoutError, EOFError."""
        self._sock.settimeout(timeout)
        while b"\n" not in self._inbox:
            data = self._sock.recv(65536)
            if not data:
                raise EOFError
            self._inbox += data
        line, _, self._inbox = self._inbox.partition(b"\n")
        return json.loads(line.strip(b"\xff"))

    def close(self) -> None:
        self._sock.close()


class Machine:
    """One virtual machine.

    `start` or `boot` it, act with `sh`, end it with `reboot`, `poweroff` or `power_cut`.

    backing: a raw image or another machine's overlay, never written to. links: for each network
    card, in the order of guest.INTERFACES, `(namespace, tap)`. home: the namespace of the emulator
    itself.
    """

    switched_on: ClassVar[set["Machine"]] = set()

    def __init__(
        self,
        folder: Path,
        disk: images.Disk,
        *,
        home: str,
        links: Sequence[tuple[str, str]],
        backing: Path | None = None,
        memory: str = "512M",
    ) -> None:
        self.folder, self.kernel = folder, disk.kernel
        self._memory = memory
        self._home, self._links = home, tuple(links)
        self._process: subprocess.Popen[bytes] | None = None
        self._agent: _Line | None = None
        self._monitor: _Line | None = None
        self.disk = folder / "disk.qcow2"
        self._console, self._told = folder / "console.log", folder / "told.log"
        folder.mkdir(parents=True)
        base, kind = (backing, "qcow2") if backing else (disk.image, "raw")
        subprocess.run(
            [
                "qemu-img",
                "create",
                "-q",
                "-f",
                "qcow2",
                "-b",
                str(base),
                "-F",
                kind,
                str(self.disk),
            ],
            check=True,
        )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # -- life

    def start(self, *, without: Sequence[str] = ()) -> None:
        """Switch it on and do not wait. without: interfaces whose cable is pulled (see `cable`)."""
        if self._process is not None:
            raise RuntimeError("the machine is running already")
        for name in ("agent", "monitor"):
            (self.folder / name).unlink(missing_ok=True)
        with (self.folder / "emulator.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(
                        "setpriv",
                        "--pdeathsig",
                        "KILL",
                        sys.executable,
                        "-S",
                        "-m",
                        "tests.vm.taps",
                        self._home,
                    ),
                    *(f"{namespace}:{tap}" for namespace, tap in self._links),
                    *("--", *images.emulator(), *self._arguments()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        Machine.switched_on.add(self)
        deadline = time.monotonic() + PATIENCE
        self._monitor = self._attempt(lambda: _Line(self.folder / "monitor", deadline))
        self._monitor.receive(PATIENCE)
        self.monitor("qmp_capabilities")
        for interface in without:
            self.cable(interface, plugged=False)
        self.monitor("cont")

    def _arguments(self) -> list[str]:
        here, channel = self.folder, "virtserialport"
        cards = [
            part
            for number, interface in enumerate(guest.INTERFACES[: len(self._links)])
            for part in (
                *("-netdev", f"tap,id={interface},fd={taps.FIRST + number}"),
                *(
                    "-device",
                    (
                        f"virtio-net-pci,netdev={interface},mac={guest.mac(interface)},"
                        f"id={interface}-card,romfile="
                    ),
                ),
            )
        ]
        return [
            *(
                "-M",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-smp",
                "2",
                "-cpu",
                "Nehalem",
                "-m",
                self._memory,
            ),
            *("-nodefaults", "-display", "none", "-no-reboot", "-S"),
            *(
                "-chardev",
                f"file,id=console,path={self._console},append=on",
                "-serial",
                "chardev:console",
            ),
            *(
                "-drive",
                f"file={self.disk},if=none,id=disk,format=qcow2",
                "-device",
                "nvme,serial=a,drive=disk",
            ),
            *cards,
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,path={here / 'agent'},server=on,wait=off"),
            *("-device", f"{channel},chardev=agent,name=org.qemu.guest_agent.0"),
            *("-chardev", f"file,id=told,path={self._told},append=on"),
            *("-device", f"{channel},chardev=told,name={Path(guest.TOLD).name}"),
            *("-qmp", f"unix:{here / 'monitor'},server=on,wait=off"),
            *("-kernel", str(self.kernel), "-append", _KERNEL),
        ]

    def boot(
        self,
        patience: float = PATIENCE,
        *,
        without: Sequence[str] = (),
        until: str = "multi-user.target",
    ) -> float:
        """Switch it on, wait until that unit is active; give the seconds that took."""
        began = time.monotonic()
        self.start(without=without)
        self.wait_until_up(patience, until=until)
        return time.monotonic() - began

    def wait_until_up(
        self, patience: float = PATIENCE, *, until: str = "multi-user.target"
    ) -> None:
        """Wait until its agent answers and that unit is active.

        RuntimeError with the console when it takes longer.
        """
        deadline = time.monotonic() + patience
        if self._agent is None:
            self._agent = self._attempt(lambda: _Line(self.folder / "agent", deadline))
        number = 0
        while True:
            self._must_live(deadline)
            number += 1
            self._agent.send(execute="guest-sync", arguments={"id": number})
            with contextlib.suppress(TimeoutError, ValueError):
                if any(self._agent.receive(2).get("return") == number for _ in range(number)):
                    break
        while not self.sh(f"systemctl is-active -q {until}").ok:
            self._must_live(deadline)
            time.sleep(0.3)

    def _must_live(self, deadline: float) -> None:
        if not self.running:
            raise RuntimeError(f"the machine ended before it was up:\n{self.logs()}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the machine did not come up in time:\n{self.logs()}")

    def _attempt(self, connect: Callable[[], _Line]) -> _Line:
        try:
            return connect()
        except OSError as error:
            raise RuntimeError(f"the emulator does not answer ({error}):\n{self.logs()}") from None

    def reboot(self, patience: float = PATIENCE, *, without: Sequence[str] = ()) -> float:
        """`systemctl reboot` inside, then on again; give the seconds both took."""
        began = time.monotonic()
        self.shutdown("reboot")
        self.boot(patience, without=without)
        return time.monotonic() - began

    def shutdown(self, verb: str = "poweroff", patience: float = PATIENCE) -> None:
        """`systemctl poweroff` (or another verb) inside; wait until the machine is off."""
        # the agent may be stopped before it can say that the order was given
        self._ask("guest-exec", path="/usr/bin/systemctl", arg=[verb, "--no-block"])
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the machine did not shut down:\n{self.logs()}") from None
        self._gone()

    def power_cut(self) -> None:
        """SIGKILL to the emulator: what the guest had not flushed to its disk is gone.

        Harmless when it is off.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._gone()

    def _gone(self) -> None:
        for line in (self._agent, self._monitor):
            if line is not None:
                line.close()
        self._process = self._agent = self._monitor = None
        Machine.switched_on.discard(self)

    # -- acting in it

    def sh(self, script: str, *, timeout: float = PATIENCE, check: bool = False) -> Done:
        """Run a shell script inside, as its root.

        check=True: RuntimeError with its words when it fails.
        """
        started = self._ask(
            "guest-exec", path="/bin/sh", arg=["-c", script], **{"capture-output": True}
        )
        deadline = time.monotonic() + timeout
        pause = 0.02
        while not (state := self._ask("guest-exec-status", pid=started["pid"]))["exited"]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{script}: not done in {timeout} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        out, err = (
            base64.b64decode(state.get(name, "")).decode(errors="replace")
            for name in ("out-data", "err-data")
        )
        done = Done(state.get("exitcode", -state.get("signal", 0)), out, err)
        if check and not done.ok:
            raise RuntimeError(f"{script}: exit {done.code}:\n{out}{err}")
        return done

    def write(self, path: str, text: str) -> None:
        """Write a file inside."""
        data = base64.b64encode(text.encode()).decode()
        self.sh(f"mkdir -p {Path(path).parent} && echo {data} | base64 -d > {path}", check=True)

    def _ask(self, order: str, **arguments: Any) -> Any:
        self._agent.send(execute=order, arguments=arguments)
        try:
            answer = self._agent.receive(PATIENCE)
        except (TimeoutError, EOFError, OSError) as error:
            raise RuntimeError(
                f"the guest agent does not answer ({error!r}):\n{self.logs()}"
            ) from None
        if "return" not in answer:
            raise RuntimeError(f"{order}: {answer}")
        return answer["return"]

    def monitor(self, order: str, **arguments: Any) -> Any:
        """Have the emulator do something (QMP)."""
        self._monitor.send(execute=order, arguments=arguments)
        while True:
            answer = self._monitor.receive(PATIENCE)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"{order}: {answer['error']}")

    def cable(self, interface: str, *, plugged: bool) -> None:
        """Pull or plug a network card's cable."""
        self.monitor("set_link", name=interface, up=plugged)

    def told(self) -> list[str]:
        """Give the lines that the guest wrote to guest.TOLD, of all its boots.

        A torn last one is not among them.
        """
        text = (
            self._told.read_text(encoding="utf-8", errors="replace") if self._told.exists() else ""
        )
        return text.split("\n")[:-1]

    def logs(self, lines: int = 60) -> str:
        """Give the end of the console and of what the emulator said."""
        parts = []
        for path in (self._console, self.folder / "emulator.log"):
            if path.exists():
                text = path.read_text(encoding="utf-8", errors="replace").splitlines()
                parts.append(f"-- {path.name}\n" + "\n".join(text[-lines:]))
        return "\n".join(parts)

    def journal(self, lines: int = 150) -> str:
        """Give the end of its journal, while it runs."""
        if not self.running or self._agent is None:
            return ""
        return self.sh(f"journalctl -n {lines} --no-pager -o short-monotonic").out
