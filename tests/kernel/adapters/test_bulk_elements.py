"""Elements by raw netlink: what libnftables would have put there, whole or not at all, in steps
that no cut waits for.
"""

import random
import subprocess
from dataclasses import replace

import pytest

from ecluse.errors import KernelError
from ecluse.kernel import bulk_elements as bulk
from ecluse.ruleset.program import NamedSet, Program
from ecluse.ruleset.program_text import element_text, structure_text

pytestmark = pytest.mark.kernel

EVERY4, EVERY6 = (0, (1 << 32) - 1), (0, (1 << 128) - 1)
DOC6 = 0x20010DB8 << 96
COUNTERS = ("svc_lab", "svc_treasury")


def exact(count, first=0xC6120000):
    entries = {((first + n, first + n), (443, 443), (6, 6)): COUNTERS[n % 2] for n in range(count)}
    return NamedSet(
        "k1_exact4", ("ipv4_addr", "inet_service", "inet_proto"), False, "counter", entries
    )


def exact6(count):
    entries = {((DOC6 + n, DOC6 + n), (53, 53), (17, 17)): COUNTERS[n % 2] for n in range(count)}
    return NamedSet(
        "k1_exact6", ("ipv6_addr", "inet_service", "inet_proto"), False, "counter", entries
    )


def ranges4(count):
    types = ("ipv4_addr", "inet_service", "inet_proto", "ipv4_addr")
    entries = {
        (
            (0xC6120000 + 32 * n, 0xC6120000 + 32 * n + n % 32),
            (500, 510),
            (17, 17),
            EVERY4,
        ): COUNTERS[n % 2]
        for n in range(count)
    }
    return NamedSet("k1_ranges4", types, True, "counter", entries)


def plain6(count):
    types = ("ipv6_addr", "inet_proto", "ipv6_addr")
    entries = {
        ((DOC6 + 64 * n, DOC6 + 64 * n + 63), (50, 50), EVERY6): COUNTERS[n % 2]
        for n in range(count)
    }
    return NamedSet("k1_plain6", types, True, "counter", entries)


def every(count):
    return (exact(count), exact6(count), ranges4(count), plain6(count))


def empty_table(sets):
    return structure_text(
        Program(1, COUNTERS, tuple(replace(named, elements={}) for named in sets), ())
    )


def by_libnftables(sets):
    lines = []
    for named in sets:
        elements = ", ".join(element_text(named, key) for key in named.elements)
        lines.append(f"add element inet ecluse {named.name} {{ {elements} }}")
    return empty_table(sets) + "\n".join(lines)


def listed():
    done = subprocess.run(
        ["nft", "list", "table", "inet", "ecluse"], capture_output=True, text=True, check=True
    )
    return done.stdout


def only(named, keys):
    return NamedSet(
        named.name, named.types, named.interval, named.value, {k: named.elements[k] for k in keys}
    )


async def test_the_same_table_as_libnftables_makes(firewall):
    sets = every(40)
    await firewall.apply(by_libnftables(sets))
    wanted, told = await firewall.fingerprint(), listed()
    await firewall.apply("delete table inet ecluse\n" + empty_table(sets))
    assert await firewall.fingerprint() != wanted
    await firewall.change_elements((), sets)
    assert await firewall.fingerprint() == wanted
    flat = (
        "".join(text.split()).replace("elements={", "").replace("}", ",").split(",")
        for text in (told, listed())
    )
    assert len({tuple(sorted(words)) for words in flat}) == 1


async def test_what_goes_and_what_comes_is_one_transaction(firewall):
    sets = every(60)
    await firewall.apply(empty_table(sets))
    await firewall.change_elements((), sets)
    before = await firewall.ruleset_generation()
    halves = [random.Random(7).sample(sorted(named.elements), 30) for named in sets]
    gone = [only(named, keys) for named, keys in zip(sets, halves, strict=True)]
    await firewall.change_elements(gone, [exact(20, 0xC6130000)])
    assert await firewall.ruleset_generation() == before + 1
    left = [only(n, set(n.elements) - set(keys)) for n, keys in zip(sets, halves, strict=True)]
    after = await firewall.fingerprint()
    await firewall.apply("delete table inet ecluse\n" + by_libnftables([left[0], *left[1:]]))
    await firewall.change_elements((), [exact(20, 0xC6130000)])
    assert await firewall.fingerprint() == after


@pytest.mark.parametrize(
    "what", ["an element that is not there", "no such map", "no such counter", "an overlap"]
)
async def test_a_refusal_is_whole_and_in_words(firewall, what):
    sets = every(10)
    await firewall.apply(empty_table(sets))
    await firewall.change_elements((), sets)
    before = await firewall.fingerprint()
    gone, come = [only(sets[0], list(sets[0].elements)[:3])], [exact(5, 0xC6140000)]
    match what:
        case "an element that is not there":
            gone.append(exact(1, 0xC6150000))
        case "no such map":
            come.append(NamedSet("k9_exact4", sets[0].types, False, "counter", sets[0].elements))
        case "no such counter":
            key = ((1, 1), (1, 1), (6, 6))
            come.append(NamedSet("k1_exact4", sets[0].types, False, "counter", {key: "svc_nobody"}))
        case "an overlap":
            wide = ((0xC6120000, 0xC6120100), (505, 505), (17, 17), EVERY4)
            come.append(NamedSet("k1_ranges4", sets[2].types, True, "counter", {wide: "svc_lab"}))
    with pytest.raises(KernelError, match="the kernel refused elements") as caught:
        await firewall.change_elements(gone, come)
    assert "Traceback" not in caught.value.message
    assert await firewall.fingerprint() == before
    await firewall.change_elements(gone[:1], come[:1])  # the socket is in order after a refusal


def test_a_list_never_outgrows_its_attribute():
    for named in (exact(20_000), ranges4(20_000), plain6(20_000)):
        requests = bulk.element_requests((), (named,))
        assert len(requests) > 10
        assert all(len(body) < 65_000 for _, _, body in requests)


async def test_many_elements_in_one_transaction(firewall):
    sets = (exact(30_000), ranges4(3000))
    await firewall.apply(empty_table(sets))
    before = await firewall.ruleset_generation()
    await firewall.change_elements((), sets)
    assert await firewall.ruleset_generation() == before + 1
    assert listed().count(' : "svc_') == 33_000
