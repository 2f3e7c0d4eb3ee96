"""A small real DNS server, UDP and TCP on one port, that can fail in each way."""

import asyncio
import contextlib
import struct
from collections import Counter

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset


class Server:
    """answers: name -> behaviour, called with the query; it gives a response, raw bytes, a list of
    these, or None.

    asked: how often each (name, type, transport) was asked. delay: seconds before every answer.
    """

    def __init__(self, host="127.0.0.1", port=0):
        self.host, self.wanted = host, port
        self.answers = {}
        self.asked = Counter()
        self.delay = 0.0
        self.port = 0
        self._tasks = set()
        self._writers = []

    @property
    def address(self):
        return (self.host, self.port)

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self._tcp = await asyncio.start_server(self._serve_tcp, self.host, self.wanted)
            self.port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Udp(self), local_addr=self.address
                )
            except OSError:
                self._tcp.close()
                continue
            return self
        raise RuntimeError("no port is free for both UDP and TCP")

    async def __aexit__(self, *_):
        self._udp.close()
        self._tcp.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await self._tcp.wait_closed()
        await asyncio.sleep(0)

    def put(self, name, *addresses, ttl=300):
        """Let `name` have these addresses."""
        self.answers[name] = records(*((name, ttl, address) for address in addresses))

    def task(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def judge(self, query, transport):
        name = query.question[0].name.to_text().rstrip(".").lower()
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked[name, kind, transport] += 1
        behaviour = self.answers.get(name, nxdomain)
        reply = behaviour(query, transport)
        return [] if reply is None else reply if isinstance(reply, list) else [reply]

    async def _serve_tcp(self, reader, writer):
        self._writers.append(writer)
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            query = dns.message.from_wire(await reader.readexactly(length))
            await asyncio.sleep(self.delay)
            for reply in self.judge(query, "tcp"):
                writer.write(
                    reply if isinstance(reply, bytes) else framed(reply.to_wire(max_size=65535))
                )
            await writer.drain()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server):
        self.server = server

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.server.task(self._answer(data, peer))

    async def _answer(self, data, peer):
        query = dns.message.from_wire(data)
        await asyncio.sleep(self.server.delay)
        for reply in self.server.judge(query, "udp"):
            self.transport.sendto(reply if isinstance(reply, bytes) else reply.to_wire(), peer)


def framed(wire):
    return struct.pack("!H", len(wire)) + wire


def nxdomain(query, transport):
    return rcode(dns.rcode.NXDOMAIN)(query, transport)


def rcode(code):
    def behaviour(query, transport):
        response = dns.message.make_response(query)
        response.set_rcode(code)
        return response

    return behaviour


def drop(query, transport):
    return None


def records(*rows):
    """Answer with rows of (owner, ttl, address or alias): all aliases, and the addresses of the
    asked family.
    """

    def behaviour(query, transport):
        response = dns.message.make_response(query)
        asked = query.question[0].rdtype
        for owner, ttl, value in rows:
            kind = kind_of(value)
            text = f"{value}." if kind == dns.rdatatype.CNAME else value
            if kind in (asked, dns.rdatatype.CNAME):
                rrset = response.find_rrset(
                    response.answer, dns.name.from_text(owner), dns.rdataclass.IN, kind, create=True
                )
                rrset.add(dns.rrset.from_text(owner, ttl, "IN", kind, text)[0], ttl)
        return response

    return behaviour


def kind_of(value):
    if ":" in value:
        return dns.rdatatype.AAAA
    return dns.rdatatype.A if value.replace(".", "").isdigit() else dns.rdatatype.CNAME


def truncated_on_udp(behaviour):
    """Set TC and leave the records out on UDP, as a server does whose answer is too long (RFC 1035,
    4.2.1).
    """

    def short(query, transport):
        if transport == "tcp":
            return behaviour(query, transport)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return response

    return short


def changed(behaviour, change):
    """Answer on UDP with a forged message first, then with the true one."""

    def forged(query, transport):
        false = records((query.question[0].name.to_text(), 60, "198.51.100.66"))(query, transport)
        change(false)
        true = behaviour(query, transport)
        return [false, true] if true is not None else [false]

    return forged
