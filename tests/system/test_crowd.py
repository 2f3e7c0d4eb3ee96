"""A crowd at the socket of the real daemon: a closing waits for nobody.

By packets, and by what was done before it.
"""

import contextlib
import os
import re
import resource
import socket
import threading
import time

import pytest

from tests.lab import places
from tests.lab.daemon import Daemon, Reply
from tests.lab.hospital import Hospital
from tests.system import disks

pytestmark = pytest.mark.system

ZONES = ("care", "administration", "guests", "gateway")


def waiting(daemon: Daemon) -> int:
    """Say how many connections of root's the daemon holds, the one that asks left out."""
    text = daemon.api("GET", "/metrics").body
    return int(float(re.search(r'ecluse_api_connections{pool="root"} (\S+)', text)[1])) - 1


def test_a_cut_behind_40_openings_is_the_next_and_none_of_them_undoes_it(hospital: Hospital):
    daemon = hospital.daemon(argv=("-m", "tests.system.slow_disk")).start()
    daemon.level("isolate")
    before = daemon.status()["generation"]
    disk = disks.SlowDisk(daemon)
    disk.slow(0.3)
    replies: list[Reply] = []

    def opening(number: int) -> None:
        body = {"level": ("cut", "reduced")[number % 2], "zones": [ZONES[number % 4]]}
        replies.append(daemon.api("POST", "/v1/level", body, timeout=60))

    crowd = [threading.Thread(target=opening, args=(number,), daemon=True) for number in range(40)]
    for one in crowd:
        one.start()
    end = time.monotonic() + 10
    while waiting(daemon) < 35:
        assert time.monotonic() < end, "positive control: they wait"
    closed = daemon.level("isolate")["generation"]["number"]
    disk.mend()
    for one in crowd:
        one.join(60)
    done = [one.body["generation"]["number"] for one in replies if one.status == 200]
    assert closed <= before + 6, "what had begun, and no more, came before it"
    assert not [number for number in done if number > closed], (
        "what was sent before it opens nothing after it"
    )
    assert {one.body["kind"] for one in replies if one.status != 200} <= {"stale", "state"}
    assert len(replies) == 40
    assert not hospital.care.tcp(places.LABORATORY.v4, timeout=0.3)
    daemon.stop(30)


def test_60_idle_connections_on_40_descriptors_hold_up_no_cut(hospital: Hospital, daemon: Daemon):
    used = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
    assert hospital.guest.tcp(places.WEB.v4), "positive control"
    with contextlib.ExitStack() as held:
        for _ in range(60):
            idle = held.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(str(daemon.socket))
        assert daemon.api("POST", "/v1/level", {"level": "cut"}, timeout=10).status == 200, (
            "idle ones end after 15 s"
        )
        assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
