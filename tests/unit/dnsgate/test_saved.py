"""What the DNS gate learned, over a reboot: how long each address is still kept, whatever the machine's date says."""

import json
import time
from ipaddress import ip_address

import pytest

from ecluse.dnsgate import saved

ADDRESS = ip_address("203.0.113.9")
DAY = 86400.0


def back(tmp_path, boot: str, **told) -> float | None:
    """Save an address with half an hour left, alter what is on disk, read it in this run of the machine; give what is left."""
    file = tmp_path / saved.FILE
    saved.write(file, {"dns_all_4": {ADDRESS: saved.clock() + 1800}}, "this")
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    held, written = saved.read(file, boot)
    assert written == "this"
    until = held.get("dns_all_4", {}).get(ADDRESS)
    return None if until is None else round(until - saved.clock(), -1)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, 1800), (600, 1200), (1810, None), (DAY, None), (-600, 1800), (-400 * DAY, 1800)],
)
def test_after_a_reboot_the_date_tells_what_is_over_and_prolongs_nothing(tmp_path, seconds, expected):
    assert back(tmp_path, "another", date=time.time() - seconds) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0, 1800), (600, 1200), (1810, None)])
def test_in_one_run_of_the_machine_the_date_tells_nothing(tmp_path, seconds, expected):
    told = {"clock": saved.clock() - seconds, "date": time.time() - 400 * DAY}
    assert back(tmp_path, "this", **told) == expected


def test_what_claims_more_than_its_hour_has_an_hour(tmp_path):
    assert back(tmp_path, "another", left=[["dns_all_4", str(ADDRESS), 10**9]]) == 3600


@pytest.mark.parametrize(
    "text", ["", "[]", "[[1]]", "{}", '{"boot": "this", "clock": 0, "date": 0, "left": [[1]]}']
)
def test_a_damaged_file_is_none(tmp_path, text):
    file = tmp_path / saved.FILE
    file.write_text(text)
    assert saved.read(file, "this") == ({}, "")
