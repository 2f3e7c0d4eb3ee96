"""kill -9 between any two steps of a change, then start: the old state or the new one, never a mix.

While cut, always cut.
"""

import http.client
import json
import time

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital

pytestmark = pytest.mark.system

ZONES = ("care", "administration", "guests", "gateway")


def all_at(level: str) -> dict[str, str]:
    return dict.fromkeys(ZONES, level)


def dying(hospital: Hospital, step: str, number: int = 1) -> Daemon:
    return hospital.daemon(argv=("-m", "tests.system.dying", step, str(number)))


def command(daemon: Daemon, path: str, body: dict) -> bool:
    """Give a command to a daemon that is to die of it; say whether it answered."""
    (daemon.directory / "armed").touch()
    try:
        reply = daemon.api("POST", path, body)
    except (OSError, http.client.HTTPException):
        reply = None
    daemon.wait()
    (daemon.directory / "armed").unlink()
    return reply is not None and reply.status == 200


def living(daemon: Daemon) -> Daemon:
    daemon.argv = ("-m", "ecluse.daemon")
    return daemon.start()


def passes(hospital: Hospital, zone: str) -> bool:
    host = {
        "care": hospital.care,
        "administration": hospital.admin,
        "guests": hospital.guest,
        "gateway": hospital.gateway,
    }[zone]
    return bool(host.tcp(places.WEB.v4, timeout=0.3))


def check_whole(hospital: Hospital, daemon: Daemon, *allowed: dict[str, str]) -> dict[str, str]:
    """The state is an allowed one, the same in status, kernel and files, and packets agree."""
    levels = daemon.status()["levels"]
    assert levels in allowed
    assert daemon.status()["in_step"]
    for zone in ZONES:
        assert passes(hospital, zone) == (levels[zone] == "open"), (zone, levels)
    assert hospital.care.tcp(places.LABORATORY.v4)
    boot = json.loads(
        next(
            x for x in (daemon.state / "boot.nft").read_text().splitlines() if "levels:" in x
        ).partition("levels:")[2]
    )
    assert boot == levels
    return levels


CLOSING = ["applied", "verified", "boot", "audit"]
OPENING = ["intent", "applied", "verified", "boot", "audit"]
AFTER = ["generation", "cleared"]
"""Steps that no answer waits for: whether it came before the end is chance, and what it said stands
in either case.
"""


def check_filed(daemon: Daemon, number: int, reason: str) -> None:
    """The record of a change is there, whole, whoever had the time to write it down where."""
    body = daemon.api("GET", f"/v1/generations/{number}").body
    assert body["generation"]["reason"] == reason, body
    assert reason in (daemon.state / f"generations/{number:08d}.json").read_text()


@pytest.mark.parametrize("step", CLOSING)
def test_killed_while_closing(hospital: Hospital, step: str):
    daemon = dying(hospital, step).start()
    answered = command(daemon, "/v1/level", {"level": "cut", "reason": "attack"})
    assert not answered
    assert not passes(hospital, "guests"), "it was in the kernel before the first record"
    living(daemon)
    assert check_whole(hospital, daemon, all_at("cut")) == all_at("cut")
    if step in {"boot", "audit"}:
        check_filed(daemon, 2, "attack")


def test_killed_after_a_closing_was_answered(hospital: Hospital):
    daemon = dying(hospital, "generation").start()
    command(daemon, "/v1/level", {"level": "cut", "reason": "attack"})
    assert not passes(hospital, "guests")
    living(daemon)
    check_whole(hospital, daemon, all_at("cut"))
    check_filed(daemon, 2, "attack")


@pytest.mark.parametrize("step", AFTER)
def test_killed_after_an_opening_was_answered(hospital: Hospital, step: str):
    daemon = dying(hospital, step, 2 if step == "generation" else 1)
    daemon.start()
    (daemon.directory / "armed").touch()
    daemon.level("cut")
    command(daemon, "/v1/level", {"level": "open", "reason": "all clear"})
    living(daemon)
    check_whole(hospital, daemon, all_at("open"))
    check_filed(daemon, 3, "all clear")


@pytest.mark.parametrize("step", OPENING)
def test_killed_while_opening(hospital: Hospital, step: str):
    daemon = dying(hospital, step).start()
    daemon.level("cut")
    assert not command(daemon, "/v1/level", {"level": "open", "reason": "all clear"})
    with hospital.sniff() as outside:
        if step == "intent":
            since = time.time_ns()
            assert not passes(hospital, "guests")
            assert outside.seen(since, destination=places.WEB.v4) == []
        living(daemon)
        levels = check_whole(hospital, daemon, all_at("cut"), all_at("open"))
        if step in {"intent", "applied", "verified"}:
            assert levels == all_at("cut"), (
                "nobody was told that it is open, and nothing on disk says so"
            )
    if levels == all_at("open"):
        check_filed(daemon, 3, "all clear")


@pytest.mark.parametrize("step", OPENING)
def test_killed_in_a_change_that_closes_one_zone_and_opens_another(hospital: Hospital, step: str):
    daemon = dying(hospital, step).start()
    daemon.level("cut", zones=["guests"])
    first = daemon.status()
    daemon.level("open", zones=["guests"])
    daemon.level("cut", zones=["care"])
    second = daemon.status()
    assert not command(
        daemon, "/v1/rollback", {"generation": first["generation"], "reason": "swap"}
    )
    living(daemon)
    check_whole(hospital, daemon, first["levels"], second["levels"])


@pytest.mark.parametrize("step", ["loaded", "policy", *OPENING])
def test_killed_while_reloading(hospital: Hospital, step: str):
    daemon = dying(hospital, step).start()
    daemon.level("cut")
    fewer = {
        name: services for name, services in policy.ALLOWLIST.items() if name != "20-finance.yaml"
    }
    daemon.write_config(None, fewer)
    assert hospital.admin.tcp(places.TREASURY.v4)
    assert not command(daemon, "/v1/reload", {"reason": "no treasury"})
    living(daemon)
    check_whole(hospital, daemon, all_at("cut"))
    known = {service["name"] for service in daemon.status()["services"]}
    assert bool(hospital.admin.tcp(places.TREASURY.v4, timeout=0.3)) == ("treasury" in known)


def test_killed_at_start(hospital: Hospital):
    daemon = hospital.daemon().start()
    daemon.level("cut")
    daemon.stop()
    with hospital.sniff() as outside:
        since = time.time_ns()
        for step in ("applied", "verified", "boot", "audit"):
            daemon.argv = ("-m", "tests.system.dying", step, "1")
            (daemon.directory / "armed").touch()
            daemon.start(wait=False)
            daemon.wait()
            (daemon.directory / "armed").unlink()
            assert not passes(hospital, "guests")
            assert hospital.care.tcp(places.LABORATORY.v6)
        living(daemon)
        check_whole(hospital, daemon, all_at("cut"))
        assert outside.seen(since, destination=places.WEB.v4) == []


@pytest.mark.parametrize(
    "step", ["applied", "verified", "program", "boot", "policy", "generation", "audit"]
)
def test_killed_at_the_very_first_start(hospital: Hospital, step: str):
    """Nobody has cut anything yet.

    The hospital must not find itself cut because an installation was interrupted.
    """
    daemon = dying(hospital, step)
    (daemon.directory / "armed").touch()
    daemon.start(wait=False)
    daemon.wait()
    (daemon.directory / "armed").unlink()
    living(daemon)
    check_whole(hospital, daemon, all_at("open"))
