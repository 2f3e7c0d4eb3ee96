"""Fixtures of the machines with a real systemd. The order of suites keeps what one release built in use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import images, nspawn
from tests.vm.images import SUITES, Suite


@pytest.fixture(scope="session", autouse=True)
def _needs() -> None:
    images.need()
    nspawn.sweep()


@pytest.fixture(scope="session", params=SUITES, ids=lambda suite: f"debian{suite.number}")
def suite(request: pytest.FixtureRequest) -> Suite:
    """Each Debian release in turn; `-k debian12` is one of them."""
    return request.param


@pytest.fixture(scope="session")
def root(suite: Suite) -> Path:
    """The folder with the release's system and our package, to start containers from."""
    return images.root(suite, suite.deb())


@pytest.fixture
def container(root: Path) -> Iterator[nspawn.Container]:
    """A container of this test's own, not booted yet."""
    with nspawn.Container(root) as box:
        yield box
