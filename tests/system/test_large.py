"""A large allowlist, and everything that is asked and done with it: nothing of it holds up a cut.

What is asserted is the rule of the whole suite (tests/conftest.py): no callback holds the loop for
over 20 ms of its own processor time.
"""

import threading
import time

import pytest

from tests.bench import site
from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ENTRIES, CHANGED, SERVICES = 20_000, 2_000, 3_000


def large(changed: int = 0) -> dict:
    """20,000 entries in 40 services; `changed` of them others."""
    return policy.ALLOWLIST | site.allowlist(site.addresses(ENTRIES, changed))


def many(changed: int = 0) -> dict:
    """3,000 services of a few entries each."""
    every = [
        policy.service(f"s-{n}", "important", ["care"], [{"to": [one], "ports": ["tcp/443"]}])
        for n, one in enumerate(site.addresses(SERVICES, changed))
    ]
    return policy.ALLOWLIST | {"50-many.yaml": every}


def wait_until_put_back(daemon: Daemon) -> None:
    end = time.monotonic() + 60
    while not daemon.status()["last_tamper"]:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("allowlist", [large, many])
def test_nothing_that_is_asked_or_done_holds_the_loop(hospital: Hospital, allowlist):
    daemon = hospital.daemon(allowlist=allowlist()).start(60)
    good = [
        daemon.api(*question, timeout=60)
        for question in (
            ("GET", "/v1/services"),
            ("GET", "/metrics"),
            ("GET", "/v1/generations"),
            ("GET", "/v1/refused"),
            ("GET", "/v1/openapi.json"),
            ("POST", "/v1/plan", {"level": "cut"}),
        )
    ]
    daemon.level("cut")
    daemon.write_config(None, allowlist(CHANGED))
    good += [daemon.api("POST", "/v1/plan", {"reload": True}, timeout=60)]
    assert any(line.startswith("+") for line in good[-1].body["diff"]), good[-1].body["diff"][:5]
    hospital.nft("flush ruleset")
    wait_until_put_back(daemon)
    good += [daemon.api("POST", "/v1/reload", {"reason": "x"}, timeout=60)]
    good += [daemon.api("POST", "/v1/plan", {"generation": 1}, timeout=60)]
    good += [daemon.api("POST", "/v1/rollback", {"generation": 2}, timeout=60)]
    good += [daemon.api("POST", "/v1/level", {"level": "open"}, timeout=60)]
    assert {one.status for one in good} == {200}, [one.body for one in good if one.status != 200]
    daemon.stop(60)


def test_a_cut_beside_a_plan_of_a_large_allowlist(hospital: Hospital):
    """The plan goes on meanwhile, and the answer to the cut says how long the person waited
    (printed, not asserted).
    """
    daemon = hospital.daemon(allowlist=large()).start(60)
    daemon.write_config(None, large(CHANGED))
    plan = threading.Thread(
        target=lambda: daemon.api("POST", "/v1/plan", {"reload": True}, timeout=120), daemon=True
    )
    plan.start()
    took = []
    while plan.is_alive():
        for level in ("cut", "reduced"):
            began = time.monotonic()
            daemon.level(level)
            took.append((time.monotonic() - began) * 1000)
        time.sleep(0.05)
    assert len(took) > 2, "positive control: there was a plan to wait for"
    print(
        f"{len(took)} switches beside a plan: {sorted(took)[len(took) // 2]:.1f} ms, "
        f"at worst {max(took):.1f} ms"
    )
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    daemon.stop(60)


_BUSY = """
import asyncio, time
from ecluse import daemon, gc_pause
calm = gc_pause.collect_young_only
def busy():
    end = time.thread_time() + 0.05
    while time.thread_time() < end: pass
def calm_and_busy():
    calm()
    asyncio.get_running_loop().call_later(0.05, busy)
gc_pause.collect_young_only = calm_and_busy
raise SystemExit(daemon.main())
"""


def test_whatever_holds_the_loop_is_seen(hospital: Hospital):
    """Positive control: a daemon that computes for 50 ms on its loop fails the test."""
    daemon = hospital.daemon(argv=("-c", _BUSY)).start()
    time.sleep(0.3)
    daemon.stop()
    assert any("busy" in line for line in Daemon.held_up), Daemon.held_up
    Daemon.held_up.clear()
