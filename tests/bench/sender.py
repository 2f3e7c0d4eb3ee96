"""Runs in a namespace: sends frames, paced or as fast as it can.

`sender.py INTERFACE FILE RATE` (0: full speed).

Orders on standard input, a line each, answered by a line with how many frames were sent so far:
`go` (send in turn until `stop`), `stop`, `once N` (send N frames, then answer), `cost N` (send N
frames and answer with the processor time that this thread used, in nanoseconds). End of input ends
it.
"""

import ctypes
import os
import select
import socket
import struct
import sys
import time
from pathlib import Path

BATCH = 128
BURST = 32  # a sender that was held up catches up in bursts no longer than this


class Frames:
    """The frames, laid out once for sendmmsg(2)."""

    def __init__(self, interface: str, path: Path) -> None:
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, 32, 16 << 20)  # SO_SNDBUFFORCE
        self.sock.bind((interface, 0))
        data = path.read_bytes()
        self.keep = ctypes.create_string_buffer(data, len(data))
        base, at, vectors = ctypes.addressof(self.keep), 0, bytearray()
        while at < len(data):
            (size,) = struct.unpack_from("!H", data, at)
            vectors += struct.pack("=QQ", base + at + 2, size)
            at += 2 + size
        self.count = len(vectors) // 16
        self.vectors = ctypes.create_string_buffer(bytes(vectors), len(vectors))
        first = ctypes.addressof(self.vectors)
        heads = b"".join(
            struct.pack("=QIIQQQQIIII", 0, 0, 0, first + 16 * n, 1, 0, 0, 0, 0, 0, 0)
            for n in range(self.count)
        )
        self.heads = ctypes.create_string_buffer(heads, len(heads))
        self.first = ctypes.addressof(self.heads)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.turn = self.sent = 0

    def send(self, most: int) -> None:
        """Send at most so many, in turn."""
        number = min(most, self.count - self.turn)
        done = self.libc.sendmmsg(
            self.sock.fileno(), ctypes.c_void_p(self.first + 64 * self.turn), number, 0
        )
        if done > 0:
            self.turn = (self.turn + done) % self.count
            self.sent += done


def precise() -> None:
    """Wake up to the microsecond (PR_SET_TIMERSLACK, prctl(2)), before other programs here."""
    ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _waiting() -> bool:
    return bool(select.select([0], [], [], 0)[0])


def _paced(frames: Frames, rate: int) -> None:
    start, before, most = time.monotonic(), frames.sent, max(1, rate // 10_000)
    while not _waiting():
        due = int((time.monotonic() - start) * rate) - (frames.sent - before)
        if due > 0:
            frames.send(min(due, BURST))
        time.sleep(most / rate / 2)


def _full(frames: Frames) -> None:
    while not _waiting():
        for _ in range(8):
            frames.send(BATCH)


def _orders() -> None:
    interface, path, rate = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    frames = Frames(interface, path)
    if rate:
        precise()
    print("ready", flush=True)
    pending = b""
    while True:
        while b"\n" not in pending:
            data = os.read(0, 4096)
            if not data:
                return
            pending += data
        line, pending = pending.split(b"\n", 1)
        word, *rest = line.decode().split()
        if word == "go" and rate:
            _paced(frames, rate)
        elif word == "go":
            _full(frames)
        elif word == "once":
            goal = frames.sent + int(rest[0])
            while frames.sent < goal:
                frames.send(min(BATCH, goal - frames.sent))
        elif word == "cost":
            goal, began = frames.sent + int(rest[0]), time.thread_time_ns()
            while frames.sent < goal:
                frames.send(min(BATCH, goal - frames.sent))
            print(time.thread_time_ns() - began, flush=True)
            continue
        if word != "go":
            print(frames.sent, flush=True)


if __name__ == "__main__":
    _orders()
