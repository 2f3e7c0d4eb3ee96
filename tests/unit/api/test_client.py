"""The client of the socket."""

import contextlib
import json
import socket
import threading
import time

import pytest

from ecluse.api.client import Client
from ecluse.errors import (
    ConfigError,
    EcluseError,
    ForbiddenError,
    KernelError,
    StaleError,
    UnreachableError,
)
from ecluse.faults import Fault


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


def served(tmp_path, answer):
    """A socket that gives every request this answer; gives its path and what was asked."""
    sock, asked = socket.socket(socket.AF_UNIX), []
    sock.bind(str(tmp_path / "s"))
    sock.listen()

    def serve():
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(1 << 16))
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()

    def end():
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        sock.close()

    return str(tmp_path / "s"), asked, end


@pytest.fixture
def answering(tmp_path):
    ends = []

    def make(answer):
        path, asked, end = served(tmp_path, answer)
        ends.append(end)
        return Client(path, 5.0), asked

    yield make
    for end in ends:
        end()


def http(status, body, length=True):
    head = f"HTTP/1.1 {status} x\r\n" + (f"Content-Length: {len(body)}\r\n" if length else "")
    return head.encode() + b"\r\n" + body


@pytest.mark.parametrize("length", [True, False])
def test_an_answer_ends_by_its_length_or_with_the_connection(answering, length):
    client, asked = answering(http(200, b'{"a": 1}', length))
    assert client.get("/v1/status") == {"a": 1}
    assert client.post("/v1/level", {"level": "caf\u00e9"}) == {"a": 1}
    assert asked[0].startswith(b"GET /v1/status HTTP/1.0\r\n")
    assert asked[1].endswith(b'\r\n\r\n{"level": "caf\\u00e9"}')


def test_an_answer_that_is_cut_short_is_none(answering):
    client, _ = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")
    with pytest.raises(UnreachableError, match="it is not known whether the command was carried"):
        client.post("/v1/level", {})
    with pytest.raises(UnreachableError) as error:
        client.get("/v1/status")
    assert "not known" not in error.value.message


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("stale", StaleError),
        ("kernel", KernelError),
        ("forbidden", ForbiddenError),
        ("of 2030", EcluseError),
    ],
)
def test_a_problem_is_the_error_that_the_daemon_met(answering, kind, error):
    problem = {"kind": kind, "detail": "it failed", "hint": "look", "retry": True}
    client, _ = answering(http(409, json.dumps(problem).encode()))
    with pytest.raises(EcluseError) as met:
        client.get("/v1/status")
    assert type(met.value) is error
    assert (met.value.kind, met.value.message, met.value.hint, met.value.retry) == (
        kind, "it failed", "look", True,
    )  # fmt: skip


def test_faults_come_with_their_places(answering):
    fault = {"file": "a.yaml", "line": 3, "column": 7, "wrong": "no", "expected": "yes"}
    client, _ = answering(http(422, json.dumps({"kind": "config", "faults": [fault]}).encode()))
    with pytest.raises(ConfigError) as met:
        client.post("/v1/reload", {})
    assert met.value.faults == (Fault("a.yaml", 3, 7, "no", "yes"),)


def test_a_stream_is_followed_line_by_line_to_its_end(answering):
    client, _ = answering(http(200, b'{"n": 1}\n{"n": 2}\n', length=False))
    assert list(client.lines("/v1/events")) == [{"n": 1}, {"n": 2}]
