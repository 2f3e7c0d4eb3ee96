"""One contender's gateway.

A hospital of its own, a stream that is not kept, the witness, and a way to run commands.
"""

import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ecluse.api.client import Client
from tests.bench import raw, site
from tests.lab import places
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT

PATIENCE = 240.0  # seconds for one command of a peer; firewalld with 100,000 entries takes long


@dataclass(frozen=True, slots=True)
class Run:
    """A command that ran.

    When it was sent off and when its answer was there, nanoseconds since the epoch.
    """

    began: int
    ended: int
    error: str = ""

    @property
    def ms(self) -> float:
        return (self.ended - self.began) / 1e6


class Helper:
    """A process of ours in a namespace that takes lines and answers by lines; ended by `close`."""

    def __init__(self, namespace: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            start_new_session=True,
        )
        self.answer()

    def say(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self, patience: float = 30.0) -> str:
        if not select.select([self.process.stdout], [], [], patience)[0]:
            self.process.kill()
            raise RuntimeError(f"no answer within {patience:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a helper of the benchmark has ended")
        return line.strip()

    def ask(self, line: str, patience: float = 30.0) -> str:
        self.say(line)
        return self.answer(patience)

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def launched(launcher: Helper, *argv: str) -> Run:
    """Have a launcher (launcher.py) run a command. RuntimeError when it failed."""
    began, ended, code, output = json.loads(launcher.ask(json.dumps(argv), PATIENCE))
    if code:
        raise RuntimeError(f"{' '.join(argv)[:200]}: exit {code}: {output.strip()[-400:]}")
    return Run(began, ended)


class Gate:
    """A gateway to be cut. Use as a context manager."""

    def __init__(self) -> None:
        self.hospital = Hospital()
        self.senders: list[Helper] = []
        self.daemon: Daemon | None = None
        self._client: Client | None = None
        self._macs: dict[tuple[str, str, str], tuple[bytes, bytes]] = {}

    def __enter__(self) -> Self:
        self.hospital.__enter__()
        try:
            self._build()
        except BaseException:
            self.hospital.close()
            raise
        return self

    def _build(self) -> None:
        gateway = self.hospital.namespace("gw")
        self.hospital.nft(site.DEAD_END, "inet")
        for address in (
            site.CUT_OFF.v4,
            site.CUT_OFF.v6,
        ):  # neighbours are found before anything is timed
            self.hospital.care.udp(address, 5001)
        self.launcher = Helper(gateway, str(ROOT / "tests/bench/launcher.py"))
        self.witness = raw.Witness(self.hospital.namespace("inet"), "uplink")
        self.stream = self.sender([self.frame("udp", site.CUT_OFF.v4)], 10_000)

    def __exit__(self, *_: object) -> None:
        for helper in (*self.senders, self.launcher):
            helper.close()
        self.witness.close()
        self.hospital.close()

    @property
    def directory(self) -> Path:
        return self.hospital.directory

    def macs(
        self, role: str = "care", interface: str = "care0", own: str = "eth0"
    ) -> tuple[bytes, bytes]:
        """Give the hardware addresses of a frame that a host of this role sends to the gateway.

        They are read once: each reading waits 15 ms for the kernel, and frames are many.
        """
        known = self._macs.get((role, interface, own))
        if known is None:
            known = self._macs[role, interface, own] = (
                raw.mac(self.hospital.namespace("gw"), interface),
                raw.mac(self.hospital.namespace(role), own),
            )
        return known

    def frame(self, kind: str, to: str, source_port: int = 40_000, source: str = "") -> bytes:
        """Give a frame of 64 bytes from the care host to an outside address."""
        ours = places.CARE_HOST
        source = source or (ours.v6 if ":" in to else ours.v4)
        return raw.frame(self.macs(), kind, source, to, source_port, site.PORT)

    def sender(
        self, frames: list[bytes], rate: int, role: str = "care", interface: str = "eth0"
    ) -> Helper:
        """Make a sender of these frames (see sender.py), silent until told to go."""
        path = self.directory / f"frames{len(self.senders)}"
        raw.write_frames(path, frames)
        program = str(ROOT / "tests/bench/sender.py")
        made = Helper(self.hospital.namespace(role), program, interface, str(path), str(rate))
        self.senders.append(made)
        return made

    # -- commands

    def launch(self, *argv: str) -> Run:
        """Run a command in the gateway. RuntimeError when it failed."""
        return launched(self.launcher, *argv)

    def shell(self, script: str) -> Run:
        return self.launch("sh", "-eu", "-c", script)

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    # -- ours

    def make_daemon(self, allowlist: dict, **more) -> Daemon:
        """Make the daemon of this gateway and write its files; it is not started."""
        self.daemon = self.hospital.daemon(allowlist=allowlist, **{"site": site.only_care()} | more)
        self._client = Client(str(self.daemon.socket), 60.0)
        return self.daemon

    def start_daemon(self, allowlist: dict, **more) -> Daemon:
        """Make the daemon and start it."""
        return self.make_daemon(allowlist, **more).start(PATIENCE)

    def ask(self, path: str, body: dict | None = None) -> tuple[Run, dict]:
        """Ask the daemon's API by the client that the command line uses."""
        began = time.time_ns()
        answer = self._client.get(path) if body is None else self._client.post(path, body)
        return Run(began, time.time_ns()), answer

    def level(self, level: str) -> Run:
        run, change = self.ask("/v1/level", {"level": level, "reason": "benchmark"})
        if not change["verified"] or change["unrecorded"]:
            raise RuntimeError(f"not verified or not recorded: {change}")
        return run

    def wait_for_purge(self, patience: float = 60.0) -> dict:
        """Wait until what a change left to do in the background is done; give the purge."""
        number = self.ask("/v1/status")[1]["generation"]
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            purge = self.ask(f"/v1/generations/{number}")[1]["purge"]
            if purge is None or purge["state"] != "running":
                return purge
            time.sleep(0.005)
        raise RuntimeError("the end of connections did not come")

    def wait_for_second_lock(self, patience: float = 60.0) -> dict | None:
        """Wait until the second lock stands where it is wanted, and is gone where it is not.

        Give what is known of it.
        """
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            # a daemon of an earlier version says nothing of it
            lock: dict | None = self.ask("/v1/status")[1].get("second_lock")
            if lock is None or lock["stands"] == lock["wanted"]:
                return lock
            time.sleep(0.02)
        raise RuntimeError(f"the second lock is not as it should be: {lock['why']}")

    def cli_argv(self, *arguments: str) -> list[str]:
        """Give the command as the package has it, on the code of this checkout."""
        program = self.directory / "ecluse"
        if not program.exists():
            text = (ROOT / "packaging/launchers/ecluse").read_text()
            program.write_text(text.replace("/usr/lib/ecluse/python", str(ROOT / "src")))
            program.chmod(0o755)
        return [str(program), "--socket", str(self.daemon.socket), *arguments]


