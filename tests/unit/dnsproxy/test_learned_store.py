"""What the DNS gate learned, over a reboot: how long each address is still kept, whatever the
machine's date says.
"""

import json
import re
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ecluse.dnsproxy import learned_store
from ecluse.dnsproxy.learned_store import JOURNAL, SNAPSHOT, Learned, LearnedStore, clock

ADDRESS = ip_address("203.0.113.9")
DAY = 86400.0


def store_of(path: Path, boot: str = "this") -> LearnedStore:
    return LearnedStore(path, path, boot)


def retitle(file: Path, **told) -> None:
    """Alter what the file says of the moment when it was written."""
    title, rest = file.read_text().split("\n", 1)
    words, _, date = title.partition("{")
    file.write_text(f"{words}{json.dumps(json.loads('{' + date) | told)}\n{rest}")


def back(tmp_path, boot: str, **told) -> float | None:
    """Save an address with half an hour left, alter what is on disk, read it in this run of the
    machine; give what is left.
    """
    store_of(tmp_path).save_snapshot(Learned({"dns_all_4": {ADDRESS: clock() + 1800}}))
    retitle(tmp_path / SNAPSHOT, **told)
    found, written = store_of(tmp_path, boot).read_snapshot()
    assert written == "this"
    until = found.until.get("dns_all_4", {}).get(ADDRESS)
    return None if until is None else round(until - clock(), -1)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, 1800), (600, 1200), (1810, 0), (DAY, 0), (-600, 1800), (-400 * DAY, 1800)],
)
def test_after_a_reboot_the_date_tells_what_is_over_and_prolongs_nothing(
    tmp_path, seconds, expected
):
    assert back(tmp_path, "another", date=time.time() - seconds) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0, 1800), (600, 1200), (1810, None)])
def test_in_one_run_of_the_machine_the_date_tells_nothing(tmp_path, seconds, expected):
    told = {"clock": clock() - seconds, "date": time.time() - 400 * DAY}
    assert back(tmp_path, "this", **told) == expected


def test_what_claims_more_than_its_hour_has_an_hour(tmp_path):
    store_of(tmp_path).save_snapshot(Learned({"dns_all_4": {ADDRESS: clock() + 10**6}}))
    found, _ = store_of(tmp_path, "another").read_snapshot()
    assert 3590 < found.until["dns_all_4"][ADDRESS] - clock() <= 3600


@pytest.mark.parametrize(
    "text", ["", "[]", "# another file\n", learned_store._TITLE + "{}\n", "\xff"]
)
def test_a_damaged_file_is_none(tmp_path, text):
    (tmp_path / SNAPSHOT).write_text(text, encoding="latin-1")
    assert store_of(tmp_path).read_snapshot() == (Learned(), "")


