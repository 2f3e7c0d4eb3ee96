"""Listens on loopback for what the engine lets through, asks the site's resolvers, teaches the
kernel, and then answers.
"""

import asyncio
import contextlib
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from ecluse.dns_exchange import exchange
from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.alias_chains import LATELY, AliasChains
from ecluse.dnsproxy.answer_cache import AnswerCache, room
from ecluse.dnsproxy.dnsmasq_config import LOOPBACK, WORD_OPTION, own_zones
from ecluse.dnsproxy.dnssec import ValidatingServers
from ecluse.dnsproxy.learned import LearnedAddresses
from ecluse.dnsproxy.message_filter import DnsQuestion, Refusal
from ecluse.dnsproxy.rate_limit import SERVERS_SHARE, SHARE, NewNameLimit
from ecluse.policy import IPAddress
from ecluse.ruleset.dns_redirect import REFUSING
from ecluse.ruleset.proxy_config import ProxyConfig

SECONDS = 2.0
"""For one question to all resolvers: the engine and its client ask again by themselves."""
DOUBT = 0.5
"""How long the others are waited for when one says that a kept name does not exist: one of them may
be dead.
"""
MOST_AT_ONCE = 300
MOST_OF_ONE = 60
"""Of these, how many may wait for one machine: names whose servers are slow would else hold all
places for one that floods.
"""
DNS_PORT = 53
WARM_SECONDS = LATELY / 2
"""The site's own names are asked for so often, so that what they lead to is known when an inside
server asks for it alone.
"""
_WARM_PAUSE, _WARM_AGAIN = 0.02, 60.0
_IDLE = 10.0
_LENGTH, _OPTION = struct.Struct("!H"), struct.Struct("!HH")


