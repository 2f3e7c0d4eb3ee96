"""The audit chain: every change of a line is found, at the line where it is."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.state import audit_log, hash_chain
from ecluse.state.audit_log import HashChainAudit, verify
from tests.effort import examples
from tests.unit.state import samples


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.log"


def write(path, count=6, **changes):
    log = HashChainAudit(path, lambda: samples.NOW)
    for number in range(1, count + 1):
        log.append(samples.audit_record(to_generation=number, levels=samples.CUT_LEVELS, **changes))
    log.close()


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


def put(path, lines):
    path.write_bytes(b"".join(lines))


def rewritten(line, **changes):
    """What somebody does who knows how the hash is made."""
    record = {**json.loads(line), **changes}
    del record["hash"]
    body = json.dumps(record, separators=(",", ":")).encode()
    return body[:-1] + f',"hash":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def rewritten_from(lines, index):
    """Rewrite a line and every one after it, hashes and all."""
    result = lines[:index]
    previous = json.loads(result[-1])["hash"] if result else hash_chain.GENESIS
    for line in lines[index:]:
        result.append(rewritten(line, prev=previous, reason="nothing to see"))
        previous = json.loads(result[-1])["hash"]
    return result


TAMPERINGS = {
    "a letter": (
        lambda ls: [*ls[:2], ls[2].replace(b"attaque", b"attacke"), *ls[3:]],
        3,
        "altered",
    ),
    "the hash": (lambda ls: [*ls[:2], ls[2][:-4] + b'0"}\n', *ls[3:]], 3, "altered"),
    "the hash's length": (lambda ls: [*ls[:2], ls[2][:-4] + b'"}\n', *ls[3:]], 3, "altered"),
    "a hash of half a character": (
        lambda ls: [*ls[:2], ls[2][:-67] + b'"\\ud800"}\n', *ls[3:]],
        3,
        "altered",
    ),
    "a space": (lambda ls: [*ls[:2], ls[2].replace(b",", b", ", 1), *ls[3:]], 3, "altered"),
    "a line with its hash": (
        lambda ls: [*ls[:2], rewritten(ls[2], reason="x"), *ls[3:]],
        4,
        "does not follow",
    ),
    "a removed line": (lambda ls: [*ls[:2], *ls[3:]], 3, "removed: 3"),
    "two removed lines": (lambda ls: [*ls[:2], *ls[4:]], 3, "removed: 3 to 4"),
    "the first line removed": (lambda ls: ls[1:], 1, "removed: 1"),
    "a renumbered removal": (
        lambda ls: [*ls[:2], *(rewritten(line, seq=n) for n, line in enumerate(ls[3:], 3))],
        3,
        "does not follow",
    ),
    "an inserted line": (
        lambda ls: [*ls[:2], rewritten(ls[1], reason="x"), *ls[2:]],
        3,
        "repeated",
    ),
    "an inserted text": (lambda ls: [*ls[:2], b"hello\n", *ls[2:]], 3, "not a record"),
    "an empty line": (lambda ls: [*ls[:2], b"\n", *ls[2:]], 3, "not a record"),
    "a doubled line": (lambda ls: [*ls[:3], ls[2], *ls[3:]], 4, "repeated"),
    "two lines swapped": (lambda ls: [ls[0], ls[2], ls[1], *ls[3:]], 2, "out of order"),
    "the last line removed": (lambda ls: ls[:-1], 0, "missing at the end: record 6"),
    "all removed": (lambda ls: [], 0, "missing at the end: record 6"),
    "the last line rewritten": (lambda ls: rewritten_from(ls, 5), 0, "record 6 is not the one"),
    "all rewritten": (lambda ls: rewritten_from(ls, 0), 0, "record 6 is not the one"),
    "torn": (lambda ls: [*ls[:-1], ls[-1][:50]], 6, "torn"),
    "a huge line": (lambda ls: [*ls[:2], b"x" * 20_000 + b"\n", *ls[2:]], 3, "not a record"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_where_it_is(path, name):
    write(path)
    assert verify(path) == []
    change, line, words = TAMPERINGS[name]
    put(path, change(lines_of(path)))
    problems = verify(path)
    assert problems and problems[0].line == line, problems
    assert words in problems[0].what


def test_a_log_continued_after_tampering_still_shows_it(path):
    write(path)
    put(path, lines_of(path)[:-2])
    write(path, 2)
    assert [str(problem) for problem in verify(path)] == [
        "line 5: record 7 follows record 4: removed: 5 to 6, or out of order"
    ]


@given(data=st.data())
@settings(max_examples=examples(150))
def test_any_changed_byte_is_found(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("audit") / "audit.log"
    write(path, 4)
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    assert verify(path)


def test_head_file_damage_and_loss_are_told(path):
    write(path)
    head = hash_chain.head_path(path)
    whole = head.read_bytes()
    head.write_bytes(whole.replace(b"6 ", b"x "))
    assert ["audit.head is not what was written" in str(p) for p in verify(path)] == [True]
    head.unlink()
    assert ["audit.head is missing" in str(p) for p in verify(path)] == [True]
    head.write_bytes(b"")
    write(path, 1)
    assert verify(path) == []
    assert head.with_name("audit.head.damaged-1").exists()


def test_a_head_that_lags_after_a_power_cut_is_no_alarm(path):
    write(path, 3)
    early = hash_chain.head_path(path).read_bytes()
    write(path, 3)
    hash_chain.head_path(path).write_bytes(early)
    assert verify(path) == []


def test_long_and_wild_texts_make_one_bounded_ascii_line(path):
    wild = "\x1b[2J\n\r\0é\u202e\ud800" * 5000
    write(path, 1, what=wild, authorised_by=wild, ruleset=wild, result=wild)
    write(path, 1)
    (first, _) = lines_of(path)
    assert len(first) <= hash_chain.MAX_LINE_BYTES
    assert all(0x20 <= byte < 0x7F for byte in first[:-1])
    assert next(audit_log.read_audit(path))["what"].endswith("more characters)")
    assert verify(path) == []


def test_levels_of_hundreds_of_zones_never_break_the_bound(path):
    log = HashChainAudit(path, lambda: samples.NOW)
    log.append(samples.audit_record(levels={f"zone-{n:04d}": "isolate" for n in range(2000)}))
    assert len(path.read_bytes()) <= hash_chain.MAX_LINE_BYTES
    assert verify(path) == []
