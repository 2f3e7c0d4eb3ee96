"""The forwarder: its bounds, one query for many clients, targets of aliases."""

import asyncio
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecluse.dnsproxy.alias_chains import AliasChains
from ecluse.dnsproxy.forwarder import MOST_PER_CLIENT, Forwarder
from ecluse.dnsproxy.message_filter import DnsQuestion
from ecluse.dnsproxy.proxy_config import NamePolicy, ProxyConfig, proxy_config_of
from ecluse.policy import Traffic
from tests.unit.dnsproxy.messages import (
    CONFIG,
    POLICY,
    SECRET,
    answer,
    asked,
    reply_to,
)
from tests.unit.resolve.server import Server, drop, nxdomain, rcode, records

SERVER = "10.10.0.53"


class Kernel:
    """Stands for what the kernel's sets and gates say."""

    opened = False

    def is_open(self) -> bool:
        return self.opened

    def add_addresses(self, services, addresses, origin) -> None:
        pass


class Outside:
    """Stands for the resolvers: silent until it is told to answer, then with one address."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.answers = asyncio.Event()

    async def first_answer(self, question, config: ProxyConfig) -> dns.message.Message:
        self.asked[question.name] += 1
        await self.answers.wait()
        return reply_to(asked(question.name), f"{question.name}. 60 IN A 203.0.113.9")


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


async def forwarder_of(
    kernel: Kernel, monkeypatch, *, everything: bool = False
) -> tuple[Forwarder, Outside]:
    """Make one that listens nowhere and asks nobody; every name under the wildcard may be asked
    for.
    """
    forwarder, outside = Forwarder(kernel, SECRET), Outside()
    config = proxy_config_of(POLICY, dict.fromkeys(POLICY.zone_names(), "cut"))
    assert config is not None
    if everything:
        object.__setattr__(config, "everything", True)
    forwarder._port = config.port + 1
    await forwarder.apply_config(config, "digest")
    forwarder._new_names.set_rate(1000)
    monkeypatch.setattr(forwarder, "_first_answer", outside.first_answer)
    return forwarder, outside


def test_of_one_machine_only_so_many_wait(kernel, monkeypatch):
    async def main() -> None:
        forwarder, outside = await forwarder_of(kernel, monkeypatch)

        def ask(number: int, client: str) -> asyncio.Task[dns.message.Message]:
            data = asked(f"n{number}.operator.example", client=client)
            return asyncio.create_task(forwarder._answer(data))

        waiting = [ask(number, "10.10.4.7") for number in range(MOST_PER_CLIENT)]
        await asyncio.sleep(0)
        assert (await ask(900, "10.10.4.7")).rcode() == dns.rcode.REFUSED
        assert forwarder.counted["busy"] == 1
        others = [
            ask(901, "10.10.4.8"),
            *(ask(1000 + n, SERVER) for n in range(2 * MOST_PER_CLIENT)),
        ]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in (*waiting, *others)), (
            "another machine, and a server of the inside"
        )
        outside.answers.set()
        assert {reply.rcode() for reply in await asyncio.gather(*waiting, *others)} == {
            dns.rcode.NOERROR
        }
        assert not forwarder._waiting
        assert (await ask(900, "10.10.4.7")).rcode() == dns.rcode.NOERROR, (
            "as soon as there is room"
        )

    asyncio.run(asyncio.wait_for(main(), 10))


def test_what_many_ask_is_asked_once_and_then_given_again(kernel, monkeypatch):
    async def main() -> None:
        forwarder, outside = await forwarder_of(kernel, monkeypatch)
        data = asked("results.lab.example")
        both = [asyncio.create_task(forwarder._answer(data)) for _ in range(2)]
        await asyncio.sleep(0.01)
        outside.answers.set()
        for reply in await asyncio.gather(*both):
            assert reply.answer
        given: list[bytes] = []
        forwarder._handle_datagram(data, given.append)
        assert dns.message.from_wire(given[0]).answer
        assert outside.asked == {"results.lab.example": 1}
        # Other orders may answer otherwise.
        config = proxy_config_of(POLICY, dict.fromkeys(POLICY.zone_names(), "isolate"))
        assert config is not None
        await forwarder.apply_config(config, "other")
        forwarder._handle_datagram(data, given.append)
        await asyncio.sleep(0.01)
        assert dns.message.from_wire(given[1]).rcode() == dns.rcode.REFUSED

    asyncio.run(asyncio.wait_for(main(), 10))


def test_what_was_answered_because_all_was_open_is_not_given_again_at_a_cut(kernel, monkeypatch):
    async def main() -> None:
        forwarder, outside = await forwarder_of(kernel, monkeypatch, everything=True)
        outside.answers.set()
        kernel.opened = True
        data = asked("www.web.example")
        assert (await forwarder._answer(data)).answer
        given: list[bytes] = []
        forwarder._handle_datagram(data, given.append)
        assert len(given) == 1
        kernel.opened = False
        forwarder._handle_datagram(data, given.append)
        await asyncio.sleep(0.01)
        assert dns.message.from_wire(given[1]).rcode() == dns.rcode.REFUSED
        assert outside.asked == {"www.web.example": 1}

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("first", ["another number", "not DNS", "NXDOMAIN", "SERVFAIL", "nothing"])
def test_neither_a_forged_datagram_nor_one_resolver_ends_the_waiting_for_an_answer(
    kernel, monkeypatch, first
):
    name = "results.lab.example"
    right = records((name, 60, "203.0.113.9"))

    def forged(query, transport):
        bad = (
            b"\1\2\3"
            if first == "not DNS"
            else bytes([query.id >> 8 ^ 1]) + right(query, transport).to_wire()[1:]
        )
        return [bad, right(query, transport)]

    says = {"NXDOMAIN": nxdomain, "SERVFAIL": rcode(dns.rcode.SERVFAIL), "nothing": drop}

    async def main() -> None:
        forwarder = Forwarder(kernel, SECRET)
        async with Server("127.0.0.1") as one, Server("127.0.0.2", one.port) as two:
            monkeypatch.setattr("ecluse.dnsproxy.forwarder.DNS_PORT", one.port)
            one.answers[name] = says.get(first, forged)
            two.answers[name] = right if first in says else drop
            two.delay = 0.1
            config = replace(
                proxy_config_of(POLICY, dict.fromkeys(POLICY.zone_names(), "cut")),
                resolvers=(ip_address("127.0.0.1"), ip_address("127.0.0.2")),
            )
            forwarder._port = config.port + 1
            await forwarder.apply_config(config, "digest")
            reply = await forwarder._answer(asked(name))
            assert [one.to_text() for one in reply.answer[0]] == ["203.0.113.9"]

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize(
    ("name", "doubt"), [("results.lab.example", 0.1), ("www.web.example.suffix.example", 60)]
)
def test_one_dead_resolver_does_not_hold_up_what_does_not_exist(kernel, monkeypatch, name, doubt):
    """For a moment where a kept name is concerned, in case it exists; at `open`, where most of them
    do not, for none.
    """

    async def main() -> None:
        kernel.opened = True
        forwarder = Forwarder(kernel, SECRET)
        monkeypatch.setattr("ecluse.dnsproxy.forwarder.QUERY_SECONDS", 60)
        monkeypatch.setattr("ecluse.dnsproxy.forwarder.NXDOMAIN_WAIT", doubt)
        async with Server("127.0.0.1") as alive, Server("127.0.0.2", alive.port) as dead:
            monkeypatch.setattr("ecluse.dnsproxy.forwarder.DNS_PORT", alive.port)
            alive.answers[name], dead.answers[name] = nxdomain, drop
            config = replace(
                proxy_config_of(POLICY, dict.fromkeys(POLICY.zone_names(), "cut")),
                resolvers=(ip_address("127.0.0.1"), ip_address("127.0.0.2")),
                everything=True,
            )
            forwarder._port = config.port + 1
            await forwarder.apply_config(config, "digest")
            reply = await forwarder._answer(asked(name))
            assert reply.rcode() == dns.rcode.NXDOMAIN

    asyncio.run(asyncio.wait_for(main(), 10))


def test_only_the_engine_is_answered_by_either_protocol(kernel, monkeypatch):
    """RED before: any program on the gateway asked here, past the engine's list of names and the
    kernel's bounds.
    """

    async def main() -> None:
        forwarder, outside = await forwarder_of(kernel, monkeypatch)
        outside.answers.set()
        ours = asked("a.operator.example")
        others = [
            dns.message.make_query("b.operator.example", "A").to_wire(),
            ours.replace(SECRET.encode(), SECRET[::-1].encode()).replace(b"\x01a", b"\x01c"),
        ]
        given: list[bytes] = []
        for data in (*others, ours):
            forwarder._handle_datagram(data, given.append)
        forwarder._config = replace(forwarder._config, port=0)  # any port that is free
        server = await asyncio.start_server(forwarder._stream, "127.0.0.1", 0)
        for data in (*others, ours):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(len(data).to_bytes(2) + data)
            found = await reader.read(2)
            assert bool(found) is (data is ours), "the connection of another ends"
            writer.close()
        server.close()
        assert [dns.message.from_wire(one).rcode() for one in given] == [dns.rcode.NOERROR]
        assert outside.asked == {"a.operator.example": 1} or outside.asked == {
            "a.operator.example": 2
        }
        assert forwarder.counted["stranger"] == 2 * len(others)

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize(
    "labels",
    [
        [b"evil.operator", b"example"],
        [b"evil\\.operator", b"example"],
        [b"a.operator.example", b""],
    ],
)
def test_names_are_compared_by_their_labels(kernel, monkeypatch, labels):
    """RED before: a label with a dot in it passed as two, so as a name below a kept wildcard."""

    async def main() -> None:
        forwarder, outside = await forwarder_of(kernel, monkeypatch)
        outside.answers.set()
        name = dns.name.Name([*(label for label in labels if label), b""])
        reply = await forwarder._answer(asked(name))
        assert reply.rcode() == dns.rcode.REFUSED
        assert not outside.asked
        below = dns.name.Name([b"a.b", b"operator", b"example", b""])
        assert (await forwarder._answer(asked(below))).rcode() == dns.rcode.NOERROR, (
            "below it by its labels"
        )
        (left,) = outside.asked
        assert dns.name.from_text(left) == below, "and it leaves as it is"

    asyncio.run(asyncio.wait_for(main(), 10))


def test_an_answer_is_answered_by_nobody(kernel, monkeypatch):
    """RED before: a packet with QR set left a traceback."""

    async def main() -> None:
        forwarder, _ = await forwarder_of(kernel, monkeypatch)
        data = bytearray(asked("results.lab.example"))
        data[2] |= 0x80
        assert await forwarder._answer(bytes(data)) is None
        assert forwarder.counted["form"] == 1

    asyncio.run(asyncio.wait_for(main(), 10))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4),
    st.integers(0, 80),
)
def test_whatever_comes_is_answered_or_not_and_leaves_no_traceback(
    kernel, monkeypatch, noise, flips, cut
):
    async def main() -> None:
        forwarder, outside = await forwarder_of(kernel, monkeypatch)
        outside.answers.set()
        data = bytearray(asked("a.operator.example"))
        for at, value in flips:
            data[at % len(data)] = value
        for one in (noise, bytes(data), bytes(data[:cut]), bytes(data) + noise):
            reply = await forwarder._answer(one)
            assert reply is None or reply.to_wire(max_size=65535)

    asyncio.run(asyncio.wait_for(main(), 10))


A, DS, DNSKEY = dns.rdatatype.A, dns.rdatatype.DS, dns.rdatatype.DNSKEY


TWO = replace(
    CONFIG,
    names={
        "pay.treasury.example": NamePolicy(("treasury",), (), traffic=(Traffic(6, 443, 443),)),
        "portal.lab.example": NamePolicy(("laboratory",), ()),
    },
)


CHAIN = ("CNAME front.cdn.example.", "front.cdn.example. 60 IN A 203.0.113.20")


class RecordingKernel:
    """Stands for the kernel's sets: what was learned, by service."""

    def __init__(self) -> None:
        self.learned: set[tuple[str, str, str]] = set()

    def is_open(self) -> bool:
        return False

    def add_addresses(self, services, addresses, origin) -> None:
        self.learned |= {(service, str(one), origin) for service in services for one in addresses}