class Forwarder:
    """Answers the engine, and nobody else: only it knows `word`, and adds it to each question that
    it lets through.

    now_in_force: the digest of the orders, for the question about the gate itself. reach: called
    with names that answers led to, before such an answer is given; done once the engine lets them
    through.
    """

    def __init__(
        self,
        memory: LearnedAddresses,
        word: str,
        reach: Callable[[AliasChains], Awaitable[None]] | None = None,
    ) -> None:
        self._memory = memory
        self._word = _OPTION.pack(WORD_OPTION, len(word)) + word.encode()
        self._reach = reach
        self.chains = AliasChains()
        self._zones: frozenset[str] = frozenset()
        self.validating = ValidatingServers()
        self._other_orders = asyncio.Event()
        self._names = NewNameLimit()
        self._answers = AnswerCache()
        self._outward: dict[DnsQuestion, asyncio.Task[dns.message.Message | None]] = {}
        self._orders: ProxyConfig | None = None
        self.now_in_force = ""
        self.counted: Counter[str] = Counter()
        self.trouble = ""
        self._at_once = 0
        self._waiting: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: list[asyncio.DatagramTransport | asyncio.Server] = []
        self._port = 0
        self._servers: set[str] = set()

    async def obey(self, orders: ProxyConfig, digest: str) -> None:
        """Work by these orders from now on. OSError when the port is taken."""
        if self._orders is None or self._orders.limits != orders.limits:
            self._names.limit(orders.limits.wildcard_names)
        if self._orders != orders:
            self._answers.clear()
        self._orders, self.now_in_force = orders, digest
        self._zones = own_zones(orders)
        self._other_orders.set()
        self._servers = {str(server) for each in orders.internal for server in each.servers}
        if self._port != orders.port + 1:
            self.close()
            loop = asyncio.get_running_loop()
            for address in (LOOPBACK, REFUSING):
                where = (address, orders.port + 1)
                datagrams, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self._begin), local_addr=where
                )
                self._listening.append(datagrams)
                self._listening.append(await asyncio.start_server(self._stream, *where))
            self._port = orders.port + 1

    def close(self) -> None:
        """Listen no more."""
        for one in self._listening:
            one.close()
        self._listening, self._port = [], 0

    def _is_the_engines(self, data: bytes) -> bool:
        """Say whether a question is the engine's: any program on the gateway can send one here,
        past the engine's bounds.
        """
        known = self._word in data
        if not known:
            self.counted["stranger"] += 1
        return known

    def _begin(self, data: bytes, send: Callable[[bytes], None]) -> None:
        if not self._is_the_engines(data):
            return
        found = self._answers.find(data, time.monotonic())
        if found is not None and (not found.while_open or self._memory.is_open()):
            if found.keys:
                self.validating.note(
                    message_filter.client(dns.message.from_wire(data)), time.monotonic()
                )
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
        asked, orders = message_filter.parse_question(query), self._orders
        if asked is None or orders is None:
            return self._refuse(query, "form")
        digest = message_filter.is_health(asked[0])
        if digest:
            return self._about_itself(query, digest)
        client = message_filter.client(query)
        if asked[1] in message_filter.KEYS:
            self.validating.note(client, time.monotonic())
        verdict = self._judge(*asked, client, orders)
        if isinstance(verdict, Refusal):
            return self._refuse(query, verdict.why)
        verdict = replace(verdict, dnssec=bool(query.ednsflags & dns.flags.DO))
        if self._waiting[client] >= MOST_OF_ONE and client not in self._servers:
            return self._refuse(query, "busy")
        self._waiting[client] += 1
        try:
            reply = await self._ask(query, verdict, orders)
        finally:
            self._waiting[client] -= 1
            self._waiting += Counter()  # forgets who waits for nothing
        if orders is self._orders:
            while_open = not (verdict.services or verdict.keys)
            self._answers.keep(
                data, reply, time.monotonic(), while_open=while_open, keys=verdict.keys
            )
        return reply

    def _judge(
        self, name: str, kind: dns.rdatatype.RdataType, client: str, orders: ProxyConfig
    ) -> DnsQuestion | Refusal:
        """Judge a question by the orders, then by what only this moment tells: the kernel's gates,
        and the bounds.
        """
        now = time.monotonic()
        head = self._head(name, orders, now)
        verdict = message_filter.judge(head or name, kind, orders, self._zones_of(name, now))
        if not isinstance(verdict, DnsQuestion):
            return verdict
        if not (verdict.services or verdict.keys) and not self._memory.is_open():
            return Refusal("name")
        share = SERVERS_SHARE if client in self._servers else SHARE
        # What led to a target was asked for before, and within the bounds.
        new = verdict.wildcard and not head
        if new and not self._names.may(verdict.name, verdict.wildcard, now, client, share):
            return Refusal("rate")
        return verdict

    def _head(self, name: str, orders: ProxyConfig, now: float) -> str:
        """Give the kept name that led to this one lately, as the target of an alias; empty where it
        is kept itself, or none did.
        """
        if orders.answers(name) is not None:
            return ""
        return next(
            (head for head in self.chains.heads(name, now) if orders.answers(head) is not None), ""
        )

    def _zones_of(self, name: str, now: float) -> tuple[str, ...]:
        """Give the name itself where it is a zone whose keys may be asked for."""
        return (name,) if name in self._zones or self.chains.is_zone(name, now) else ()

    def why(self, name: str, kind: dns.rdatatype.RdataType) -> Refusal | None:
        """Say why a question is refused by the orders and by what answers led to; None when it is
        not.
        """
        orders, now = self._orders, time.monotonic()
        if orders is None:
            return None
        head = self._head(name, orders, now)
        verdict = message_filter.judge(head or name, kind, orders, self._zones_of(name, now))
        return verdict if isinstance(verdict, Refusal) else None

    def _refuse(self, query: dns.message.Message, why: str) -> dns.message.Message:
        self.counted[why] += 1
        return message_filter.empty(query, dns.rcode.REFUSED)

    def _about_itself(self, query: dns.message.Message, digest: str) -> dns.message.Message:
        if not self.now_in_force.startswith(digest):
            return message_filter.empty(query, dns.rcode.REFUSED)
        reply = message_filter.empty(query)
        text = query.question[0].name.to_text()
        reply.answer = dns.message.from_text(f"id 1\n;ANSWER\n{text} 0 IN A 127.0.0.1\n").answer
        return reply

    async def _ask(
        self, query: dns.message.Message, question: DnsQuestion, orders: ProxyConfig
    ) -> dns.message.Message:
        answer = self.chains.held(question, time.monotonic())
        if answer is None:
            answer = await self._answer_for_all(question, orders)
        if answer is None:
            self.counted["silent"] += 1
            return message_filter.empty(query, dns.rcode.SERVFAIL)
        found = message_filter.filter_answer(query, answer, question, orders)
        self.counted["answered"] += 1
        if found.taken_out:
            self.counted["private"] += found.taken_out
        if found.dropped:
            self.counted["binding"] += found.dropped
        try:
            self._memory.learn(question.services, found.addresses, question.led)
            self._learn_for_others(query, question, found.addresses, orders)
        except OSError as error:
            self.trouble = (
                f"an address of {question.name} could not be put into the kernel: {error.strerror}"
            )
            self.counted["untaught"] += 1
            return message_filter.empty(query, dns.rcode.SERVFAIL)
        self.trouble = ""
        return found.reply

    def _learn_for_others(
        self,
        query: dns.message.Message,
        question: DnsQuestion,
        addresses: tuple[IPAddress, ...],
        orders: ProxyConfig,
    ) -> None:
        """Keep addresses of a target for the services of every kept name that leads to it: their
        machines are given them too.
        """
        name = message_filter.name_of(query)
        for head in self.chains.heads(name, time.monotonic()) if addresses else ():
            other = message_filter.judge(head, question.type, orders)
            if isinstance(other, DnsQuestion) and head != question.name:
                self._memory.learn(
                    other.services, message_filter.fit(addresses, other, orders), other.led
                )

    async def _answer_for_all(
        self, question: DnsQuestion, orders: ProxyConfig
    ) -> dns.message.Message | None:
        """Ask once for all who want to know the same at the same time."""
        task = self._outward.get(question)
        if task is None:
            task = asyncio.create_task(self._new_answer(question, orders))
            self._outward[question] = task
            task.add_done_callback(lambda _: self._outward.pop(question, None))
        return await asyncio.shield(task)

    async def _new_answer(
        self, question: DnsQuestion, orders: ProxyConfig
    ) -> dns.message.Message | None:
        """Ask, and have the engine know what the answer leads to before anybody has it."""
        answer = await self._first_answer(question, orders)
        if answer is None:
            return None
        self.validating.heard(question, answer)
        fresh = bool(question.services) and self.chains.note(question, answer, time.monotonic())
        if fresh and self._reach is not None:
            await self._reach(self.chains)
        return answer

    async def warm(self) -> None:
        """Ask for each of the site's own names now and then, until cancelled: see WARM_SECONDS."""
        next_at: dict[str, float] = {}
        while True:
            self._other_orders.clear()
            orders = self._orders
            every = orders.names if orders else {}
            next_at = {name: at for name, at in next_at.items() if name in every}
            for name in every:
                if orders is None or orders is not self._orders:
                    break
                question = message_filter.judge(name, dns.rdatatype.A, orders)
                now = time.monotonic()
                if next_at.get(name, now) > now or not isinstance(question, DnsQuestion):
                    continue
                answer = await self._answer_for_all(question, orders)
                next_at[name] = now + (WARM_SECONDS if answer is not None else _WARM_AGAIN)
                await asyncio.sleep(_WARM_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WARM_AGAIN):
                    await self._other_orders.wait()

    async def _first_answer(
        self, question: DnsQuestion, orders: ProxyConfig
    ) -> dns.message.Message | None:
        """Ask every resolver at once; the first that knows the name counts, NXDOMAIN or a failure
        only when there is no other.

        Of a name that nobody keeps NXDOMAIN counts at once: at `open` most of them do not exist
        (machines try their suffixes).

        A datagram that is no answer to the question (another number, another sender) ends no
        waiting: anybody can send one.
        """
        outward = [
            asyncio.ensure_future(
                exchange(message_filter.outward(question), (str(server), DNS_PORT), SECONDS)
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
