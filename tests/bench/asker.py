"""Runs in a namespace: asks for names that are kept, one after the other, and times each answer.

`asker.py SERVER`.

Orders on standard input, a line each: `RATE SECONDS NAME` (a `%` in the name becomes another text
each time). Answered by a line of JSON: `[[ms, ...], how many were not answered]`; one without an
answer counts as the second that was waited for it. End of input ends it.

Each question has a port of its own, as those of a resolver's library have. An answer's time is the
kernel's, of its arrival in this namespace: how soon this process is woken is no matter of the gate.
"""

import json
import os
import socket
import struct
import sys
import time

from tests.bench.sender import precise
from tests.lab.inside import wire

PATIENCE = 1.0
SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_TIMESPEC = struct.Struct("qq")
_KEPT = 0  # NOERROR


def ask(server: str, name: str, ident: int) -> float:
    """Ask once; give the milliseconds to the answer, or -1 when there was none that helps."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.settimeout(PATIENCE)
        sock.connect((server, 53))
        query = wire.dns_query(name, "a", ident)
        began = time.time_ns()
        try:
            sock.send(query)
            reply, control, _, _ = sock.recvmsg(4096, 128)
        except OSError:
            return -1.0
        seconds, nanos = _TIMESPEC.unpack_from(control[0][2])
        code, addresses = wire.dns_addresses(reply)
        good = reply[:2] == query[:2] and code == _KEPT and addresses
        return (seconds * 1_000_000_000 + nanos - began) / 1e6 if good else -1.0


def _series(server: str, rate: float, seconds: float, name: str) -> tuple[list[float], int]:
    took, lost, number = [], 0, 0
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        if now < number / rate:
            time.sleep(number / rate - now)
        one = ask(server, name.replace("%", os.urandom(6).hex()), number % 65536)
        lost += one < 0
        took.append(one if one >= 0 else PATIENCE * 1000)
        # A sender that waited for a lost one goes on at the rate, and does not catch up.
        number = max(number + 1, int((time.monotonic() - began) * rate))
    return took, lost


def main() -> None:
    precise()
    print("ready", flush=True)
    for line in sys.stdin:
        rate, seconds, name = line.split()
        print(json.dumps(_series(sys.argv[1], float(rate), float(seconds), name)), flush=True)


if __name__ == "__main__":
    main()
