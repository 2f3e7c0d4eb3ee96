"""Fixtures for the lab, and two rules: nothing is skipped in CI, nothing is left behind."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import effort
from tests.lab import loopwatch, netns
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital

# Some environments (containers) forbid compiled files. Then each daemon that a test starts compiles
# 200 modules: half of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs us in the background has it ignored, and programs that we start would
    # inherit that: a test that presses Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No assertion on speed: by default each example has 200 ms, which a loaded machine takes away.
settings.register_profile("ecluse", deadline=None, max_examples=effort.examples(100))
settings.load_profile("ecluse")

_NEEDS_ROOT = {"kernel", "system", "vm"}


def pytest_report_header() -> str:
    """Say how much is tried, and what gives the same samples again."""
    return f"tests: {'thorough' if effort.THOROUGH else 'quick'}, ECLUSE_TEST_SEED={effort.SEED}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without root, what needs it is skipped on a laptop and fails in CI."""
    if os.geteuid() == 0 or not any(item.get_closest_marker(name) for name in _NEEDS_ROOT):
        return
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(
            "this test needs root for its network namespaces, and CI skips nothing", pytrace=False
        )
    pytest.skip("needs root for its network namespaces: run it with sudo")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """When a test fails, show what the daemons that run said, and the seed of the samples."""
    report = yield
    if report.failed:
        report.sections.append(("samples", f"ECLUSE_TEST_SEED={effort.SEED}"))
        report.sections += [(f"log of {d.directory.name}", d.tail()) for d in Daemon.running]
    return report


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Remove what dead runs left; in the end, see that this one leaves nothing."""
    if os.geteuid() != 0:
        yield
        return
    netns.sweep()
    yield
    mine = f"{netns.PREFIX}-{os.getpid()}-"
    left = [*netns.namespaces(mine), *map(str, netns.directories(mine))]
    for name in netns.namespaces(mine):
        netns.remove(name)
    assert not left, f"this run left behind: {', '.join(left)}"


@pytest.fixture(autouse=True)
def _nothing_holds_the_loop() -> Iterator[None]:
    """The test in which something holds a daemon's event loop for over 20 ms fails.

    A cut would have waited for it.
    """
    Daemon.watched = True
    Daemon.held_up.clear()
    yield
    held_up, Daemon.held_up[:] = loopwatch.by_the_daemon(Daemon.held_up), []
    if held_up:
        told = "\n".join(held_up)
        pytest.fail(f"the daemon's event loop was held for over 20 ms:\n{told}", pytrace=False)


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    """A hospital of this test's own (0.1 s), with nothing but the site's NAT in its gateway."""
    with Hospital() as built:
        yield built


@pytest.fixture
def daemon(hospital: Hospital) -> Iterator[Daemon]:
    """The real daemon, up and open, in the hospital's gateway."""
    started = hospital.daemon().start()
    yield started
    started.stop()
