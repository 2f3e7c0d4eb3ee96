"""Wildcards over domains where anybody registers names are faults, by a list that is in the
package.
"""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import public_suffixes
from ecluse.config import load_policy, suffix_list
from ecluse.config.messages import InvalidValueError
from ecluse.config.suffix_list import PublicSuffixes

INPUTS = ["*.blob.core.windows.net", "*.co.uk", "*.cloudfront.net"]


ROOT = Path(__file__).parents[3]


def test_each_shared_wildcard_is_told_at_its_place_with_the_way_out(files, monkeypatch):
    monkeypatch.delattr(socket, "socket")  # nothing is asked of the network
    files.labs("[results.lab.example, 203.0.113.10]", str(INPUTS))
    told = files.faults()
    assert [each.partition(": ")[0].rpartition(":")[2] for each in told] == ["14", "41", "52"]
    for wildcard, each in zip(INPUTS, told, strict=True):
        domain = wildcard.removeprefix("*.")
        assert (
            f"anybody can register a name below '{domain}', and '{wildcard}' keeps them all" in each
        )
        assert f'"partner.{domain}", or "*.partner.{domain}"' in each
        assert re.search(r"\(public suffix list of 20\d\d-\d\d-\d\d\)", each)


def test_the_tenants_own_names_pass(files):
    own = [
        "partner.blob.core.windows.net",
        "*.partner.blob.core.windows.net",
        "*.partner.co.uk",
        "d1.cloudfront.net",
    ]
    files.labs("[results.lab.example, 203.0.113.10]", str(own))
    assert len(load_policy(files.path).services) == 1


SHARED = {
    "amazonaws.com": "too",  # the list has names below it, such as those of buckets
    "windows.net": "too",
    "compute.amazonaws.com": "anybody",
    "s3.amazonaws.com": "anybody",
    "com.ck": "anybody",  # *.ck
    "kawasaki.jp": "too",  # *.kawasaki.jp, city.kawasaki.jp excepted
    "any.kawasaki.jp": "anybody",
    "xn--55qx5d.cn": "anybody",  # the list has it in Chinese letters
}


@pytest.mark.parametrize("domain", SHARED)
def test_what_is_shared(domain):
    with pytest.raises(InvalidValueError, match=SHARED[domain]):
        PublicSuffixes().check(domain)


@pytest.mark.parametrize(
    "domain",
    [
        "operator.example",
        "city.kawasaki.jp",
        "www.ck",
        "partner.co.uk",
        "b.any.kawasaki.jp",
        "unknown.zz",
    ],
)
def test_what_is_somebodys_own(domain):
    PublicSuffixes().check(domain)


def test_the_list_is_read_only_where_there_is_a_wildcard(files, monkeypatch, tmp_path):
    monkeypatch.setattr(suffix_list, "LIST", tmp_path / "none")
    assert load_policy(files.path)
    files.labs("results.lab.example", '"*.lab.example"')
    with pytest.raises(FileNotFoundError):
        load_policy(files.path)


def test_the_list_says_its_date_and_its_licence_and_has_both_parts():
    text = suffix_list.LIST.read_text(encoding="ascii")
    assert "Mozilla Public\n# License, v. 2.0" in text
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", PublicSuffixes().date)
    rules = [line for line in text.splitlines() if not line.startswith("#")]
    assert {"co.uk", "cloudfront.net"} < set(rules)
    assert rules == sorted(set(rules))
    assert all(re.fullmatch(r"!?(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*", rule) for rule in rules)


def test_a_list_is_made_small(tmp_path):
    text = (
        "// VERSION: 2026-01-02_03-04-05_UTC\n// ===BEGIN===\nco.uk\n\n公司.cn  //"
        " more\n*.ck\n!www.ck\n"
    )
    made = public_suffixes.compact(text, "1999-01-01")
    assert made.endswith("# of: 2026-01-02\n!www.ck\n*.ck\nco.uk\nxn--55qx5d.cn\n")
    assert "# of: 1999-01-01\n" in public_suffixes.compact("a.b\n", "1999-01-01")


def test_it_costs_little_and_is_gone_afterwards():
    code = (
        "import tracemalloc, gc; from ecluse.config.suffix_list import PublicSuffixes;"
        " tracemalloc.start();"
        "s = PublicSuffixes(); s.check('operator.example'); held ="
        " tracemalloc.get_traced_memory()[0];"
        "del s; gc.collect(); print(held, tracemalloc.get_traced_memory()[0])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    held, left = map(int, run.stdout.split())
    assert held < 4 << 20
    assert left < 200_000
