"""Sockets of the inside and the outside, of one process: streams, questions and a witness."""

import ctypes
import os
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .place import HOST, KEPT, OTHER, Place

PORT = 5001
PAUSE = 0.1  # seconds between two packets of a stream
PATIENCE = 20.0  # seconds for an answer that must come: an emulated machine is slow
_CLONE_NEWNET = 0x40000000
_OUTGOING = 4  # PACKET_OUTGOING
_LIBC = ctypes.CDLL(None, use_errno=True)
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_TYPE = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}


def enter(namespace: str) -> None:
    """Put this thread into a network namespace."""
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _LIBC.setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    finally:
        os.close(handle)


@contextmanager
def inside_of(namespace: str) -> Iterator[None]:
    """Be there for a moment: a socket belongs where it was made."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        yield
    finally:
        if _LIBC.setns(home, _CLONE_NEWNET):
            os._exit(70)  # nobody knows where this thread is
        os.close(home)


class Echo(threading.Thread):
    """Answers on the port at each address, and counts who asked."""

    def __init__(self, namespace: str, addresses: list[str], port: int = PORT) -> None:
        super().__init__(daemon=True)
        self.asked: Counter[str] = Counter()
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._listeners: set[int] = set()
        with inside_of(namespace):
            for address in addresses:
                family = _FAMILY[6 if ":" in address else 4]
                for kind in _TYPE.values():
                    sock = socket.socket(family, kind)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((address, port))
                    if kind == socket.SOCK_STREAM:
                        sock.listen(64)
                        self._listeners.add(sock.fileno())
                    self._add(sock)
        self.start()

    def _add(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sockets[sock.fileno()] = sock
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def run(self) -> None:
        while True:
            for number, _ in self._poll.poll():
                sock = self._sockets[number]
                try:
                    self._serve(sock)
                except BlockingIOError:
                    pass
                except OSError:
                    if number not in self._listeners and sock.type == socket.SOCK_STREAM:
                        self._drop(sock)

    def _serve(self, sock: socket.socket) -> None:
        if sock.fileno() in self._listeners:
            caller, who = sock.accept()
            self.asked[who[0]] += 1
            self._add(caller)
        elif sock.type == socket.SOCK_DGRAM:
            data, who = sock.recvfrom(4096)
            self.asked[who[0]] += 1
            sock.sendto(data, who)
        else:
            data = sock.recv(4096)
            if data:
                sock.send(data)
            else:
                self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._poll.unregister(sock.fileno())
        del self._sockets[sock.fileno()]
        sock.close()


class Witness(threading.Thread):
    """Sees every frame that reaches the outside, by any interface.

    A frame that holds the address of somebody who is not kept is a leak, whatever is around it.
    """

    def __init__(self, namespace: str, families: tuple[int, ...]) -> None:
        super().__init__(daemon=True)
        self._wanted = [
            (OTHER[family], socket.inet_pton(_FAMILY[family], OTHER[family])) for family in families
        ]
        self._seen: list[tuple[int, str, str]] = []
        with inside_of(namespace):
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._sock.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.start()

    def run(self) -> None:
        while True:
            frame, extra, _, who = self._sock.recvmsg(2048, 64)
            if who[2] == _OUTGOING or who[0] == "lo":
                continue
            for address, packed in self._wanted:
                if packed in frame:
                    seconds, nanos = struct.unpack("qq", extra[0][2][:16])
                    self._seen.append((seconds * 10**9 + nanos, who[0], address))

    def seen(self, since: int, until: int = 0) -> Counter[str]:
        """Count by address what came between two times (time.time_ns)."""
        return Counter(
            f"{address} on {link}"
            for when, link, address in list(self._seen)
            if since <= when <= (until or when)
        )


@dataclass(frozen=True)
class Way:
    """Who is called, and how. `kept` is what the policy says of it."""

    kept: bool
    protocol: str
    to: str
    role: str = "in"
    port: int = PORT

    @property
    def name(self) -> str:
        return (
            f"{'kept' if self.kept else 'other'} {self.protocol}{6 if ':' in self.to else 4}"
            f"{'' if self.role == 'in' else ' from ' + self.role}"
            f"{'' if self.port == PORT else f' port {self.port}'}"
        )


def ways(families: tuple[int, ...], protocols: tuple[str, ...] = ("udp", "tcp")) -> list[Way]:
    return [
        Way(kept, protocol, (KEPT if kept else OTHER)[family])
        for family in families
        for protocol in protocols
        for kept in (True, False)
    ]


def _socket(place: Place, way: Way) -> socket.socket:
    with inside_of(place.namespace(way.role)):
        sock = socket.socket(_FAMILY[6 if ":" in way.to else 4], _TYPE[way.protocol])
    sock.setblocking(False)
    if way.role == "in":
        sock.bind((HOST[6 if ":" in way.to else 4], 0))
    return sock


@dataclass
class _Question:
    way: Way
    sock: socket.socket
    sent: float = 0.0


def ask(
    place: Place, asked: list[Way], *, kept: float = PATIENCE, others: float = PATIENCE
) -> dict[str, str]:
    """Call everybody at once by new flows; give "yes", "silent" or the refusal for each.

    kept, others: seconds in which who does not answer is called again. Who has less than PATIENCE
    is not called again after a refusal.
    """
    began = time.monotonic()
    waiting = [_Question(way, _socket(place, way)) for way in asked]
    done: dict[str, str] = {}
    while waiting:
        going = time.monotonic() - began
        for one in waiting:
            patience = kept if one.way.kept else others
            answer = _try(one)
            if answer == "yes" or (answer and (patience < PATIENCE or going > patience)):
                done[one.way.name] = answer
            elif going > patience:
                done[one.way.name] = "silent"
            elif answer and one.way.protocol == "tcp":
                one.sock.close()
                one.sock, one.sent = _socket(place, one.way), 0.0
        for one in waiting:
            if one.way.name in done:
                one.sock.close()
        waiting = [one for one in waiting if one.way.name not in done]
        time.sleep(0.05)
    return done


def _try(one: _Question) -> str:
    """Go on with a question; give its answer or its refusal, if it has one."""
    try:
        if time.monotonic() - one.sent > 0.7:
            if one.way.protocol == "udp" or not one.sent:
                one.sock.connect_ex((one.way.to, one.way.port))
            one.sock.send(b"question")
            one.sent = time.monotonic()
        if one.sock.recv(100):
            return "yes"
    except BlockingIOError:
        one.sent = one.sent or time.monotonic() - 0.6  # TCP: connected in a moment
    except OSError as error:
        return f"refused ({error.strerror})"
    return ""


@dataclass
class Stream:
    """A flow that stays: numbered packets, each of them to be echoed."""

    way: Way
    sock: socket.socket
    sent: dict[int, int] = field(default_factory=dict)
    back: set[int] = field(default_factory=set)
    ended: str = ""
    rest: bytes = b""


class Streams(threading.Thread):
    """All streams of a shape, by one thread."""

    def __init__(self, place: Place, flows: list[Way]) -> None:
        super().__init__(daemon=True)
        self.streams = [Stream(way, _socket(place, way)) for way in flows]
        self._going = threading.Event()
        self._going.set()
        for stream in self.streams:
            stream.sock.connect_ex((stream.way.to, stream.way.port))
        self.start()

    def run(self) -> None:
        number = 0
        while True:
            if self._going.is_set():
                number += 1
            for stream in self.streams:
                if not stream.ended:
                    self._turn(stream, number)
            time.sleep(PAUSE)

    def _turn(self, stream: Stream, number: int) -> None:
        try:
            if self._going.is_set():
                stream.sock.send(b"%07d\n" % number)
                stream.sent[number] = time.time_ns()
        except BlockingIOError:
            pass
        except OSError as error:
            if stream.way.protocol == "tcp" and error.errno != 11:
                stream.ended = str(error)
        try:
            while data := stream.sock.recv(4096):
                *lines, stream.rest = (stream.rest + data).split(b"\n")
                stream.back.update(int(line) for line in lines)
        except OSError:
            pass

    def pause(self, seconds: float = PATIENCE) -> None:
        """Send no more, and wait for what is under way to those who are kept."""
        self._going.clear()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(
            stream.sent.keys() - stream.back for stream in self.streams if stream.way.kept
        ):
            time.sleep(0.05)

    def report(self, since: int = 0, until: int = 0) -> dict[str, list[int]]:
        """Give [sent, echoed] of each stream, of the packets sent between two times."""
        told = {}
        for stream in self.streams:
            numbers = {n for n, at in dict(stream.sent).items() if since <= at <= (until or at)}
            told[stream.way.name] = [len(numbers), len(numbers & stream.back)]
        return told
