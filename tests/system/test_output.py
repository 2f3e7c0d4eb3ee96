"""A daemon whose own words nobody takes: closed, full, or not read.

What it promises to patients does not depend on its log.
"""

import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import places
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital

pytestmark = pytest.mark.system

PIPE_CAPACITY = 65536  # pipe(7)


@pytest.fixture
def pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    reader, writer = os.pipe()
    with io.FileIO(reader) as out, io.FileIO(writer, "w") as into:
        yield out, into


@pytest.fixture
def silent(hospital: Hospital, pipe: tuple[io.FileIO, io.FileIO]) -> Iterator[Daemon]:
    """A daemon whose output is a pipe that this test holds the other end of."""
    daemon = hospital.daemon()
    daemon.output = pipe[1].fileno()
    daemon.start()
    yield daemon
    daemon.stop()


def it_keeps_its_promises(hospital: Hospital, daemon: Daemon) -> None:
    """Open, cut, and two deletions of the table; each step by packets."""
    assert daemon.level("open")["verified"]
    assert hospital.guest.tcp(places.WEB.v4), "positive control"
    assert daemon.level("cut")["verified"]
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    for _ in range(2):
        before = daemon.status()["last_tamper"]
        hospital.nft("delete table inet ecluse")
        end = time.monotonic() + 10
        while daemon.status()["last_tamper"] == before and time.monotonic() < end:
            time.sleep(0.02)
        assert daemon.status()["last_tamper"] != before, "it was put back, and told"
        assert hospital.care.tcp(places.LABORATORY.v4), "what is kept passes again"
        assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)


def about_the_log(daemon: Daemon) -> list[str]:
    return [text for text in daemon.status()["warnings"] if "log" in text and "lines" in text]


def soon_about_the_log(daemon: Daemon) -> list[str]:
    end = time.monotonic() + 10
    while not (found := about_the_log(daemon)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_a_reader_that_is_gone_takes_nothing_with_it(
    hospital: Hospital, silent: Daemon, pipe: tuple[io.FileIO, io.FileIO]
):
    pipe[0].close()
    it_keeps_its_promises(hospital, silent)
    assert soon_about_the_log(silent)


def test_a_reader_that_does_not_read_holds_up_nothing_and_learns_what_it_missed(
    hospital: Hospital, silent: Daemon, pipe: tuple[io.FileIO, io.FileIO]
):
    os.set_blocking(pipe[0].fileno(), False)
    level = ("cut", "isolate")
    for number in range(5000):
        silent.level(level[number % 2], "x" * 900)
        if about_the_log(silent):
            break
    assert about_the_log(silent), "positive control: more was said than the pipe and the queue hold"
    it_keeps_its_promises(hospital, silent)
    said = b""
    end = time.monotonic() + 15
    while b"could not be written" not in said and time.monotonic() < end:
        said += pipe[0].read(1 << 20) or b""
        time.sleep(0.01)
    lines = [json.loads(line) for line in said.splitlines()]
    assert len(said) > PIPE_CAPACITY
    assert any("could not be written" in line["event"] for line in lines)
    assert all("event" in line for line in lines), "no line is torn"


def test_a_full_device_lets_it_start(hospital: Hospital):
    daemon = hospital.daemon()
    with Path("/dev/full").open("wb") as full:
        daemon.output = full.fileno()
        daemon.start()
        try:
            it_keeps_its_promises(hospital, daemon)
            assert soon_about_the_log(daemon)
        finally:
            assert daemon.stop() == 0


def test_without_any_output_no_other_file_is_written_to(hospital: Hospital):
    """Descriptors 1 and 2 that are closed would be given to the next files that are opened."""
    daemon = hospital.daemon(argv=("-c", _CLOSED))
    daemon.start()
    try:
        it_keeps_its_promises(hospital, daemon)
        names = {os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in (0, 1, 2)}
        assert names == {"/dev/null"}
    finally:
        assert daemon.stop() == 0


_CLOSED = f"""
import os, sys
os.close(0); os.close(1); os.close(2)
os.execv({sys.executable!r}, [{sys.executable!r}, "-m", "ecluse.eclused", *sys.argv[1:]])
"""
