"""The socket file, and sockets that systemd passes."""

import contextlib
import os
import socket
import stat

import pytest

from ecluse.api.listener import activated_fds
from ecluse.errors import (
    StateError,
)  # fmt: skip
from tests.unit.api.harness import (
    ask,
    running,
)


async def test_a_socket_file_of_a_dead_daemon_is_replaced_and_ours_removed(tmp_path):
    path = tmp_path / "run" / "e.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running(socket_path=path, mode=0o640, group="4711"):
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o640, 4711)
        assert (await ask(path, "GET", "/v1/status"))[0] == 200
        assert os.listdir(path.parent) == ["e.sock"]
    assert not path.exists()


async def test_a_living_daemon_keeps_its_socket(tmp_path):
    path = tmp_path / "e.sock"
    async with running(socket_path=path):
        with pytest.raises(StateError, match="another daemon"):
            async with running(socket_path=path):
                pass
        assert (await ask(path, "GET", "/v1/status"))[0] == 200
        assert os.listdir(tmp_path) == ["e.sock"]


async def test_what_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "e.sock"
    path.write_text("precious")
    with pytest.raises(StateError, match="is no socket"):
        async with running(socket_path=path):
            pass
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["e.sock"]


async def test_a_socket_that_another_made_since_is_not_removed(tmp_path):
    path = tmp_path / "e.sock"
    async with running(socket_path=path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


async def test_a_path_that_is_too_long_is_said(tmp_path):
    with pytest.raises(StateError, match="too long"):
        async with running(socket_path=tmp_path / ("x" * 120)):
            pass


async def test_a_socket_from_systemd(tmp_path):
    path = tmp_path / "given.sock"
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(path))
    given.listen()
    async with running(listen_fds=[given.detach()]):
        assert (await ask(path, "GET", "/v1/status"))[0] == 200
    assert path.exists()  # it is systemd's, not ours to remove


async def test_what_systemd_should_not_have_passed_is_said():
    one, other = socket.socketpair()
    with (
        contextlib.closing(one),
        contextlib.closing(other),
        pytest.raises(StateError, match="not a listening"),
    ):
        async with running(listen_fds=[os.dup(one.fileno())]):
            pass


def test_the_variables_of_systemd():
    assert activated_fds({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, 7) == (3, 4)
    assert activated_fds({"LISTEN_PID": "8", "LISTEN_FDS": "2"}, 7) == ()
    assert activated_fds({}, 7) == ()
    assert activated_fds({"LISTEN_PID": "7", "LISTEN_FDS": "x"}, 7) == ()
    assert activated_fds({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, 7) == ()
