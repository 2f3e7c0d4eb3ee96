"""Machines of the lab, as a test sees them: a host sends, asks, streams.

Each order goes to a process in its namespace.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.lab.places import Place

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds for any one order; far above every time-out inside


class Worker:
    """A process inside a namespace that obeys orders (inside/agent.py).

    Ends with this process at the latest.
    """

    def __init__(self, namespace: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                namespace,
                sys.executable,
                "-S",
                "-m",
                "tests.lab.inside.agent",
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            # Ctrl-C is for the program that started the lab; that one ends this process
            start_new_session=True,
        )
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future] = {0: Future()}
        self._ready = self._waiting[0]
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            message = json.loads(line)
            future = self._waiting.pop(message["id"])
            if "failed" in message:
                future.set_exception(RuntimeError(message["failed"]))
            else:
                future.set_result(message["result"])
        with self._lock:
            left, self._waiting = self._waiting, {}
        for future in left.values():
            future.set_exception(RuntimeError("the lab's process in the namespace has ended"))

    def begin(self, order: str, **arguments: Any) -> Future:
        """Give an order and do not wait for it."""
        self._ready.result(PATIENCE)
        future: Future = Future()
        number = next(self._numbers)
        with self._lock:
            self._waiting[number] = future
            self._process.stdin.write(
                json.dumps({"id": number, "do": order, "with": arguments}) + "\n"
            )
            self._process.stdin.flush()
        return future

    def do(self, order: str, **arguments: Any) -> Any:
        """Give an order and wait for its result. RuntimeError when it could not be carried out."""
        return self.begin(order, **arguments).result(PATIENCE)

    def stop(self) -> None:
        """End the process; quick, and harmless the second time."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(2)
        self._process.stdout.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """How a try went.

    True when it went well; error: `timeout` or the errno's name (`ECONNRESET`); ms: how long it
    took.
    """

    ok: bool
    error: str
    ms: float
    more: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.ok


