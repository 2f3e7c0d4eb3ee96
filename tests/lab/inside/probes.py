"""What a client does: connect, talk, ping, send raw packets.

Every answer is `{ok, error, ms, ...}`.

error: `` when it went well, `timeout`, or the name of the errno (`ECONNRESET`, `EHOSTUNREACH`,
...).
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
    """Send the payload and wait until it has come back, byte for byte.

    OSError or _RefusedError when it has not.
    """
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

    def ping(
        self, protocol: str, host: str, port: int, source: str = "", timeout: float = 1.0
    ) -> dict:
        """Connect, have 64 bytes echoed, close."""
        began = time.monotonic_ns()
        try:
            with dial(protocol, host, port, source, timeout) as sock:
                echo(sock, os.urandom(64))
        except (OSError, _RefusedError) as error:
            return answer(began, fault(error))
        return answer(began)

    def open(
        self, protocol: str, host: str, port: int, source: str = "", timeout: float = 1.0
    ) -> dict:
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
        return self._exchange(
            host, source, timeout, protocol, request, lambda got: got[4:] == wanted
        )

    def raw(
        self, protocol: int, host: str, source: str = "", timeout: float = 1.0, port: int = 2905
    ) -> dict:
        """Send one raw GRE, ESP or SCTP (to `port`) packet and wait for the peer's answer in that
        protocol.
        """
        if protocol == SCTP:
            mine = random.randrange(1024, 65536)
            request = wire.sctp(mine, port, wire.SCTP_INIT, 0)
            wanted = struct.pack("!HH", port, mine)
            return self._exchange(
                host, source, timeout, protocol, request, lambda got: got[:4] == wanted
            )
        mark = os.urandom(16)
        head = struct.pack("!HH", 0, 0x0800) if protocol == GRE else struct.pack("!II", 0xEC105E, 1)
        return self._exchange(
            host, source, timeout, protocol, head + mark, lambda got: got[-16:] == mark
        )

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
                    if (
                        family == socket.AF_INET
                    ):  # a raw IPv4 socket gives the IP header too (raw(7))
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
        self,
        server: str,
        name: str,
        kind: str = "a",
        source: str = "",
        timeout: float = 1.0,
        protocol: str = "udp",
        port: int = 53,
        edns: bool = False,
    ) -> dict:
        """Ask a DNS server; give `addresses`, `rcode` and `reply`, the whole answer in hex."""
        began = time.monotonic_ns()
        ident = random.randrange(65536)
        query = wire.dns_query(name, kind, ident, edns=edns)
        try:
            with dial(protocol, server, port, source, timeout) as sock:
                if protocol == "tcp":
                    sock.sendall(struct.pack("!H", len(query)) + query)
                    got = sock.recv(4096)
                    while len(got) < 2 or len(got) < 2 + struct.unpack_from("!H", got)[0]:
                        got += sock.recv(4096) or b"\0" * 4096
                    got = got[2:]
                else:
                    sock.send(query)
                    got = sock.recv(4096)
                rcode, addresses = wire.dns_addresses(got)
        except OSError as error:
            return answer(began, fault(error), rcode=-1, addresses=[], reply="")
        return answer(began, rcode=rcode, addresses=addresses, reply=got.hex())

    def crowd(
        self, server: str, sources: list[str], names: list[str], rate: float, seconds: float
    ) -> dict:
        """Ask as many machines would for names in turn, `rate` questions a second together."""
        query = [wire.dns_query(names[number % len(names)], "a", number) for number in range(64)]
        sockets = []
        for source in sources:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((source, 0))
            sock.connect((server, 53))
            sock.setblocking(False)
            sockets.append(sock)
        began, sent, codes = time.monotonic(), 0, Counter()
        while (now := time.monotonic()) - began < seconds:
            behind = min(int((now - began) * rate) - sent, 2000)
            for number in range(sent, sent + behind):
                sock = sockets[number % len(sockets)]
                try:
                    sock.send(query[number % 64])
                    codes[sock.recv(512)[3] & 15] += 1
                except OSError:  # nothing has come back yet, or what ICMP said
                    pass
            sent += behind
            time.sleep(0.001)
        for sock in sockets:
            sock.close()
        return {
            "sent": sent,
            "rcodes": {str(code): times for code, times in codes.items()},
            "seconds": time.monotonic() - began,
        }

    def question(self, server: str, name: str, source: str = "", local: int = 0) -> dict:
        """Ask for a name from a local port (0: any).

        Give that port with the answer's code, -1 when there is none.
        """
        with socket.socket(family_of(server), socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((source, local))
            sock.connect((server, 53))
            sock.settimeout(1.0)
            try:
                sock.send(wire.dns_query(name, "a", 1))
                code = sock.recv(4096)[3] & 15
            except OSError:
                code = -1
            return {"local": sock.getsockname()[1], "rcode": code}

    def ask_often(
        self,
        server: str,
        names: list[str],
        kind: str,
        seconds: float,
        rate: float,
        source: str = "",
        port: int = 53,
    ) -> dict:
        """Ask for names in turn, `rate` a second for some seconds, from one port.

        `rcodes` counts the answers by code.

        A `%` in a name becomes another number each time.
        """
        began = time.monotonic()
        codes: Counter = Counter()
        sent = 0
        with dial("udp", server, port, source, 0.5) as sock:
            sock.setblocking(False)
            while (now := time.monotonic()) - began < seconds:
                while sent < (now - began) * rate:
                    name = names[sent % len(names)].replace("%", f"x{sent}")
                    try:
                        sock.send(wire.dns_query(name, kind, sent % 65536))
                    except OSError as error:  # what ICMP said of an earlier one
                        codes[fault(error)] += 1
                    sent += 1
                self._count_codes(sock, codes)
                time.sleep(0.001)
            time.sleep(0.3)
            self._count_codes(sock, codes)
        return {"sent": sent, "rcodes": {str(code): times for code, times in codes.items()}}

    def _count_codes(self, sock: socket.socket, codes: Counter) -> None:
        while True:
            try:
                codes[sock.recv(4096)[3] & 15] += 1
            except BlockingIOError:
                return
            except OSError as error:
                codes[fault(error)] += 1

    def resolve_and_connect(
        self, server: str, name: str, port: int, times: int, kind: str = "a", source: str = ""
    ) -> dict:
        """Resolve a name and connect at once to the address, over and over.

        `ok`, and what failed: word -> times.
        """
        failed: Counter = Counter()
        good, addresses = 0, set()
        for _ in range(times):
            answered = self.resolve(server, name, kind, source, 2.0)
            if not answered["addresses"]:
                failed[f"resolve {answered['error'] or answered['rcode']}"] += 1
                continue
            addresses.add(answered["addresses"][0])
            result = self.ping("tcp", answered["addresses"][0], port, source, 2.0)
            good += result["ok"]
            if not result["ok"]:
                failed[result["error"]] += 1
        return {"good": good, "failed": dict(failed), "addresses": len(addresses)}

    def beacon(self, targets: list, rate: float, source: str = "", timeout: float = 0.3) -> int:
        """Keep calling targets `[protocol, host, port]` in turn, `rate` calls a second, until told
        to stop.
        """
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
