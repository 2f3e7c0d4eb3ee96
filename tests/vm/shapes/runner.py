"""Plays shapes inside the guest: `python3 -m shapes.runner [--at-once N] [NAME ...]`.

Writes a line of JSON for each: what was echoed, what was seen outside, what the product said.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from http import HTTPStatus
from pathlib import Path
from typing import Any

from . import product
from .catalogue import SHAPES
from .place import HOST, KEPT, OTHER, Place, until
from .shape import DIES, LEAKS, Shape
from .traffic import PATIENCE, Echo, Streams, Way, Witness, ask, ways

LONGEST = 600  # seconds for a shape: 20 on a quiet machine
WATCHED = 1.0  # seconds in which streams run at a level


class Gate:
    """The daemon of a shape, with its own files and socket."""

    def __init__(self, place: Place, shape: Shape) -> None:
        self._place, folder = place, place.folder
        self._socket, self._config = folder / "run/ecluse.sock", folder / "config"
        for name in ("config/allowlist.d", "state", "run"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        site, allowlist = shape.policy()
        (folder / "config/site.yaml").write_text(json.dumps(site))
        (folder / "config/allowlist.d/10-kept.yaml").write_text(json.dumps(allowlist))
        words = (
            *("--config-dir", str(folder / "config"), "--state-dir", str(folder / "state")),
            *("--run-dir", str(folder / "run"), "--socket", str(self._socket)),
        )
        product.start(place.namespace("gw"), "daemon", words, folder / "daemon.log")

    def wait_until_up(self) -> None:
        until("the daemon", self._is_up, 600)

    def _is_up(self) -> bool:
        try:
            self.status()
        except OSError:
            return False
        return True

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the API: the command line takes an emulated machine two seconds to load."""
        connection = _Connection(self._socket)
        try:
            connection.request(
                "GET" if body is None else "POST",
                f"/v1/{path}",
                None if body is None else json.dumps(body | {"reason": "test"}),
                {"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != HTTPStatus.OK:
            raise RuntimeError(f"{path}: {response.status}: {answer}")
        return answer

    def status(self) -> dict[str, Any]:
        return self._ask("status")

    def level(self, level: str) -> int:
        """Go to that level; give when that was answered."""
        self._ask("level", {"level": level})
        return time.time_ns()

    def purged(self) -> int:
        """Wait until the connections that this generation ends were ended; give when."""
        generation = self.status()["generation"]
        log = self._place.folder / "daemon.log"

        def is_purged() -> bool:
            lines = [json.loads(one) for one in log.read_text().splitlines() if one[:1] == "{"]
            return any(
                one.get("kind") == "purge" and one.get("generation") == generation for one in lines
            )

        until("the purge", is_purged)
        return time.time_ns()

    def reload(self) -> None:
        self._ask("reload", {})

    def back_to(self, generation: int) -> None:
        self._ask("rollback", {"generation": generation})

    def says(self) -> list[str]:
        """Give all that `check --host` and `status` remark."""
        answer = self._place.folder / "check.json"
        words = ("check", str(self._config), "--host", "--json", "--socket", str(self._socket))
        child = product.start(self._place.namespace("gw"), "command", words, answer)
        os.waitpid(child, 0)
        # findings are no failure
        found = [
            " ".join(str(part) for part in one.values())
            for one in json.loads(answer.read_text())["findings"]
        ]
        return found + self.status()["warnings"]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(300)
        self.sock.connect(str(self._path))


def play(shape: Shape) -> dict[str, Any]:
    """Build a shape, play the day, take it down; give what was seen."""
    began = time.monotonic()
    told: dict[str, Any] = {"shape": shape.name, "error": ""}
    # in memory: how soon a disk takes what is written is not looked at here
    folder = Path(tempfile.mkdtemp(prefix="shape-", dir="/dev/shm"))
    place = Place(shape.name, folder)
    # what hangs is told, and does not take the others' time
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST)
    try:
        shape.build(place)
        _day(shape, place, told)
    except Exception as error:
        told["error"] = f"{error}\n{traceback.format_exc()[-1500:]}\n{place.said()}"
    finally:
        signal.alarm(0)
        place.close()
        shutil.rmtree(folder, ignore_errors=True)
    told["seconds"] = round(time.monotonic() - began, 1)
    return told


def _too_long(_signal: int, frame: Any) -> None:
    raise TimeoutError(f"not done in {LONGEST} s")


def _day(shape: Shape, place: Place, told: dict[str, Any]) -> None:
    gate = Gate(place, shape)  # before there are threads here: it is a fork
    outside, inside = place.namespace("out"), place.namespace("in")
    addresses = [table[f] for f in shape.families for table in (KEPT, OTHER)]
    Echo(outside, addresses)
    within = Echo(inside, [HOST[family] for family in shape.families])
    witness = Witness(outside, shape.families)
    usual = list(shape.calls) or ways(shape.families)
    flows = [*usual, *shape.asks_too]
    if shape.stranger:
        flows += [Way(False, "udp", HOST[family], "out") for family in shape.families]
    gate.wait_until_up()
    asked = {}
    began = time.time_ns()
    asked["open"] = ask(place, flows)
    streams = Streams(place, usual)
    time.sleep(WATCHED)
    told["says"] = gate.says() if shape.named or shape.unsaid else []
    opened = gate.status()["generation"]
    told["seen_at_open"] = witness.seen(began)
    since = gate.level("cut") + int(shape.settles * 1e9)
    if shape.purged:
        since = gate.purged()
    before = _strangers(within)
    shape.during(place)
    asked["cut"] = ask(place, flows, kept=2 if shape.at_cut == DIES else PATIENCE, others=1.5)
    told["entered_at_cut"] = _strangers(within) - before
    time.sleep(WATCHED)
    gate.reload()
    until_ = time.time_ns()
    told["seen_at_cut"] = witness.seen(since, until_)
    told["streams_at_cut"] = streams.report(since, until_)
    told["says_at_cut"] = gate.status()["warnings"]
    gate.back_to(opened)
    asked["again"] = ask(place, flows)
    streams.pause(0.5 if shape.at_cut == DIES else 20)
    told["streams"] = streams.report(began)
    since = gate.level("isolate") + int(shape.settles * 1e9)
    until("the second lock", lambda: gate.status()["second_lock"]["stands"])
    if shape.purged:
        since = gate.purged()
    if shape.at_cut == LEAKS:
        # only the second lock ends this, and it comes after the answer
        since = time.time_ns()
    asked["isolate"] = ask(place, flows, kept=1.5, others=1.5)
    told["seen_at_isolate"] = witness.seen(since)
    gate.level("open")
    asked["at last"] = ask(place, flows)
    told["asked"] = asked


def _strangers(inside: Echo) -> int:
    """Count who called the inside from elsewhere."""
    near = ("10.10.", "2001:db8:10:")
    return sum(number for who, number in inside.asked.items() if not who.startswith(near))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--at-once", type=int, default=4)
    chosen = parser.parse_args()
    product.load()
    wanted = [shape for shape in SHAPES if not chosen.names or shape.name in chosen.names]
    with multiprocessing.get_context("fork").Pool(chosen.at_once, maxtasksperchild=1) as pool:
        for told in pool.imap_unordered(play, wanted):
            print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
