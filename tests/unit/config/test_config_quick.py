"""A large allowlist is read by short cuts: each gives what the long way gives, for whatever a
person may write.
"""

import gc
import re
from datetime import date
from ipaddress import ip_address, ip_network

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.config import (
    ConfigDirectory,
    address_parsers,
    lint_overlaps,
    parsers,
    read_directory,
    warnings_of,
    yaml_scalars,
)
from ecluse.config.messages import InvalidValueError
from ecluse.config.models import ServiceModel
from ecluse.config.yaml_tree import Document, Items, compose
from ecluse.gc_pause import without_gc
from ecluse.policy import interval, network_of
from ecluse.policy.network_index import NetworkIndex
from ecluse.policy.networks import text_of

DAY = date(2026, 11, 1)

ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda a: a.exploded),
    st.ip_addresses(v=4).map(lambda a: f"::{a}"),
    st.ip_addresses(v=4).map(lambda a: f"2001:db8::{a}"),
    st.sampled_from(["0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:203.0.113.9", "ff02::1", "255.255.255.255", "2001:DB8::1", "any", "a.example"]),
)  # fmt: skip
PREFIXES = st.builds(
    lambda address, length: str(ip_network(f"{address}/{min(length, ip_address(address).max_prefixlen)}", strict=False)),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str),
    st.integers(0, 128),
)  # fmt: skip
LENGTHS = st.sampled_from(["", "/", "/0", "/8", "/032", "/32", "/33", "/64", "/128", "/129", "/255.255.255.0", "/ 8", "/٣", ":443", "%lo", "//1"])  # fmt: skip
DAMAGED = st.builds(
    lambda text, at, cut, insert: (
        text[: at % (len(text) + 1)] + insert + text[at % (len(text) + 1) + cut :]
    ),
    st.builds(str.__add__, ADDRESSES, LENGTHS) | PREFIXES,
    st.integers(0, 50),
    st.integers(0, 2),
    st.sampled_from(
        ["", ":", "::", ".", "0", "9", "a", "g", "/", "-", "*", "%", "\0", "\udc80", "٣", " "]
    ),
)
WRITTEN = PREFIXES | DAMAGED | st.text(max_size=12)


def outcome(read, *arguments, **named):
    try:
        return read(*arguments, **named)
    except InvalidValueError as error:
        return error.wrong, error.expected


@given(WRITTEN)
@example("1:2:3:4:5:6:7::")
@example("1::2:3:4:5:6:7:8")
@example("203.0.113.010")
@example("203.0.113.8/29")
def test_a_network_is_read_as_ipaddress_reads_it(text):
    quick = network_of(text)
    try:
        slow = ip_network(text)
    except ValueError:
        assert quick is None
        return
    if quick is None:
        # only other ways to write a length: /032 and /255.255.255.0
        assert not re.fullmatch(r"0|[1-9][0-9]*", text.partition("/")[2] or "0") or "%" in text
    else:
        assert (quick, type(quick), str(quick), hash(quick)) == (
            slow,
            type(slow),
            str(slow),
            hash(slow),
        )
        assert interval(quick) == (int(slow.network_address), int(slow.broadcast_address))


@given(st.ip_addresses(v=4), st.integers(0, 32))
@example(ip_address("0.0.0.0"), 0)
@example(ip_address("255.255.255.255"), 32)
def test_a_network_is_written_as_ipaddress_writes_it(address, length):
    network = ip_network((address, length), strict=False)
    assert text_of(network) == str(network)


def test_reading_a_network_leaves_no_function_on_it():
    for text in ("203.0.113.9", "203.0.113.8/31", "2001:db8::1", "2001:db8::/127"):
        assert "hosts" not in vars(network_of(text))


@given(WRITTEN, st.booleans())
@example("::/8", True)
@example("::/8", False)
@example("240.0.0.0/5", True)
@example("0.0.0.0/7", True)
@example("::ffff:203.0.113.9", True)
def test_a_target_is_read_as_on_the_long_way(text, unbounded):
    quick = (
        outcome(parsers.target, text, unbounded=unbounded),
        outcome(address_parsers.prefix, text),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsers, "network_of", lambda _: None)
        patch.setattr(address_parsers, "network_of", lambda _: None)
        assert quick == (
            outcome(parsers.target, text, unbounded=unbounded),
            outcome(address_parsers.prefix, text),
        )


@given(PREFIXES, st.booleans())
@example("0.0.0.0/0", False)
@example("126.0.0.0/7", True)
@example("240.0.0.0/5", True)
@example("::/127", True)
@example("::/1", True)
def test_what_is_no_host_is_what_ipaddress_finds_inside(text, unbounded):
    network = ip_network(text)
    of_version = [(special, what) for special, what in ((ip_network(s), w) for s, w in address_parsers._NO_HOSTS) if special.version == network.version]  # fmt: skip
    within = next((what for special, what in of_version if network.subnet_of(special)), None)
    around = next((what for special, what in of_version if special.subnet_of(network)), None)
    said = outcome(address_parsers.unicast, network, unbounded=unbounded)
    if within or (around and not address_parsers.is_wide(network)):
        shown = address_parsers.written(network)
        assert said == (
            f"'{shown}' is or contains {within or around}",
            "addresses of single hosts (unicast)",
        )
    elif address_parsers.is_wide(network) and not unbounded:
        assert "the whole internet" in said[0]
    else:
        assert said is network


