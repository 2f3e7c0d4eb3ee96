"""What a client does: connect, talk, ping, send raw packets. Every answer is `{ok, error, ms, ...}`.

error: `` when it went well, `timeout`, or the name of the errno (`ECONNRESET`, `EHOSTUNREACH`, ...).
"""

import errno
import itertools
import os
import random
import socket
import struct
import threading
import time
from collections import Counter

from tests.lab.inside import wire

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
GRE, ESP, SCTP = 47, 50, 132
TAG = 16  # bytes with which every TCP connection starts, so that the server can tell it from others


class _RefusedError(Exception):
    """The peer answered, with something else than was asked."""


def family_of(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def fault(error: Exception) -> str:
    """Name what went wrong in one word."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, OSError) and error.errno:
        return errno.errorcode.get(error.errno, str(error.errno))
    return str(error) or type(error).__name__


def answer(began: int, error: str = "", **more: object) -> dict:
    return {"ok": not error, "error": error, "ms": (time.monotonic_ns() - began) / 1e6, **more}


def dial(protocol: str, host: str, port: int, source: str, timeout: float) -> socket.socket:
    """Give a connected socket. OSError when the connection did not come about."""
    sock = socket.socket(family_of(host), PROTOCOLS[protocol])
    try:
        sock.settimeout(timeout)
        if source:
            sock.bind((source, 0))
        if protocol == "tcp":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def echo(sock: socket.socket, payload: bytes) -> None:
    """Send the payload and wait until it has come back, byte for byte. OSError or _RefusedError when it has not."""
    sock.sendall(payload)
    if sock.type == socket.SOCK_DGRAM:
        while sock.recv(65536) != payload:  # a late echo of an earlier try
            pass
        return
    back = b""
    while len(back) < len(payload):
        chunk = sock.recv(len(payload) - len(back))
        if not chunk:
            raise _RefusedError("closed")
        back += chunk
    if back != payload:
        raise _RefusedError("garbled")


class Probes:
    """The client side of one namespace; open connections are kept by number."""

    def __init__(self) -> None:
        self._open: dict[int, socket.socket] = {}
        self._beacons: dict[int, tuple[threading.Event, threading.Thread, Counter]] = {}
        self._numbers = itertools.count(1)

    def ping(self, protocol: str, host: str, port: int, source: str = "", timeout: float = 1.0) -> dict:
        """Connect, have 64 bytes echoed, close."""
        began = time.monotonic_ns()
        try:
            with dial(protocol, host, port, source, timeout) as sock:
                echo(sock, os.urandom(64))
        except (OSError, _RefusedError) as error:
            return answer(began, fault(error))
        return answer(began)

    def open(self, protocol: str, host: str, port: int, source: str = "", timeout: float = 1.0) -> dict:
        """Connect, have the first bytes echoed, and stay connected."""
        began = time.monotonic_ns()
        tag = os.urandom(TAG)
        try:
            sock = dial(protocol, host, port, source, timeout)
            try:
                echo(sock, tag)
            except (OSError, _RefusedError):
                sock.close()
                raise
        except (OSError, _RefusedError) as error:
            return answer(began, fault(error))
        number = next(self._numbers)
        self._open[number] = sock
        return answer(began, number=number, local=list(sock.getsockname()[:2]))

    def talk(self, number: int, size: int = 64, timeout: float = 1.0) -> dict:
        """Have bytes echoed over an open connection."""
        began = time.monotonic_ns()
        sock = self._open[number]
        sock.settimeout(timeout)
        try:
            echo(sock, os.urandom(size))
        except (OSError, _RefusedError) as error:
            return answer(began, fault(error))
        return answer(began)

    def close(self, number: int) -> None:
        self._open.pop(number).close()

    def icmp(self, host: str, source: str = "", timeout: float = 1.0, ident: int = 0) -> dict:
        """Send one echo request. The same ident is the same flow to conntrack."""
        family = family_of(host)
        six = family == socket.AF_INET6
        ident = ident or random.randrange(1, 65536)
        sequence, payload = random.randrange(65536), os.urandom(16)
        wanted = struct.pack("!HH", ident, sequence) + payload
        request = wire.echo_request(6 if six else 4, ident, sequence, payload)
        protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
        return self._exchange(host, source, timeout, protocol, request, lambda got: got[4:] == wanted)

    def raw(self, protocol: int, host: str, source: str = "", timeout: float = 1.0, port: int = 2905) -> dict:
        """Send one raw GRE, ESP or SCTP (to `port`) packet and wait for the peer's answer in that protocol."""
        if protocol == SCTP:
            mine = random.randrange(1024, 65536)
            request = wire.sctp(mine, port, wire.SCTP_INIT, 0)
            wanted = struct.pack("!HH", port, mine)
            return self._exchange(host, source, timeout, protocol, request, lambda got: got[:4] == wanted)
        mark = os.urandom(16)
        head = struct.pack("!HH", 0, 0x0800) if protocol == GRE else struct.pack("!II", 0xEC105E, 1)
        return self._exchange(host, source, timeout, protocol, head + mark, lambda got: got[-16:] == mark)

    def _exchange(self, host, source, timeout, protocol, request, is_reply) -> dict:
        began = time.monotonic_ns()
        deadline = time.monotonic() + timeout
        family = family_of(host)
        try:
            with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
                if source:
                    sock.bind((source, 0))
                sock.connect((host, 0))
                sock.send(request)
                while True:
                    sock.settimeout(max(deadline - time.monotonic(), 0.001))
                    got = sock.recv(2048)
                    if family == socket.AF_INET:  # a raw IPv4 socket gives the IP header too (raw(7))
                        got = got[(got[0] & 15) * 4 :]
                    if is_reply(got):
                        return answer(began)
        except OSError as error:
            return answer(began, fault(error))

    def http(self, host: str, port: int = 80, source: str = "", timeout: float = 1.0) -> dict:
        """GET / ; `status` is the server's."""
        began = time.monotonic_ns()
        try:
            with dial("tcp", host, port, source, timeout) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\nHost: lab.example\r\n\r\n")
                got = b""
                while chunk := sock.recv(4096):
                    got += chunk
        except OSError as error:
            return answer(began, fault(error), status=0)
        return answer(began, status=int(got.split()[1]))

    def resolve(
        self, server: str, name: str, kind: str = "a", source: str = "", timeout: float = 1.0
    ) -> dict:
        """Ask a DNS server over UDP; `addresses` and `rcode` are its answer."""
        began = time.monotonic_ns()
        ident = random.randrange(65536)
        try:
            with dial("udp", server, 53, source, timeout) as sock:
                sock.send(wire.dns_query(name, kind, ident))
                rcode, addresses = wire.dns_addresses(sock.recv(4096))
        except OSError as error:
            return answer(began, fault(error), rcode=-1, addresses=[])
        return answer(began, rcode=rcode, addresses=addresses)

    def beacon(self, targets: list, rate: float, source: str = "", timeout: float = 0.3) -> int:
        """Keep calling targets `[protocol, host, port]` in turn, `rate` calls a second, until told to stop."""
        stop, tally = threading.Event(), Counter()

        def call() -> None:
            for protocol, host, port in itertools.cycle(targets):
                if stop.wait(1 / rate):
                    return
                result = self.ping(protocol, host, port, source, timeout)
                tally[result["error"] or "ok"] += 1

        thread = threading.Thread(target=call, daemon=True)
        number = next(self._numbers)
        self._beacons[number] = (stop, thread, tally)
        thread.start()
        return number

    def beacon_tally(self, number: int, stop: bool = False) -> dict:
        """Give how its calls went so far: outcome (`ok`, `timeout`, errno name) -> count."""
        event, thread, tally = self._beacons[number]
        if stop:
            event.set()
            thread.join()
        return dict(tally)
