"""What a server does: echo TCP, UDP, GRE, ESP and SCTP, speak HTTP to who speaks it, answer DNS.

It answers from the very address that was asked, so that one process is a whole internet
(all of whose addresses are local routes of the namespace).
"""

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable

from tests.lab.inside import wire
from tests.lab.inside.probes import SCTP, TAG
from tests.lab.inside.streams import own_drops, roomy, tcp_counts

IP_PKTINFO = 8  # ip(7); the socket module of Python 3.11 does not name it
BODY = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n"


class _Peer:
    """One accepted TCP connection."""

    def __init__(self, sock: socket.socket, dns: bool) -> None:
        self.sock, self.dns = sock, dns
        self.first, self.outbox, self.inbox = b"", b"", b""


class Server:
    """Everything that listens in one namespace, on one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._zone: dict = {}
        self._asked: list[tuple[str, str]] = []
        self._served: dict[str, dict] = {}
        self._peers: set[_Peer] = set()
        self._datagram_sockets: list[socket.socket] = []
        self._listening: set[tuple[str, int]] = set()
        threading.Thread(target=self._run, daemon=True).start()

    def listen(self, protocol: str, ports: list[int]) -> None:
        """Listen on `tcp` or `udp` ports, or for `raw` protocols by number.

        Both families, every address.
        """
        starters = {"tcp": self._listen_tcp, "udp": self._listen_udp, "raw": self._listen_raw}
        for port in ports:
            if (protocol, port) not in self._listening:
                self._listening.add((protocol, port))
                starters[protocol](port)

    def dns(self, zone: dict) -> None:
        """Answer DNS from this zone from now on (see wire.dns_answer)."""
        self._zone = zone

    def asked(self) -> list[tuple[str, str]]:
        """Give what the DNS server was asked for since it was asked this last.

        Names in lower case and types.
        """
        asked, self._asked = self._asked, []
        return asked

    def _dns_answer(self, query: bytes) -> bytes | None:
        name, end = wire.decode_name(query, 12)
        kind = struct.unpack_from("!H", query, end)[0]
        self._asked.append((name, wire.QTYPES.get(kind, str(kind))))
        return wire.dns_answer(query, self._zone)

    def served(self, tag: str) -> dict:
        """Give the server's own TCP counts for the connection that began with this tag.

        Empty when unknown.
        """
        for peer in list(self._peers):
            if peer.first[:TAG].hex() == tag:
                self._note(peer)
        return self._served.get(tag, {})

    def rig_drops(self) -> int:
        """Give how many datagrams the server's own sockets dropped."""
        return sum(own_drops(sock) for sock in self._datagram_sockets)

    def _watch(
        self, sock: socket.socket, ready: Callable[[], None], events=selectors.EVENT_READ
    ) -> None:
        sock.setblocking(False)
        self._selector.register(sock, events, ready)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                with contextlib.suppress(OSError):  # a peer that went away harms nobody else
                    key.data()

    def _listen_tcp(self, port: int) -> None:
        listener = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512, reuse_port=False
        )

        def accept() -> None:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = _Peer(sock, port == 53)
            self._peers.add(peer)
            self._watch(sock, lambda: self._tcp(peer))

        self._watch(listener, accept)

    def _tcp(self, peer: _Peer) -> None:
        try:
            data = b"" if peer.outbox else peer.sock.recv(65536)
            if not data and not peer.outbox:
                self._drop(peer)
                return
            if len(peer.first) < TAG:
                peer.first += data[: TAG - len(peer.first)]
            if peer.first.startswith(b"GET "):
                peer.inbox += data
                if b"\r\n\r\n" in peer.inbox:
                    peer.sock.sendall(BODY)
                    self._drop(peer)
                return
            peer.outbox += self._dns_over_tcp(peer, data) if peer.dns else data
            with contextlib.suppress(BlockingIOError):
                peer.outbox = peer.outbox[peer.sock.send(peer.outbox) :]
        except BlockingIOError:
            return
        except OSError:
            self._drop(peer)
            return
        wanted = selectors.EVENT_WRITE if peer.outbox else selectors.EVENT_READ
        self._selector.modify(peer.sock, wanted, lambda: self._tcp(peer))

    def _dns_over_tcp(self, peer: _Peer, data: bytes) -> bytes:
        peer.inbox += data
        if len(peer.inbox) < 2 or len(peer.inbox) < 2 + struct.unpack_from("!H", peer.inbox)[0]:
            return b""
        reply = self._dns_answer(peer.inbox[2:]) or b""
        peer.inbox = b""
        return struct.pack("!H", len(reply)) + reply if reply else b""

    def _note(self, peer: _Peer) -> None:
        with contextlib.suppress(OSError):
            self._served[peer.first[:TAG].hex()] = tcp_counts(peer.sock)

    def _drop(self, peer: _Peer) -> None:
        self._note(peer)
        self._peers.discard(peer)
        self._selector.unregister(peer.sock)
        peer.sock.close()

    def _listen_udp(self, port: int) -> None:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        roomy(sock)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.bind(("::", port))
        self._datagram_sockets.append(sock)

        def answer() -> None:
            for _ in range(64):
                try:
                    data, control, _, sender = sock.recvmsg(65536, 64)
                except BlockingIOError:
                    return
                reply = self._dns_answer(data) if port == 53 else data
                if reply is not None:
                    info = control[0][2][:16] + bytes(4)  # asked address, any interface
                    pktinfo = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)]
                    with contextlib.suppress(OSError):
                        sock.sendmsg([reply], pktinfo, 0, sender)

        self._watch(sock, answer)

    def _listen_raw(self, protocol: int) -> None:
        four = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, protocol)
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)

        def answer_four() -> None:
            packet, sender = four.recvfrom(65536)
            asked, payload = packet[16:20], packet[(packet[0] & 15) * 4 :]
            info = struct.pack("=i4s4s", 0, asked, bytes(4))
            four.sendmsg(
                [_raw_reply(protocol, payload)], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, sender
            )

        def answer_six() -> None:
            payload, control, _, sender = six.recvmsg(65536, 64)
            info = control[0][2][:16] + bytes(4)
            pktinfo = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)]
            six.sendmsg([_raw_reply(protocol, payload)], pktinfo, 0, sender[:2])

        self._watch(four, answer_four)
        self._watch(six, answer_six)


def _raw_reply(protocol: int, payload: bytes) -> bytes:
    if protocol != SCTP:
        return payload
    theirs, mine = struct.unpack_from("!HH", payload)
    return wire.sctp(mine, theirs, wire.SCTP_INIT_ACK, struct.unpack_from("!I", payload, 16)[0])