NUMBERS = st.from_regex(r"[-+.0-9_:eEtTzZx /]{0,24}", fullmatch=True)
WORDS = st.text(max_size=12) | NUMBERS | WRITTEN | st.floats().map(str) | st.datetimes().map(str)


@given(WORDS)
@example("1.2.3")
@example("2001:db8::1")
@example("1:20:30.5")
@example("2026-11-01 10:00:00.5")
@example("<<")
def test_a_bare_word_is_taken_for_what_the_resolver_takes_it_for(text):
    assert yaml_scalars.read_bare(text) == yaml_scalars._resolved(text)


@given(st.lists(PREFIXES.map(ip_network), max_size=8), PREFIXES.map(ip_network))
@example([ip_network(t) for t in ("198.18.0.0/15", "198.18.0.0/24", "0.0.0.0/0", "198.18.0.0/24")], ip_network("198.18.0.7"))  # fmt: skip
def test_networks_around_one_are_found_widest_first(networks, inner):
    index = NetworkIndex()
    for number, network in enumerate(networks):
        index.add(network, number)
    around = [
        (n, i) for i, n in enumerate(networks) if n.version == inner.version and inner.subnet_of(n)
    ]
    assert list(index.around(inner)) == sorted(around, key=lambda found: found[0].prefixlen)


TARGETS = ["198.18.0.1", "198.18.0.2", "198.18.0.3", "198.18.0.0/30", "198.18.0.0/24", "198.18.0.4/30", "2001:db8::1", "2001:db8::/64", "2001:db8::/32", "lab.example", "any"]  # fmt: skip
SERVICES = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["to", "from"]),
            st.lists(st.sampled_from(TARGETS), min_size=1, max_size=4, unique=True),
            st.sampled_from(["tcp/443", "tcp/1-500", "udp/53", "esp"]),
        ),
        min_size=1,
        max_size=2,
    ),
    min_size=1,
    max_size=4,
)


def every_end(services):
    """What `_crowded` leaves out nothing of."""
    return [
        lint_overlaps._End(0, 0, position, index, item, value)
        for position, placed in enumerate(services)
        for index, destination in enumerate(placed.model.destinations)
        for item, value in destination.each()
    ]


@given(SERVICES)
@example(
    [[("to", ["198.18.0.0/24"], "tcp/443")], [("to", ["198.18.0.1", "198.18.0.2"], "tcp/443")]]
)
@example([[("to", ["any"], "esp")], [("to", ["any", "2001:db8::1"], "esp")]])
def test_leaving_out_what_meets_nothing_changes_no_remark(tmp_path_factory, services):
    directory = tmp_path_factory.mktemp("conf")
    (directory / "allowlist.d").mkdir()
    zone = {"name": "care", "interfaces": ["lan0"], "subnets": ["10.10.0.0/16", "2001:db8:10::/48"]}
    (directory / "site.yaml").write_text(yaml.safe_dump({"site": "chu-example", "zones": [zone]}))
    written = [
        {
            "name": f"s{number}",
            "title": "S",
            "criticality": "vital",
            "zones": ["care"],
            "destinations": [
                {w: to, "ports": [ports], "unbounded": True} for w, to, ports in destinations
            ],
        }
        for number, destinations in enumerate(services)
    ]
    (directory / "allowlist.d/1.yaml").write_text(yaml.safe_dump({"services": written}))
    loaded = read_directory(directory)
    found = warnings_of(loaded, DAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lint_overlaps, "_crowded", every_end)
        assert warnings_of(loaded, DAY) == found


def test_every_item_of_a_list_has_its_own_place():
    text = "- a\n-   b\n- [c, {d: e}]\n-\n  - f\n"
    document, _ = compose("x", text.encode())

    def walk(node):
        if isinstance(node.content, Items):
            return [walk(item) for item in node.content]
        content = node.content
        return (content if isinstance(content, str) else "d", node.line, node.column)

    assert walk(document.root) == [
        ("a", 1, 3),
        ("b", 2, 5),
        [("c", 3, 4), ("d", 3, 7)],
        [("f", 5, 5)],
    ]
    assert document.root.plain() == ("a", "b", ("c", {"d": "e"}), ("f",))


def test_a_loaded_directory_keeps_no_files_content(files):
    def alive():
        gc.collect()
        return [o for o in gc.get_objects() if isinstance(o, Document | ServiceModel)]

    before = len(alive())
    source = ConfigDirectory(files.path, today=lambda: DAY)
    policy = source.load()
    assert policy
    assert len(alive()) > before
    source.warnings()
    assert len(alive()) == before


def test_a_review_falls_due_while_nothing_is_loaded_again(files):
    files.dns()
    days = iter([date(2027, 1, 31), date(2027, 2, 1), date(2027, 2, 1), date(2027, 1, 31)])
    source = ConfigDirectory(files.path, today=lambda: next(days))
    source.load()
    assert source.warnings() == ()
    assert [fault.line for fault in source.warnings()] == [11]
    assert [fault.line for fault in source.warnings()] == [11]
    assert source.warnings() == ()


def test_the_collector_is_on_again_whatever_happened():
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), without_gc():
        assert not gc.isenabled()
        with without_gc():
            pass
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()