def _answer(result: dict) -> Answer:
    return Answer(result.pop("ok"), result.pop("error"), result.pop("ms"), result)


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What became of a paced stream, echo included.

    `lost`, `rig_drops` and `retransmits - spurious` are 0 when nothing was lost.

    retransmits, spurious (needless by the peer's word, DSACK), segments: TCP, both ends together.
    rig_drops: packets that the lab's own sockets dropped; more than 0 means that the measurement is
    void.
    errors: errno name -> count. ended: why a TCP stream broke, empty when it did not.
    silent_ms: since the last echo came; longest_gap_ms: the longest time between two.
    """

    sent: int
    received: int
    duplicates: int
    reordered: int
    longest_gap_ms: float
    silent_ms: float
    errors: dict[str, int]
    ended: str
    rig_drops: int
    retransmits: int
    spurious: int
    segments: int

    @property
    def lost(self) -> int:
        return self.sent - self.received

    @property
    def resent(self) -> int:
        """Segments that TCP had to send again because one was lost."""
        return max(0, self.retransmits - self.spurious)

    @property
    def whole(self) -> bool:
        """Whether not one packet was lost, refused or sent again, and the rig itself was sound."""
        return not (self.lost or self.resent or self.errors or self.ended or self.rig_drops)


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection (or a connected UDP socket).

    number 0: it did not come about, `opened` says why.
    """

    worker: Worker
    number: int
    opened: Answer

    def talk(self, size: int = 64, timeout: float = 1.0) -> Answer:
        """Have bytes echoed over it: does it still pass data, both ways?"""
        if not self.number:
            return self.opened
        return _answer(self.worker.do("talk", number=self.number, size=size, timeout=timeout))

    def close(self) -> None:
        if self.number:
            self.worker.do("close", number=self.number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Stream:
    """A running stream; stop it once."""

    worker: Worker
    server: Worker
    number: int

    def _whole(self, result: dict) -> StreamReport:
        tag = result.pop("tag")
        theirs = self.server.do("served", tag=tag) if tag else {}
        for name, count in theirs.items():
            result[name] += count
        return StreamReport(**result)

    def report(self) -> StreamReport:
        """Say how it goes so far; what is under way still counts as lost."""
        return self._whole(self.worker.do("stream_report", number=self.number))

    def stop(self, grace: float = 1.0) -> StreamReport:
        """Stop sending, wait up to `grace` seconds for what is under way, say how it went."""
        result = self.worker.do("stream_stop", number=self.number, grace=grace)
        result["rig_drops"] += self.server.do("rig_drops")
        return self._whole(result)


@dataclass(frozen=True, slots=True)
class Beacon:
    """A machine that keeps calling out."""

    worker: Worker
    number: int

    def tally(self, *, stop: bool = False) -> dict[str, int]:
        """Give outcome (`ok`, `timeout`, errno name) -> how many calls, so far."""
        return self.worker.do("beacon_tally", number=self.number, stop=stop)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine: it acts from its own addresses through the process in its namespace.

    server: the process that answers on the internet side; it knows the other end of a TCP stream.
    Addresses are text; the family follows from the target's.
    """

    place: Place
    worker: Worker
    server: Worker

    @property
    def v4(self) -> str:
        return self.place.v4

    @property
    def v6(self) -> str:
        return self.place.v6

    def address(self, family: int) -> str:
        return self.place.address(family)

    def _source(self, to: str) -> str:
        return self.v6 if ":" in to else self.v4

    def tcp(self, to: str, port: int = 443, timeout: float = 1.0) -> Answer:
        """Connect, have bytes echoed, close."""
        return self.ping("tcp", to, port, timeout)

    def udp(self, to: str, port: int = 5000, timeout: float = 1.0) -> Answer:
        """Send a datagram and have it echoed."""
        return self.ping("udp", to, port, timeout)

    def ping(self, protocol: str, to: str, port: int, timeout: float = 1.0) -> Answer:
        return self.begin_ping(protocol, to, port, timeout).result(PATIENCE)

    def begin_ping(self, protocol: str, to: str, port: int, timeout: float = 1.0) -> Future:
        """The same, not waited for: a Future of an Answer, so that many tries run side by side."""
        inner = self.worker.begin(
            "ping", protocol=protocol, host=to, port=port, source=self._source(to), timeout=timeout
        )
        outer: Future = Future()
        inner.add_done_callback(
            lambda f: (
                outer.set_exception(f.exception())
                if f.exception()
                else outer.set_result(_answer(f.result()))
            )
        )
        return outer

    def icmp(self, to: str, timeout: float = 1.0, ident: int = 0) -> Answer:
        """Send one echo request; the same `ident` (1-65535) is the same flow to conntrack."""
        return _answer(
            self.worker.do("icmp", host=to, source=self._source(to), timeout=timeout, ident=ident)
        )

    def raw(self, protocol: int, to: str, timeout: float = 1.0, port: int = 2905) -> Answer:
        """Send one GRE (47), ESP (50) or SCTP (132, to `port`) packet and have it answered."""
        return _answer(
            self.worker.do(
                "raw",
                protocol=protocol,
                host=to,
                source=self._source(to),
                timeout=timeout,
                port=port,
            )
        )

    def http(self, to: str, port: int = 80, timeout: float = 1.0) -> Answer:
        """GET /; `more["status"]` is the answer's."""
        return _answer(
            self.worker.do("http", host=to, port=port, source=self._source(to), timeout=timeout)
        )

    def resolve(
        self,
        server: str,
        name: str,
        kind: str = "a",
        timeout: float = 1.0,
        *,
        protocol: str = "udp",
        port: int = 53,
        edns: bool = False,
    ) -> Answer:
        """Ask a DNS server.

        `more["addresses"]` and `more["rcode"]`, and in hex the whole `more["reply"]`.
        """
        asked = {
            "server": server,
            "name": name,
            "kind": kind,
            "protocol": protocol,
            "port": port,
            "edns": edns,
        }
        return _answer(
            self.worker.do("resolve", source=self._source(server), timeout=timeout, **asked)
        )

    def ask_often(
        self,
        server: str,
        names: list[str],
        kind: str,
        seconds: float,
        rate: float,
        *,
        port: int = 53,
    ) -> dict:
        """Ask a DNS server for names in turn; give how many questions were `sent`, and `rcodes`."""
        asked = {
            "server": server,
            "names": names,
            "kind": kind,
            "seconds": seconds,
            "rate": rate,
            "port": port,
        }
        return self.worker.do("ask_often", source=self._source(server), **asked)

    def resolve_and_connect(
        self, server: str, name: str, port: int, times: int, kind: str = "a"
    ) -> dict:
        """Resolve a name and connect to what it stands for, over and over.

        Give `good`, `failed`, `addresses`.
        """
        asked = {"server": server, "name": name, "port": port, "times": times, "kind": kind}
        return self.worker.do("resolve_and_connect", source=self._source(server), **asked)

    def open(
        self, to: str, port: int = 443, protocol: str = "tcp", timeout: float = 1.0
    ) -> Connection:
        """Open a connection, prove it with an echo, and keep it."""
        result = self.worker.do(
            "open", protocol=protocol, host=to, port=port, source=self._source(to), timeout=timeout
        )
        number = result.get("number", 0)
        return Connection(self.worker, number, _answer(result))

    def stream(
        self, to: str, port: int = 5000, protocol: str = "udp", rate: int = 1000, size: int = 64
    ) -> Stream:
        """Start a paced, numbered stream of `rate` messages of `size` bytes a second, echoed by the
        other end.
        """
        source = self._source(to)
        number = self.worker.do(
            "stream", protocol=protocol, host=to, port=port, rate=rate, size=size, source=source
        )
        return Stream(self.worker, self.server, number)

    def beacon(self, targets: list[tuple[str, str, int]], rate: float = 10.0) -> Beacon:
        """Keep calling `(protocol, address, port)` in turn, `rate` calls a second.

        One family only.
        """
        source = self._source(targets[0][1])
        return Beacon(
            self.worker, self.worker.do("beacon", targets=targets, rate=rate, source=source)
        )

    def listen(self, protocol: str, *ports: int) -> None:
        """Listen (echo) on these ports, on every address of the namespace.

        `raw` takes protocol numbers.
        """
        self.worker.do("listen", protocol=protocol, ports=ports)