@dataclass(frozen=True, slots=True)
class Cutting:
    """One cut.

    to_last: ms from the trigger to the last packet outside, None when it went on; to_answer: ms.

    leaked: packets seen outside after the answer. flowed: packets were seen between trigger and
    answer; without them nothing was measured, for the machine held up the stream.
    """

    to_last: float | None
    to_answer: float
    leaked: int
    flowed: bool = True


def measure_cut(gate: Gate, cut: Callable[[Gate], Run], settle: float = 0.02) -> Cutting:
    """Cut while the stream of 10,000 packets a second runs, and look outside when its last packet
    was seen.
    """
    gate.witness.take()
    gate.stream.say("go")
    deadline = time.monotonic() + 2.0
    seen = 0
    while seen < settle * 10_000 / 4:  # a sender that is not scheduled at once has its time
        time.sleep(settle)
        seen = sum(map(len, gate.witness.take().values()))
        if time.monotonic() > deadline:
            gate.stream.ask("stop")
            raise RuntimeError("the stream does not flow before the cut: nothing is measured")
    flows: dict = {}
    run = _while_watching(gate, cut, flows)
    time.sleep(0.02)
    gate.stream.ask("stop")
    gate.witness.take(flows)
    wanted = [
        t for key, times in flows.items() if raw.destination(key) == site.CUT_OFF.v4 for t in times
    ]
    after = [t for t in wanted if t > run.began]
    late = [t for t in wanted if t > run.ended]
    last = max(after, default=run.began)
    # A stream that still flows 15 ms after the answer was not cut by it.
    went_on = bool(late) and max(late) > run.ended + 15_000_000
    to_last = None if went_on else (last - run.began) / 1e6
    return Cutting(to_last, run.ms, len(late), flowed=bool(after))


def _while_watching(gate: Gate, cut: Callable[[Gate], Run], flows: dict) -> Run:
    """Run the cut on a thread, and empty the witness's ring now and then: a peer may take long."""
    done = threading.Event()
    found: list = []

    def work() -> None:
        try:
            found.append(cut(gate))
        except Exception as error:
            found.append(error)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.wait(1.0):
        gate.witness.take(flows)
    thread.join()
    if isinstance(found[0], Exception):
        gate.stream.ask("stop")
        raise found[0]
    return found[0]
