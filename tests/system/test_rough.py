"""Rough nights: dead DNS, storage that hangs or is full, clumsy colleagues, orders that come all at
once. By packets.
"""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from ecluse.ruleset.table_names import BASE_CHAINS
from tests.lab import places, policy
from tests.lab.daemon import Daemon, Reply
from tests.lab.hospital import Hospital
from tests.system import disks

pytestmark = pytest.mark.system

ZONES = ("care", "administration", "guests", "gateway")
CUT, OPEN = dict.fromkeys(ZONES, "cut"), dict.fromkeys(ZONES, "open")
SOON = 1.0
"""Seconds that a closing may take, answer not included; what hung before this held was 5 s and
more.
"""


def wait_until(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def leaks(hospital: Hospital) -> bool:
    # Three times: a busy machine may take longer for one, and what is refused is refused at once.
    return any(hospital.guest.tcp(places.WEB.v4, timeout=0.2) for _ in range(3))


def more_services(*destinations: str) -> dict:
    one = policy.service(
        "one-more", "vital", ["care"], [{"to": list(destinations), "ports": ["tcp/443"]}]
    )
    return policy.ALLOWLIST | {"40-more.yaml": [one]}


def later(work, *arguments, **named) -> Future:
    """Run something beside the test; the thread does not keep the test run alive."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments, **named))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def reload(daemon: Daemon) -> Future:
    return later(daemon.api, "POST", "/v1/reload", {"reason": "new service"}, timeout=40)


@pytest.fixture
def slow(hospital: Hospital) -> Iterator[tuple[Daemon, disks.SlowDisk]]:
    daemon = hospital.daemon(argv=("-m", "tests.system.slow_disk")).start()
    disk = disks.SlowDisk(daemon)
    yield daemon, disk
    disk.mend()
    daemon.stop(patience=30)


def audited(daemon: Daemon) -> list[dict]:
    return [json.loads(line) for line in (daemon.state / "audit.log").read_text().splitlines()]


# -- a closing waits for nobody


def test_a_cut_does_not_wait_for_the_names_of_a_reload(hospital: Hospital, daemon: Daemon):
    hospital.dns({"never.answers.example": {"silent": True}})
    daemon.write_config(None, more_services("never.answers.example"))
    running = reload(daemon)
    time.sleep(0.5)
    assert not running.done(), "positive control: the reload waits for DNS"
    began = time.monotonic()
    daemon.level("cut")
    assert time.monotonic() - began < SOON
    assert not leaks(hospital)
    reply: Reply = running.result(20)
    assert reply.status == 200, reply.body
    assert reply.body["generation"]["levels"] == CUT, "the reload keeps what was cut meanwhile"
    assert not leaks(hospital)


def test_a_table_that_is_deleted_during_a_reload_is_put_back_at_once(
    hospital: Hospital, daemon: Daemon
):
    hospital.dns({"never.answers.example": {"silent": True}})
    daemon.level("cut")
    daemon.write_config(None, more_services("never.answers.example"))
    running = reload(daemon)
    time.sleep(0.5)
    hospital.nft("delete table inet ecluse")
    assert wait_until(lambda: daemon.status()["last_tamper"], SOON)
    assert not running.done()
    assert not leaks(hospital)
    assert running.result(20).status == 200
    assert not leaks(hospital)


def test_a_cut_goes_past_a_reload_that_the_disk_holds_up(hospital: Hospital, slow):
    daemon, disk = slow
    daemon.write_config(None, more_services("198.51.100.77"))
    disk.hang()
    running = reload(daemon)
    time.sleep(0.3)
    assert not running.done()
    assert leaks(hospital), "positive control"
    cut = later(daemon.level, "cut")
    assert wait_until(lambda: not leaks(hospital), SOON)
    refused: Reply = running.result(20)
    assert refused.status == 503, refused.body
    assert wait_until(lambda: daemon.status()["levels"] == CUT, SOON), (
        "said while the record is still written"
    )
    disk.mend()
    assert cut.result(20)["generation"]["levels"] == CUT


def test_two_cuts_while_the_disk_hangs_and_each_is_recorded_once(hospital: Hospital, slow):
    daemon, disk = slow
    disk.hang()
    first = later(daemon.level, "cut", zones=["guests"])
    assert wait_until(lambda: not leaks(hospital), SOON)
    assert wait_until(lambda: daemon.status()["levels"] == OPEN | {"guests": "cut"}, SOON)
    assert not daemon.status()["recorded"]
    second = later(daemon.level, "cut")
    assert wait_until(lambda: not hospital.care.tcp(places.WEB.v4, timeout=0.2), SOON)
    assert first.result(20)["unrecorded"]
    assert second.result(20)["unrecorded"], "answered, and said what is not on disk"
    third = daemon.level("isolate")
    assert third["unrecorded"]
    disk.mend()
    assert wait_until(lambda: daemon.status()["recorded"])
    time.sleep(0.2)
    done = [
        (line["to_generation"], line["levels"])
        for line in audited(daemon)
        if line["event"] == "level"
    ]
    assert [number for number, _ in done] == [2, 3, 4]
    assert max(os.listdir(daemon.state / "generations")) == "00000004.json"


def opening_that_hangs(hospital: Hospital, daemon: Daemon, disk: disks.SlowDisk) -> Future:
    """Begin an opening, and stop the disk between its switch and its record."""
    daemon.level("cut")
    time.sleep(0.3)
    disk.slow(0.4)
    opening = later(daemon.level, "open")
    assert wait_until(lambda: leaks(hospital)), "positive control: it was applied"
    disk.hang()
    assert not opening.done()
    return opening


def test_a_cut_goes_past_an_opening_whose_record_hangs(hospital: Hospital, slow):
    daemon, disk = slow
    opening = opening_that_hangs(hospital, daemon, disk)
    assert any("being applied" in warning for warning in daemon.status()["warnings"])
    cut = later(daemon.level, "cut")
    assert wait_until(lambda: not leaks(hospital), SOON)
    with pytest.raises(RuntimeError, match="does not count"):
        opening.result(20)
    disk.mend()
    cut.result(20)
    assert daemon.status()["levels"] == CUT
    daemon.restart()
    assert daemon.status()["levels"] == CUT
    assert not leaks(hospital)


def test_stopped_in_the_middle_of_an_opening_it_is_taken_back(hospital: Hospital, slow):
    daemon, disk = slow
    opening = opening_that_hangs(hospital, daemon, disk)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    # The server gives running commands ten seconds first.
    assert wait_until(lambda: not leaks(hospital), 13)
    disk.mend()
    with contextlib.suppress(Exception):
        opening.result(20)
    daemon.wait()
    assert not leaks(hospital)
    daemon.start()
    assert daemon.status()["levels"] == CUT
    assert not leaks(hospital)


# -- a disk that is full or read-only


def test_a_full_disk_holds_up_no_closing_even_where_the_same_order_opens_elsewhere(
    hospital: Hospital,
):
    daemon = hospital.daemon()
    with disks.tmpfs(daemon) as state:
        daemon.start()
        daemon.level("isolate", zones=["administration"])
        time.sleep(0.3)
        disks.give_spare_back(state)
        disks.fill(state)
        assert leaks(hospital), "positive control"
        # `cut` opens administration a little (from isolate) and closes all else.
        reply = daemon.api("POST", "/v1/level", {"level": "cut", "reason": "attack"})
        assert reply.status >= 500
        assert "closed what was to close" in reply.body["detail"]
        assert not leaks(hospital)
        assert not hospital.admin.tcp(places.TREASURY.v4, timeout=0.3)
        assert daemon.status()["levels"] == CUT | {"administration": "isolate"}
        assert daemon.api("POST", "/v1/level", {"level": "open", "reason": "x"}).status >= 500
        assert not leaks(hospital)
        disks.empty(state)
        daemon.level("cut")
        assert hospital.admin.tcp(places.TREASURY.v4)
        daemon.level("open")
        time.sleep(0.3)
        done = [
            (line["event"], line["to_generation"])
            for line in audited(daemon)
            if line["result"] == "done"
        ]
        assert done == sorted(done, key=lambda one: one[1]), (
            "nothing old is written over what is newer"
        )
        daemon.restart()
        assert daemon.status()["levels"] == OPEN, "a reboot does not bring an old cut back either"


def test_a_file_system_that_went_read_only_stops_neither_start_nor_cut(hospital: Hospital):
    daemon = hospital.daemon()
    with disks.tmpfs(daemon):
        daemon.start()
        daemon.level("cut", zones=["guests"])
        time.sleep(0.3)
        daemon.kill9()
        disks.remount(daemon, "ro")
        daemon.start()
        assert daemon.status()["levels"] == OPEN | {"guests": "cut"}
        assert hospital.care.tcp(places.WEB.v4)
        change = daemon.level("cut")
        assert any("read-only" in words for words in change["unrecorded"])
        assert not hospital.care.tcp(places.WEB.v4, timeout=0.3)
        assert not daemon.status()["recorded"]


# -- names, foreign rules, other daemons, other zones


def test_a_name_that_is_answered_while_the_daemon_starts_is_kept(hospital: Hospital):
    named = policy.service(
        "by-name", "vital", ["care"], [{"to": ["results.lab.example"], "ports": ["tcp/443"]}]
    )
    daemon = hospital.daemon(allowlist={"10-name.yaml": [named]}).start()
    daemon.level("cut")
    assert wait_until(lambda: hospital.care.tcp(places.LABORATORY.v4, timeout=0.3))
    assert hospital.care.tcp(places.LABORATORY.v6)
    assert not hospital.guest.tcp(places.LABORATORY.v4, timeout=0.3)
    daemon.stop()


def test_a_colleagues_rules_before_a_reload_accuse_nobody(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    time.sleep(0.3)
    hospital.nft("table ip colleague { chain c {\n }\n }")
    daemon.write_config(None, more_services("198.51.100.77"))
    assert daemon.api("POST", "/v1/reload", {"reason": "x"}).status == 200
    time.sleep(0.3)
    status = daemon.status()
    assert status["in_step"]
    assert status["last_tamper"] is None
    assert not any(line["event"] == "tamper" for line in audited(daemon))


def test_records_gone_and_zones_renamed_while_cut_does_not_open(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    daemon.kill9()
    shutil.rmtree(daemon.state)
    daemon.state.mkdir()
    site = policy.site()
    site["zones"][2]["name"] = "visitors"
    daemon.write_config(site)
    daemon.start()
    assert set(daemon.status()["levels"].values()) == {"cut"}
    assert not leaks(hospital)
    assert hospital.care.tcp(places.LABORATORY.v4)


def test_a_second_daemon_with_a_state_of_its_own_is_refused(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    with pytest.raises(RuntimeError, match="guards this machine's network"):
        hospital.daemon().start()
    assert not leaks(hospital)
    assert daemon.status()["last_tamper"] is None


def test_nobody_can_keep_the_daemon_from_starting(hospital: Hospital):
    """The address by which daemons know each other can be taken by any user of the gateway."""
    squat = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0eclused'); "
        "s.listen(); time.sleep(30)"
    )
    with ThreadPoolExecutor(1) as pool:
        argv = [
            "timeout",
            "6",
            "setpriv",
            "--reuid",
            "65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            squat,
        ]
        squatting = pool.submit(hospital.run, "gw", argv)
        time.sleep(0.5)
        daemon = hospital.daemon().start()
        daemon.level("cut")
        assert not leaks(hospital)
        daemon.stop()
        assert not squatting.done(), "positive control: it was there all the time"


def test_a_reload_that_takes_a_level_away_keeps_what_is_vital(hospital: Hospital, daemon: Daemon):
    daemon.level("reduced")
    line = hospital.care.open(places.LABORATORY.v4)
    assert hospital.admin.tcp(places.MAIL_RELAY.v4, 25)
    daemon.write_config(policy.site(levels=[]))
    assert daemon.api("POST", "/v1/reload", {"reason": "two levels are enough"}).status == 200
    assert daemon.status()["levels"] == CUT
    assert line.talk(), "a kept flow loses nothing"
    assert not hospital.admin.tcp(places.MAIL_RELAY.v4, 25, timeout=0.3)
    line.close()


def test_zones_may_be_renamed_taken_away_and_brought_back_while_cut(
    hospital: Hospital, daemon: Daemon
):
    daemon.level("cut", zones=["guests"])
    before = daemon.status()["generation"]
    site = policy.site()
    site["zones"][2]["name"] = "visitors"
    daemon.write_config(site)
    assert daemon.api("POST", "/v1/reload", {"reason": "renamed"}).status == 200
    assert daemon.status()["levels"]["visitors"] == "cut"
    assert not leaks(hospital)
    site["zones"].pop()
    daemon.write_config(site)
    refused = daemon.api("POST", "/v1/reload", {"reason": "gone"})
    assert refused.status == 422, "nothing but this zone is shut: without it all would be open"
    assert "visitors" in refused.body["detail"]
    assert not leaks(hospital)
    daemon.level("cut", zones=["administration"])
    assert daemon.api("POST", "/v1/reload", {"reason": "gone"}).status == 200
    assert not leaks(hospital), "an interface of no zone is closed while anything is"
    assert (
        daemon.api("POST", "/v1/rollback", {"generation": before, "reason": "back"}).status == 200
    )
    assert daemon.status()["levels"] == OPEN | {"guests": "cut"}
    assert not leaks(hospital)
    assert hospital.care.tcp(places.WEB.v4)
    daemon.restart()
    assert daemon.status()["levels"] == OPEN | {"guests": "cut"}


def test_a_gate_that_is_closed_by_hand_stays_closed(hospital: Hospital, daemon: Daemon):
    """What the command line says to type when the daemon does not answer must hold when it runs
    after all.
    """
    daemon.level("cut", zones=["guests"])
    assert hospital.care.tcp(places.WEB.v4)
    done = hospital.run("gw", ["nft", "-f", str(daemon.state / "ruleset" / "cut.nft")])
    assert done.returncode == 0, done.stderr
    assert wait_until(lambda: daemon.status()["levels"] == CUT)
    time.sleep(0.3)
    assert not hospital.care.tcp(places.WEB.v4, timeout=0.3)
    assert hospital.care.tcp(places.LABORATORY.v4)
    status = daemon.status()
    assert status["in_step"]
    assert "by hand" in status["reason"]
    daemon.restart()
    assert daemon.status()["levels"] == CUT
    daemon.level("open")
    # The other way round nothing is followed: only a command opens.
    daemon.level("cut")
    hospital.run("gw", ["nft", "-f", str(daemon.state / "ruleset" / "open.nft")])
    assert wait_until(lambda: not leaks(hospital), SOON)
    assert daemon.status()["levels"] == CUT


def test_a_load_beside_leaves_the_policies_of_a_shut_gate(hospital: Hospital, daemon: Daemon):
    """They drop what no rule judges, should somebody empty our chains.

    A reload, and what it arms, must not soften them.
    """

    def policies() -> set[str]:
        listed = [
            hospital.run("gw", ["nft", "list", "chain", "inet", "ecluse", hook]).stdout
            for hook in BASE_CHAINS
        ]
        return {word for text in listed for word in ("accept", "drop") if f"policy {word};" in text}

    daemon.level("cut")
    more = policy.service("more", "vital", ["care"], [{"to": ["192.0.2.77"], "ports": ["tcp/443"]}])
    daemon.write_config(policy.site(), {"10-more.yaml": [more]})
    daemon.api("POST", "/v1/reload", {"reason": "test"})
    time.sleep(0.3)
    assert policies() == {"drop"}
    daemon.restart()
    time.sleep(0.5)
    assert policies() == {"drop"}
    daemon.level("open")
    assert policies() == {"accept"}
