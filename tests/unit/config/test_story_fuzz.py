"""Whatever the bytes are: a policy, or a ConfigError whose every fault has words and a place that
exists.
"""

import os
import re
import shutil
import tempfile
import unicodedata
from datetime import date
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ecluse.config import read_directory, warnings_of
from ecluse.config.settings import load_settings
from ecluse.config.yaml_tree import Items, compose
from ecluse.errors import ConfigError
from tests.effort import examples

EXAMPLE = Path(__file__).parents[3] / "config"


FILES = sorted(path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*.yaml"))


RELAXED = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", examples(100))),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# Pieces that mean something to YAML, to the model or to a terminal.
PIECES = st.sampled_from(
    [
        b"*",
        b"&a",
        b"*a",
        b"!!str",
        b"<<:",
        b": ",
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"'",
        b'"',
        b"|",
        b">",
        b"#",
        b"\n",
        b"\t",
        b"\0",
        b"\x1b[2J",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xae",
        b"---\n",
        b"...\n",
        b"%YAML 1.1\n",
        b"0",
        b"no",
        b"~",
        b"1e9",
        b"9" * 400,
        b"22:22",
        b"/",
        b"0.0.0.0/0",
        b"::/0",
        b"any",
        b"unbounded: true",
        b"tcp/0",
        b"tcp/1-65535",
        b"esp",
        b"2027-01-31",
        b"1-1-1",
        b"\xc3\x9f",
        b"xn--",
        b".",
        b"\xe3\x80\x82",
        b"a" * 300,
        b"fe80::1%lo",
        b"gateway",
        b"open",
        b"? ",
        b"[" * 30,
        b"- " * 30,
        b"\r",
        b"\xc2\x85",
        b"\\U0001f600",
        b"::ffff:1.2.3.4",
        b"10.0.0.0/8",
    ]
)


EDITS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 40), PIECES | st.binary(max_size=8)),
    min_size=1,
    max_size=4,
)


def is_fit(text):
    """Say whether a terminal shows it as it is.

    Any space may be there: French has two kinds of its own before colons.
    """
    return all(c.isprintable() or unicodedata.category(c) == "Zs" for c in text)


def judge(directory):
    """Load; give the faults, having seen that each one is fit for a person."""
    try:
        loaded = read_directory(directory)
    except ConfigError as error:
        assert error.faults
        for fault in error.faults:
            assert fault.wrong
            assert is_fit(str(fault)), repr(str(fault))
            if fault.line:
                text = Path(fault.file).read_bytes()
                assert fault.line <= text.count(b"\n") + 2
                assert fault.column >= 1
        return error.faults
    for fault in warnings_of(loaded, date(2026, 11, 1)):
        assert fault.wrong
    return ()


@RELAXED
@given(st.sampled_from(FILES), EDITS)
def test_a_damaged_example(file, edits):
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "conf"
        shutil.copytree(EXAMPLE, copy)
        data = (copy / file).read_bytes()
        for where, remove, insert in edits:
            at = where % (len(data) + 1)
            data = data[:at] + insert + data[at + remove :]
        (copy / file).write_bytes(data)
        judge(copy)


@RELAXED
@given(
    st.sampled_from(FILES),
    st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")),
)
@example(FILES[0], b"- " * 100_000)
@example(FILES[0], b"[" * 100_000)
@example(FILES[0], b"{a: " * 5_000)
@example(FILES[0], b"? " * 5_000)
@example(FILES[0], b"a: " + b"9" * 5_000)
@example(FILES[0], b"a: &a [*a, *a]")
@example(FILES[0], b"\xe1\x9a\x80")
@example(FILES[-1], b"services: [{to: [" + b"1," * 1_000 + b"]}]")
def test_any_bytes(file, data):
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "conf"
        shutil.copytree(EXAMPLE, copy)
        (copy / file).write_bytes(data)
        # An allowlist of comments alone keeps nothing, and that is a warning.
        assert judge(copy) or re.fullmatch(rb"\s*(#[^\n]*\s*)*", data)


KEYS = [
    "services",
    "name",
    "title",
    "owner",
    "criticality",
    "zones",
    "hosts",
    "destinations",
    "to",
    "from",
    "ports",
    "unbounded",
    "private",
    "review",
    "note",
    "x",
]


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=12),
    st.floats(allow_nan=False),
    st.dates(),
    st.sampled_from(
        [
            "any",
            "tcp/443",
            "203.0.113.1",
            "a.example",
            "vital",
            "care",
            "lab",
            "10.10.4.7",
            "::/0",
            "2001:db8::/32",
        ]
    ),
)


TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=25,
)


@RELAXED
@given(TREES)
def test_any_well_formed_values(tree):
    """What pydantic may be given: every kind of value in every place."""
    import yaml

    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "conf"
        shutil.copytree(EXAMPLE, copy)
        text = yaml.safe_dump(
            {"services": tree if isinstance(tree, list) else [tree]}, allow_unicode=True
        )
        (copy / "allowlist.d/50-fuzz.yaml").write_text(text, encoding="utf-8")
        judge(copy)
        text = yaml.safe_dump(
            tree if isinstance(tree, dict) else {"zones": tree, "levels": tree, "lifeline": tree}
        )
        (copy / "site.yaml").write_text(text, encoding="utf-8")
        assert judge(copy)


@RELAXED
@given(st.binary(max_size=300))
def test_marks_point_into_the_file(data):
    document, faults = compose("x", data)
    assert document is not None or faults
    lines = data.decode("utf-8", "replace").split("\n")

    def walk(node):
        assert 1 <= node.line <= len(lines) + 1
        children = node.content
        for child in children if isinstance(children, Items) else []:
            walk(child)
        for entry in children.values() if isinstance(children, dict) else []:
            assert (entry.line, entry.column) <= (entry.node.line, entry.node.column)
            walk(entry.node)

    if document is not None:
        walk(document.root)


SETTING = (EXAMPLE / "ecluse.toml").read_bytes()


@RELAXED
@given(EDITS | st.binary(max_size=60))
@example(b"a=" + b"[" * 50_000)
@example(b"a=1979-13-01")
@example(b"dns_timeout = nan")
@example(b"keep_generations = 99999999999999999999999")
def test_damaged_settings(change):
    data = change if isinstance(change, bytes) else SETTING
    for where, remove, insert in change if isinstance(change, list) else []:
        at = where % (len(data) + 1)
        data = data[:at] + insert + data[at + remove :]
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "ecluse.toml").write_bytes(data)
        try:
            load_settings(["--config-dir", name], {})
        except ConfigError as error:
            assert error.faults
            assert all(fault.wrong and str(fault).isprintable() for fault in error.faults)


@RELAXED
@given(
    st.lists(
        st.text(max_size=12)
        | st.sampled_from(
            ["--socket", "--socket=", "--config-dir=/nowhere", "--", "-", "--x=\x1b"]
        ),
        max_size=5,
    ),
    st.dictionaries(
        st.sampled_from(
            ["ECLUSE_SOCKET", "ECLUSE_DNS_TIMEOUT", "ECLUSE_", "ECLUSE_x", "ECLUSE_KEEP_IN_KERNEL"]
        ),
        st.text(max_size=8),
    ),
)
def test_any_flags_and_variables(argv, environ):
    argv = [word for word in argv if word not in {"-h", "--help", "--version"}]
    try:
        load_settings(argv, {"ECLUSE_CONFIG_DIR": "/nowhere", **environ})
    except ConfigError as error:
        assert all(fault.wrong for fault in error.faults)
        assert all(is_fit(str(fault)) for fault in error.faults), error.faults
