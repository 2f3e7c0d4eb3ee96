"""The client of the socket."""

import contextlib
import socket
import time

import pytest

from ecluse.api.client import Client
from ecluse.errors import UnreachableError


def test_a_queue_that_stays_full_ends_with_the_time(tmp_path):
    with socket.socket(socket.AF_UNIX) as held, contextlib.ExitStack() as crowd:
        held.bind(str(tmp_path / "s"))
        held.listen(0)
        crowd.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / "s"))
        told = []
        begun = time.monotonic()
        with pytest.raises(UnreachableError, match="stayed full"):
            Client(str(tmp_path / "s"), 0.3, told.append).get("/v1/status")
        assert 0.3 <= time.monotonic() - begun < 2
        assert told == [], "it was over before there was anything to tell"
