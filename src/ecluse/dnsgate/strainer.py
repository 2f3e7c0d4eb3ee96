"""Listens on loopback for what the engine lets through, asks the site's resolvers, teaches the kernel, and then answers."""

import asyncio
import struct
import time
from collections import Counter
from collections.abc import Callable

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from ecluse.dnsgate import strain
from ecluse.dnsgate.answers import HeldAnswers, room
from ecluse.dnsgate.bounds import SERVERS_SHARE, SHARE, NewNames
from ecluse.dnsgate.engine_text import WORD_OPTION
from ecluse.dnsgate.memory import Memory
from ecluse.dnsgate.strain import Question, Refusal
from ecluse.ruleset.dnsorders import Orders

LOOPBACK = "127.0.0.1"
SECONDS = 2.0
"""For one question to all resolvers: the engine and its client ask again by themselves."""
DOUBT = 0.5
"""How long the others are waited for when one says that a kept name does not exist: one of them may be dead."""
MOST_AT_ONCE = 300
MOST_OF_ONE = 60
"""Of these, how many may wait for one machine: names whose servers are slow would else hold all places for one that floods."""
DNS_PORT = 53
_IDLE = 10.0
_LENGTH, _OPTION = struct.Struct("!H"), struct.Struct("!HH")


class Strainer:
    """Answers the engine, and nobody else: only it knows `word`, and adds it to each question that it lets through.

    now_in_force: the digest of the orders, for the question about the gate itself.
    """

    def __init__(self, memory: Memory, word: str) -> None:
        self._memory = memory
        self._word = _OPTION.pack(WORD_OPTION, len(word)) + word.encode()
        self._names = NewNames()
        self._answers = HeldAnswers()
        self._outward: dict[Question, asyncio.Task[dns.message.Message | None]] = {}
        self._orders: Orders | None = None
        self.now_in_force = ""
        self.counted: Counter[str] = Counter()
        self.trouble = ""
        self._at_once = 0
        self._waiting: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: tuple[asyncio.DatagramTransport, asyncio.Server] | None = None
        self._port = 0
        self._servers: set[str] = set()

    async def obey(self, orders: Orders, digest: str) -> None:
        """Work by these orders from now on. OSError when the port is taken."""
        if self._orders is None or self._orders.limits != orders.limits:
            self._names.limit(orders.limits.wildcard_names)
        if self._orders != orders:
            self._answers.clear()
        self._orders, self.now_in_force = orders, digest
        self._servers = {str(server) for each in orders.internal for server in each.servers}
        if self._port != orders.port + 1:
            self.close()
            loop = asyncio.get_running_loop()
            where = (LOOPBACK, orders.port + 1)
            datagrams, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self._begin), local_addr=where
            )
            server = await asyncio.start_server(self._stream, *where)
            self._listening, self._port = (datagrams, server), orders.port + 1

    def close(self) -> None:
        """Listen no more."""
        if self._listening:
            self._listening[0].close()
            self._listening[1].close()
        self._listening, self._port = None, 0

    def _is_the_engines(self, data: bytes) -> bool:
        """Say whether a question is the engine's: any program on the gateway can send one here, past the engine's bounds."""
        known = self._word in data
        if not known:
            self.counted["stranger"] += 1
        return known

    def _begin(self, data: bytes, send: Callable[[bytes], None]) -> None:
        if not self._is_the_engines(data):
            return
        found = self._answers.find(data, time.monotonic())
        if found is not None and (not found.while_open or self._memory.is_open()):
            send(found.wire)
            return
        if self._at_once >= MOST_AT_ONCE:
            self.counted["busy"] += 1
            return
        task = asyncio.get_running_loop().create_task(self._answer_datagram(data, send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, data: bytes, send: Callable[[bytes], None]) -> None:
        reply = await self._answer(data)
        if reply is not None:
            wire = reply.to_wire(max_size=65535)
            # What the client can take. It asks again over TCP.
            if len(wire) > room(reply):
                reply.answer.clear()
                reply.flags |= dns.flags.TC
                wire = reply.to_wire()
            send(wire)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    size = _LENGTH.unpack(await reader.readexactly(2))[0]
                    data = await reader.readexactly(size)
                reply = await self._answer(data) if self._is_the_engines(data) else None
                if reply is None:
                    break
                wire = reply.to_wire(max_size=65535)
                writer.write(_LENGTH.pack(len(wire)) + wire)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, data: bytes) -> dns.message.Message | None:
        """Answer one question of the engine; None where there is nothing to say."""
        self._at_once += 1
        try:
            try:
                query = dns.message.from_wire(data)
            except (dns.exception.DNSException, ValueError):
                self.counted["form"] += 1
                return None
            if query.flags & dns.flags.QR:  # an answer is answered by nobody
                self.counted["form"] += 1
                return None
            return await self._answer_query(query, data)
        finally:
            self._at_once -= 1

    async def _answer_query(self, query: dns.message.Message, data: bytes) -> dns.message.Message:
        asked, orders = strain.read(query), self._orders
        if asked is None or orders is None:
            return self._refuse(query, "form")
        digest = strain.is_health(asked[0])
        if digest:
            return self._about_itself(query, digest)
        client = strain.client(query)
        verdict = self._judge(*asked, client, orders)
        if isinstance(verdict, Refusal):
            return self._refuse(query, verdict.why)
        if self._waiting[client] >= MOST_OF_ONE and client not in self._servers:
            return self._refuse(query, "busy")
        self._waiting[client] += 1
        try:
            reply = await self._ask(query, verdict, orders)
        finally:
            self._waiting[client] -= 1
            self._waiting += Counter()  # forgets who waits for nothing
        if orders is self._orders:
            self._answers.keep(data, reply, time.monotonic(), while_open=not verdict.services)
        return reply

    def _judge(
        self, name: str, kind: dns.rdatatype.RdataType, client: str, orders: Orders
    ) -> Question | Refusal:
        """Judge a question by the orders, then by what only this moment tells: the kernel's gates, and the bounds."""
        verdict = strain.judge(name, kind, orders)
        if not isinstance(verdict, Question):
            return verdict
        if not verdict.services and not self._memory.is_open():
            return Refusal("name")
        share = SERVERS_SHARE if client in self._servers else SHARE
        now = time.monotonic()
        if verdict.wildcard and not self._names.may(verdict.name, verdict.wildcard, now, client, share):
            return Refusal("rate")
        return verdict

    def _refuse(self, query: dns.message.Message, why: str) -> dns.message.Message:
        self.counted[why] += 1
        return strain.empty(query, dns.rcode.REFUSED)

    def _about_itself(self, query: dns.message.Message, digest: str) -> dns.message.Message:
        if not self.now_in_force.startswith(digest):
            return strain.empty(query, dns.rcode.REFUSED)
        reply = strain.empty(query)
        text = query.question[0].name.to_text()
        reply.answer = dns.message.from_text(f"id 1\n;ANSWER\n{text} 0 IN A 127.0.0.1\n").answer
        return reply

    async def _ask(
        self, query: dns.message.Message, question: Question, orders: Orders
    ) -> dns.message.Message:
        answer = await self._answer_for_all(question, orders)
        if answer is None:
            self.counted["silent"] += 1
            return strain.empty(query, dns.rcode.SERVFAIL)
        found = strain.strained(query, answer, question, orders)
        self.counted["answered"] += 1
        if found.taken_out:
            self.counted["private"] += found.taken_out
        if found.dropped:
            self.counted["binding"] += found.dropped
        try:
            self._memory.learn(question.services, found.addresses, question.led)
        except OSError as error:
            self.trouble = f"an address of {question.name} could not be put into the kernel: {error.strerror}"
            self.counted["untaught"] += 1
            return strain.empty(query, dns.rcode.SERVFAIL)
        self.trouble = ""
        return found.reply

    async def _answer_for_all(self, question: Question, orders: Orders) -> dns.message.Message | None:
        """Ask once for all who want to know the same at the same time."""
        task = self._outward.get(question)
        if task is None:
            task = asyncio.create_task(self._first_answer(question, orders))
            self._outward[question] = task
            task.add_done_callback(lambda _: self._outward.pop(question, None))
        return await asyncio.shield(task)

    async def _first_answer(self, question: Question, orders: Orders) -> dns.message.Message | None:
        """Ask every resolver at once; the first that knows the name counts, NXDOMAIN or a failure only when there is no other.

        Of a name that nobody keeps NXDOMAIN counts at once: at `open` most of them do not exist (machines try their suffixes).

        A datagram that is no answer to the question (another number, another sender) ends no waiting: anybody can send one.
        """
        outward = [
            asyncio.ensure_future(
                dns.asyncquery.udp_with_fallback(
                    strain.outward(question),
                    str(server),
                    timeout=SECONDS,
                    port=DNS_PORT,
                    ignore_unexpected=True,
                    ignore_errors=True,
                )
            )
            for server in orders.resolvers
        ]
        bad: dns.message.Message | None = None
        waiting = set(outward)
        patience: float | None = None
        try:
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for task in done:
                    try:
                        answer, _ = task.result()
                    except (dns.exception.DNSException, OSError, EOFError):
                        continue
                    if answer.rcode() == dns.rcode.NOERROR:
                        return answer
                    if bad is None or answer.rcode() == dns.rcode.NXDOMAIN:
                        bad = answer
                if bad is not None and bad.rcode() == dns.rcode.NXDOMAIN:
                    patience = DOUBT
                    if not question.services:
                        break
        finally:
            for task in outward:
                task.cancel()
            await asyncio.gather(*outward, return_exceptions=True)
        return bad


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, begin: Callable[[bytes, Callable[[bytes], None]], None]) -> None:
        self._begin = begin
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a datagram transport, as it was made for

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        transport = self._transport
        if transport is not None:
            self._begin(data, lambda wire: transport.sendto(wire, addr))
