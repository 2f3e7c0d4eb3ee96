"""DNS forwarder behind dnsmasq: asks the resolvers, fills the kernel's sets, and then answers."""

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
from ecluse.dnsproxy.alias_chains import RECENT, AliasChains
from ecluse.dnsproxy.answer_cache import AnswerCache, payload_limit
from ecluse.dnsproxy.dnsmasq_config import LOOPBACK, SECRET_OPTION, own_zones
from ecluse.dnsproxy.dnssec import ValidatingServers
from ecluse.dnsproxy.learned import LearnedAddresses
from ecluse.dnsproxy.message_filter import DnsQuestion, Refusal
from ecluse.dnsproxy.proxy_config import ProxyConfig
from ecluse.dnsproxy.rate_limit import SERVERS_SHARE, SHARE, NewNameLimit
from ecluse.policy import IPAddress
from ecluse.ruleset.dns_redirect import REFUSING

QUERY_SECONDS = 2.0
"""For one query to all resolvers: dnsmasq and its client ask again by themselves."""
NXDOMAIN_WAIT = 0.5
"""Seconds for the other resolvers, once one says that a kept name does not exist."""
MOST_AT_ONCE = 300
MOST_PER_CLIENT = 60
"""Of these, how many for one machine: with slow names it would else take all of them."""
DNS_PORT = 53
WARM_SECONDS = RECENT / 2
"""Seconds between two queries for each of the site's own names.

So its targets are known when an inside server asks for one of them alone.
"""
_WARM_PAUSE, _WARM_AGAIN = 0.02, 60.0
_IDLE = 10.0
_LENGTH, _OPTION = struct.Struct("!H"), struct.Struct("!HH")