def test_the_boot_unit_takes_each_line_and_no_other(tmp_path):
    """By its own words and tools: what it would load of a file that somebody wrote into
    (systemd/boot.sh).
    """
    script = (Path(__file__).parents[3] / "systemd" / "boot.sh").read_text()
    form = re.search(r"form='(.*)'", script)[1]
    file = tmp_path / SNAPSHOT
    six = ip_address("2001:db8:a::9")
    until = {
        "dns_svc_secure_mail_4": {ADDRESS: clock() + 1800},
        "dns_all_6": {six: clock() + 60},
    }
    origins = {
        "dns_svc_secure_mail_4": {ADDRESS: frozenset({"*.operator.example", "mail.example"})}
    }
    store_of(tmp_path).save_snapshot(Learned(until, origins))
    lines = file.read_text().splitlines()[1:]
    good = lines[0]
    bad = [
        good.replace("inet ecluse", "inet other"),
        good.replace("dns_svc_secure_mail_4", "refused_4"),
        good.replace("add element", "delete element"),
        f"{good}; flush ruleset",
        f"{good} ; flush ruleset",
        good.replace("# ", "# a; "),
        f" {good}",
        good.replace("203.0.113.9", "203.0.113.0/24"),
        'include "/etc/passwd"',
        "flush ruleset",
    ]
    file.write_text("\n".join([*file.read_text().splitlines(), *bad, ""]))
    taken = subprocess.run(
        ["grep", "-E", form, str(file)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert (taken, len(lines)) == (lines, 2)
    found, _ = store_of(tmp_path).read_snapshot()
    assert {name: set(every) for name, every in found.until.items()} == {
        n: set(every) for n, every in until.items()
    }
    assert found.origins == origins


UNTIL = {
    "dns_all_4": {ADDRESS: clock() + 1800},
    "dns_all_6": {ip_address("2001:db8::9"): clock() + 900},
}
BAD_ROWS = [
    b"dns_all_4 203.0.113.999 1800 a.example",
    b"dns_all_4 203.0.113.8 " + b"9" * 400 + b" a.example",
    "dns_all_4 203.0.113.8 \u0661\u0662 a.example".encode(),
    b"dns_all_4 203.0.113.8 1_0 a.example",
    b"dns_all_4 203.0.113.8 nan a.example",
    b"\xff\xfe",
    b"add element inet ecluse dns_all_4 { 1.2.3.4.5 expires 3s }",
    "add element inet ecluse dns_all_4 { 203.0.113.8 expires \u0663s }".encode(),
    b"add element inet ecluse dns_all_4 { dead.beef expires 3s } # x",
]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60) | st.sampled_from(BAD_ROWS), max_size=5), st.integers(1, 3))
@example(BAD_ROWS, 1)
@example(BAD_ROWS, 2)
def test_one_bad_row_hides_no_other(tmp_path, rows, at):
    """RED before: one address of five parts, a byte that is no UTF-8 or a huge number took
    everything, or the process.
    """
    rows = [row.replace(b"\n", b" ") for row in rows]
    store = store_of(tmp_path)
    store.rewrite(Learned(UNTIL))
    store.save_snapshot(Learned(UNTIL))
    for name in (JOURNAL, SNAPSHOT):
        lines = (tmp_path / name).read_bytes().split(b"\n")
        (tmp_path / name).write_bytes(b"\n".join([*lines[:at], *rows, *lines[at:]]))
    journal, whole = store.read_journal()
    store.close()
    snapshot, boot = store.read_snapshot()
    assert boot == "this"
    for found in (journal, snapshot):
        for name, every in UNTIL.items():
            assert every.keys() <= found.until[name].keys()
    assert whole is (not rows)
    assert all(
        until < clock() + 3601 for every in snapshot.until.values() for until in every.values()
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"boot": "x", "clock": NaN, "date": NaN}',
        '{"boot": "x", "clock": 1, "date": 1' + "0" * 400 + "}",
        "[" * 100_000,
    ],
)
def test_a_title_that_tells_no_time_is_none(tmp_path, text):
    (tmp_path / SNAPSHOT).write_text(learned_store._TITLE + text + "\n")
    for boot in ("x", "y"):
        assert store_of(tmp_path, boot).read_snapshot() == (Learned(), "")


def test_both_files_together_and_the_journal_counts_where_both_have_an_address(tmp_path):
    """A journal that is not whole may lack addresses that the kernel has: the snapshot's are taken
    as well, and unknown ones may be ours.
    """
    other, now = ip_address("203.0.113.10"), clock()
    store = store_of(tmp_path)
    store.save_snapshot(Learned({"dns_all_4": {ADDRESS: now + 60, other: now + 60}}))
    store.rewrite(Learned({"dns_all_4": {ADDRESS: now + 10**6}}))
    store.close()
    found, may_have_more = store_of(tmp_path).load()
    assert (set(found.until["dns_all_4"]), may_have_more) == ({ADDRESS}, False), "it is whole"
    assert found.until["dns_all_4"][ADDRESS] <= clock() + 3600
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write("no row\n")
    found, may_have_more = store_of(tmp_path).load()
    assert (set(found.until["dns_all_4"]), may_have_more) == ({ADDRESS, other}, True)
    assert found.until["dns_all_4"][ADDRESS] > now + 3000
    assert store_of(tmp_path, "another").load()[1] is False, "the first process since boot"


def test_names_that_led_to_an_address_are_in_both_files(tmp_path):
    learned = Learned(
        {"dns_svc_mail_4": {ADDRESS: clock() + 60}},
        {"dns_svc_mail_4": {ADDRESS: frozenset({"b.example", "*.a.example"})}},
    )
    store = store_of(tmp_path)
    store.rewrite(learned)
    store.save_snapshot(learned)
    store.close()
    assert store.read_journal()[0].origins == store.read_snapshot()[0].origins == learned.origins
