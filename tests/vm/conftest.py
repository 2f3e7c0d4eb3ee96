"""Fixtures of the machines with a real systemd.

A failing test shows what the machines that run have to say.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import images, nspawn
from tests.vm.images import SUITES, Disk, Suite
from tests.vm.machine import Machine
from tests.vm.nspawn import Container
from tests.vm.rig import Rig, Scene


@pytest.fixture(scope="session", autouse=True)
def _needs() -> None:
    if os.geteuid() == 0:
        images.need()
        nspawn.sweep()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """Show console and journal of the machines that run, when a test fails."""
    report = yield
    if report.failed:
        report.sections += [
            (f"machine {machine.folder.name}", _tell(machine)) for machine in Machine.switched_on
        ]
        report.sections += [
            (f"container {box.name}", box.console() + box.journal()) for box in Container.running
        ]
    return report


def _tell(machine: Machine) -> str:
    try:
        return f"{machine.logs()}\n-- journal\n{machine.journal()}"
    except (RuntimeError, OSError) as error:
        return f"{machine.logs()}\n-- no journal: {error}"


@pytest.fixture(scope="session", params=SUITES, ids=lambda suite: f"debian{suite.number}")
def suite(request: pytest.FixtureRequest) -> Suite:
    """Each Debian release in turn; `-k debian12` is one of them."""
    return request.param


@pytest.fixture(scope="session")
def root(suite: Suite) -> Path:
    """The folder with the release's system and our package, to start containers from."""
    return images.root(suite, suite.deb())


@pytest.fixture
def container(root: Path) -> Iterator[Container]:
    """A container of this test's own, not booted yet."""
    with Container(root) as box:
        yield box


@pytest.fixture(scope="session")
def disk(suite: Suite) -> Disk:
    return images.disk(suite, suite.deb())


@pytest.fixture(scope="session")
def rig(disk: Disk) -> Iterator[Rig]:
    """The hospital with the gateway that the tests share, one after the other."""
    built = Rig(disk)
    yield built
    built.close()


@pytest.fixture
def scene(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Scene]:
    """The gateway up and cut, everybody trying. A test that fails has its machine thrown away.

    `@pytest.mark.parametrize("scene", [{"level": "open", "rate": 1000}], indirect=True)` for
    another beginning.
    """
    wanted = {"level": "cut"} | getattr(request, "param", {})
    failed = request.session.testsfailed
    with rig.at(**wanted) as set_up:
        yield set_up
    if request.session.testsfailed > failed:
        rig.discard()