class ScriptedOutside:
    """Stands for the resolvers: answers as it is told, and counts."""

    def __init__(self) -> None:
        self.says: dict[str, tuple[str, ...]] = {}
        self.asked: list[str] = []

    async def first_answer(self, question: DnsQuestion, config: ProxyConfig) -> dns.message.Message:
        self.asked.append(question.name)
        return answer(question.name, *self.says[question.name])


async def forwarder_with_targets(
    monkeypatch, config: ProxyConfig = TWO
) -> tuple[Forwarder, RecordingKernel, ScriptedOutside, list[frozenset[str]]]:
    kernel, outside, told = RecordingKernel(), ScriptedOutside(), []

    async def let_through(chains: AliasChains) -> None:
        told.append(chains.targets(0.0))

    forwarder = Forwarder(kernel, "word", let_through)
    forwarder._port = config.port + 1
    await forwarder.apply_config(config, "digest")
    monkeypatch.setattr(forwarder, "_first_answer", outside.first_answer)
    return forwarder, kernel, outside, told


def ask_for(forwarder: Forwarder, name: str, kind: str = "A"):
    return forwarder._answer(dns.message.make_query(name, kind, use_edns=0).to_wire())


def test_a_target_is_answered_from_what_is_held_for_the_same_services_and_nothing_leaves(
    monkeypatch,
):
    async def main() -> None:
        forwarder, kernel, outside, told = await forwarder_with_targets(monkeypatch)
        outside.says["pay.treasury.example"] = CHAIN
        assert (await ask_for(forwarder, "front.cdn.example")).rcode() == dns.rcode.REFUSED, (
            "nothing led there yet"
        )
        await ask_for(forwarder, "pay.treasury.example")
        assert told, "the engine knows before the answer is given"
        kernel.learned.clear()
        reply = await ask_for(forwarder, "FRONT.cdn.example")
        assert [str(one) for one in reply.answer] == ["FRONT.cdn.example. 60 IN A 203.0.113.20"]
        assert kernel.learned == {("treasury", "203.0.113.20", "pay.treasury.example")}
        assert outside.asked == ["pay.treasury.example"]
        for name, kind in (
            ("x.front.cdn.example", "A"),
            ("cdn.example", "A"),
            ("front.cdn.example", "TXT"),
        ):
            assert (await ask_for(forwarder, name, kind)).rcode() == dns.rcode.REFUSED
        assert forwarder.refusal("front.cdn.example", A) is None, "nor is it told as refused"
        # Another kept name leads to the same target: its address is kept for both.
        outside.says["portal.lab.example"] = CHAIN
        await ask_for(forwarder, "portal.lab.example")
        kernel.learned.clear()
        await ask_for(forwarder, "front.cdn.example", "AAAA")
        await ask_for(forwarder, "front.cdn.example")
        assert {service for service, _, _ in kernel.learned} == {"treasury", "laboratory"}
        assert set(outside.asked) == {"pay.treasury.example", "portal.lab.example"}

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_target_that_the_kept_name_left_is_answered_with_where_it_leads_now(monkeypatch):
    async def main() -> None:
        forwarder, kernel, outside, _ = await forwarder_with_targets(monkeypatch)
        outside.says["pay.treasury.example"] = (
            "CNAME front.cdn.example.",
            "front.cdn.example. 0 IN A 203.0.113.20",
        )
        await ask_for(forwarder, "pay.treasury.example")
        outside.says["pay.treasury.example"] = (
            "CNAME other.cdn.example.",
            "other.cdn.example. 9 IN A 203.0.113.21",
        )
        reply = await ask_for(forwarder, "front.cdn.example")
        assert [str(one) for one in reply.answer] == ["front.cdn.example. 9 IN A 203.0.113.21"]
        assert ("treasury", "203.0.113.21", "pay.treasury.example") in kernel.learned
        # Names that are given up take their targets along.
        await forwarder.apply_config(replace(TWO, names={}), "other")
        assert (await ask_for(forwarder, "front.cdn.example")).rcode() == dns.rcode.REFUSED

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_private_address_is_learned_for_who_may_have_it_alone(monkeypatch):
    async def main() -> None:
        names = {
            name: replace(one, private=name.startswith("pay")) for name, one in TWO.names.items()
        }
        forwarder, kernel, outside, _ = await forwarder_with_targets(
            monkeypatch, replace(TWO, names=names)
        )
        both = ("CNAME front.cdn.example.", "front.cdn.example. 60 IN A 10.200.0.7")
        outside.says = dict.fromkeys(("portal.lab.example", "pay.treasury.example"), both)
        await ask_for(forwarder, "portal.lab.example")
        await ask_for(forwarder, "pay.treasury.example")
        await ask_for(forwarder, "front.cdn.example")
        assert {service for service, _, _ in kernel.learned} == {"treasury"}

    asyncio.run(asyncio.wait_for(main(), 10))