class Forwarder:
    """Answers dnsmasq, which alone knows `secret` and adds it to each query that it lets through.

    let_through: called with new targets and zones before the answer that led to them is sent;
    returns once dnsmasq lets them through.
    config_digest: of the configuration in use, for the health query.
    counted: why queries were refused, and how many.
    """

    def __init__(
        self,
        learned: LearnedAddresses,
        secret: str,
        let_through: Callable[[AliasChains], Awaitable[None]] | None = None,
    ) -> None:
        self._learned = learned
        self._secret = _OPTION.pack(SECRET_OPTION, len(secret)) + secret.encode()
        self._let_through = let_through
        self.chains = AliasChains()
        self._zones: frozenset[str] = frozenset()
        self.validating = ValidatingServers()
        self._config_changed = asyncio.Event()
        self._new_names = NewNameLimit()
        self._cache = AnswerCache()
        self._under_way: dict[DnsQuestion, asyncio.Task[dns.message.Message | None]] = {}
        self._config: ProxyConfig | None = None
        self.config_digest = ""
        self.counted: Counter[str] = Counter()
        self.trouble = ""
        self._at_once = 0
        self._waiting: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: list[asyncio.DatagramTransport | asyncio.Server] = []
        self._port = 0
        self._servers: set[str] = set()

    async def apply_config(self, config: ProxyConfig, digest: str) -> None:
        """Work by this configuration from now on. OSError when the port is taken."""
        if self._config is None or self._config.limits != config.limits:
            self._new_names.set_rate(config.limits.wildcard_names)
        if self._config != config:
            self._cache.clear()
        self._config, self.config_digest = config, digest
        self._zones = own_zones(config)
        self._config_changed.set()
        self._servers = {str(server) for each in config.internal for server in each.servers}
        if self._port != config.port + 1:
            self.close()
            loop = asyncio.get_running_loop()
            for address in (LOOPBACK, REFUSING):
                where = (address, config.port + 1)
                datagrams, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self._handle_datagram), local_addr=where
                )
                self._listening.append(datagrams)
                self._listening.append(await asyncio.start_server(self._stream, *where))
            self._port = config.port + 1

    def close(self) -> None:
        """Close the sockets."""
        for one in self._listening:
            one.close()
        self._listening, self._port = [], 0

    def _is_from_dnsmasq(self, data: bytes) -> bool:
        """Say whether a query has dnsmasq's secret: any program on the gateway can send one."""
        known = self._secret in data
        if not known:
            self.counted["stranger"] += 1
        return known

    def _handle_datagram(self, data: bytes, send: Callable[[bytes], None]) -> None:
        if not self._is_from_dnsmasq(data):
            return
        found = self._cache.find(data, time.monotonic())
        if found is not None and (not found.while_open or self._learned.is_open()):
            if found.keys:
                self.validating.add_client(
                    message_filter.client_address(dns.message.from_wire(data)), time.monotonic()
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
            # Too long for the client: it asks again over TCP.
            if len(wire) > payload_limit(reply):
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
                reply = await self._answer(data) if self._is_from_dnsmasq(data) else None
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
        """Answer one query; None for what is no query."""
        self._at_once += 1
        try:
            try:
                query = dns.message.from_wire(data)
            except (dns.exception.DNSException, ValueError):
                self.counted["form"] += 1
                return None
            if query.flags & dns.flags.QR:  # a response
                self.counted["form"] += 1
                return None
            return await self._answer_query(query, data)
        finally:
            self._at_once -= 1

    async def _answer_query(self, query: dns.message.Message, data: bytes) -> dns.message.Message:
        asked, config = message_filter.parse_question(query), self._config
        if asked is None or config is None:
            return self._refuse(query, "form")
        digest = message_filter.health_digest(asked[0])
        if digest:
            return self._health_answer(query, digest)
        client = message_filter.client_address(query)
        if asked[1] in message_filter.KEYS:
            self.validating.add_client(client, time.monotonic())
        verdict = self._judge(*asked, client, config)
        if isinstance(verdict, Refusal):
            return self._refuse(query, verdict.why)
        verdict = replace(verdict, dnssec=bool(query.ednsflags & dns.flags.DO))
        if self._waiting[client] >= MOST_PER_CLIENT and client not in self._servers:
            return self._refuse(query, "busy")
        self._waiting[client] += 1
        try:
            reply = await self._answer_kept(query, verdict, config)
        finally:
            self._waiting[client] -= 1
            self._waiting += Counter()  # drops counts of zero
        if config is self._config:
            while_open = not (verdict.services or verdict.keys)
            self._cache.store(
                data, reply, time.monotonic(), while_open=while_open, keys=verdict.keys
            )
        return reply

    def _judge(
        self, name: str, kind: dns.rdatatype.RdataType, client: str, config: ProxyConfig
    ) -> DnsQuestion | Refusal:
        """Judge a question by the configuration, then by the kernel's state and the rate limit."""
        now = time.monotonic()
        head = self._kept_name(name, config, now)
        verdict = message_filter.judge(head or name, kind, config, self._zones_of(name, now))
        if not isinstance(verdict, DnsQuestion):
            return verdict
        if not (verdict.services or verdict.keys) and not self._learned.is_open():
            return Refusal("name")
        share = SERVERS_SHARE if client in self._servers else SHARE
        # The name that led to a target was counted when it was asked for.
        new = verdict.wildcard and not head
        if new and not self._new_names.allows(verdict.name, verdict.wildcard, now, client, share):
            return Refusal("rate")
        return verdict

    def _kept_name(self, name: str, config: ProxyConfig, now: float) -> str:
        """Return the kept name whose alias led to this one lately.

        Empty where this one is kept itself, or none did.
        """
        if config.policy_for(name) is not None:
            return ""
        return next(
            (
                head
                for head in self.chains.kept_names(name, now)
                if config.policy_for(head) is not None
            ),
            "",
        )

    def _zones_of(self, name: str, now: float) -> tuple[str, ...]:
        """Return the name itself if it is a zone whose keys may be asked for."""
        return (name,) if name in self._zones or self.chains.is_zone(name, now) else ()

    def refusal(self, name: str, kind: dns.rdatatype.RdataType) -> Refusal | None:
        """Return why a question is refused, None if it is not; the rate limit is left out."""
        config, now = self._config, time.monotonic()
        if config is None:
            return None
        head = self._kept_name(name, config, now)
        verdict = message_filter.judge(head or name, kind, config, self._zones_of(name, now))
        return verdict if isinstance(verdict, Refusal) else None

    def _refuse(self, query: dns.message.Message, why: str) -> dns.message.Message:
        self.counted[why] += 1
        return message_filter.empty_reply(query, dns.rcode.REFUSED)

    def _health_answer(self, query: dns.message.Message, digest: str) -> dns.message.Message:
        if not self.config_digest.startswith(digest):
            return message_filter.empty_reply(query, dns.rcode.REFUSED)
        reply = message_filter.empty_reply(query)
        text = query.question[0].name.to_text()
        reply.answer = dns.message.from_text(f"id 1\n;ANSWER\n{text} 0 IN A 127.0.0.1\n").answer
        return reply

    async def _answer_kept(
        self, query: dns.message.Message, question: DnsQuestion, config: ProxyConfig
    ) -> dns.message.Message:
        answer = self.chains.cached_answer(question, time.monotonic())
        if answer is None:
            answer = await self._shared_answer(question, config)
        if answer is None:
            self.counted["silent"] += 1
            return message_filter.empty_reply(query, dns.rcode.SERVFAIL)
        found = message_filter.filter_answer(query, answer, question, config)
        self.counted["answered"] += 1
        if found.taken_out:
            self.counted["private"] += found.taken_out
        if found.dropped:
            self.counted["binding"] += found.dropped
        try:
            self._learned.add_addresses(question.services, found.addresses, question.origin)
            self._add_for_other_names(query, question, found.addresses, config)
        except OSError as error:
            self.trouble = (
                f"an address of {question.name} could not be put into the kernel: {error.strerror}"
            )
            self.counted["untaught"] += 1
            return message_filter.empty_reply(query, dns.rcode.SERVFAIL)
        self.trouble = ""
        return found.reply

    def _add_for_other_names(
        self,
        query: dns.message.Message,
        question: DnsQuestion,
        addresses: tuple[IPAddress, ...],
        config: ProxyConfig,
    ) -> None:
        """Add addresses of a target for the services of every other kept name that leads to it."""
        name = message_filter.name_of(query)
        for head in self.chains.kept_names(name, time.monotonic()) if addresses else ():
            other = message_filter.judge(head, question.type, config)
            if isinstance(other, DnsQuestion) and head != question.name:
                self._learned.add_addresses(
                    other.services,
                    message_filter.allowed_addresses(addresses, other, config),
                    other.origin,
                )

    async def _shared_answer(
        self, question: DnsQuestion, config: ProxyConfig
    ) -> dns.message.Message | None:
        """Share one query among all clients that ask the same at the same time."""
        task = self._under_way.get(question)
        if task is None:
            task = asyncio.create_task(self._new_answer(question, config))
            self._under_way[question] = task
            task.add_done_callback(lambda _: self._under_way.pop(question, None))
        return await asyncio.shield(task)

    async def _new_answer(
        self, question: DnsQuestion, config: ProxyConfig
    ) -> dns.message.Message | None:
        """Ask; dnsmasq lets the answer's targets through before any client has the answer."""
        answer = await self._first_answer(question, config)
        if answer is None:
            return None
        self.validating.check_answer(question, answer)
        fresh = bool(question.services) and self.chains.add_answer(
            question, answer, time.monotonic()
        )
        if fresh and self._let_through is not None:
            await self._let_through(self.chains)
        return answer

    async def ask_own_names(self) -> None:
        """Ask for each of the site's own names every WARM_SECONDS, until cancelled."""
        next_at: dict[str, float] = {}
        while True:
            self._config_changed.clear()
            config = self._config
            every = config.names if config else {}
            next_at = {name: at for name, at in next_at.items() if name in every}
            for name in every:
                if config is None or config is not self._config:
                    break
                question = message_filter.judge(name, dns.rdatatype.A, config)
                now = time.monotonic()
                if next_at.get(name, now) > now or not isinstance(question, DnsQuestion):
                    continue
                answer = await self._shared_answer(question, config)
                next_at[name] = now + (WARM_SECONDS if answer is not None else _WARM_AGAIN)
                await asyncio.sleep(_WARM_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WARM_AGAIN):
                    await self._config_changed.wait()

    async def _first_answer(
        self, question: DnsQuestion, config: ProxyConfig
    ) -> dns.message.Message | None:
        """Ask every resolver at once; return the first NOERROR, else NXDOMAIN, else another error.

        For a name that is not kept NXDOMAIN counts at once: at `open` most of them do not exist,
        since machines try their suffixes. For a kept one the others have NXDOMAIN_WAIT seconds: the
        resolver that knows the name may be slow.
        """
        outward = [
            asyncio.ensure_future(
                exchange(
                    message_filter.outgoing_query(question), (str(server), DNS_PORT), QUERY_SECONDS
                )
            )
            for server in config.resolvers
        ]
        bad: dns.message.Message | None = None
        waiting = set(outward)
        wait: float | None = None
        try:
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting, timeout=wait, return_when=asyncio.FIRST_COMPLETED
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
                    wait = NXDOMAIN_WAIT
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
        self._transport = transport  # type: ignore[assignment]  # a datagram transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        transport = self._transport
        if transport is not None:
            self._begin(data, lambda wire: transport.sendto(wire, addr))
