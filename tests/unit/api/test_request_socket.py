"""The request that is sent before anything else loads."""

import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecluse.api.request_socket import RequestSocket, json_text, request_level, sendable_text


@given(st.text())
def test_texts_are_written_as_json_dumps_writes_them(text):
    for one in (text, text + "\udc80\U0001f600"):
        assert json.loads(json_text(one)) == json.loads(json.dumps(one))
        json_text(one).encode("ascii")


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        yield sock


def received(listener):
    connection, _ = listener.accept()
    with connection:
        head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
    return head.decode().split("\r\n"), json.loads(body)


def test_a_level_is_one_request_with_all_that_was_typed(listener):
    path = listener.getsockname()
    request = request_level(path, "cut", ("care", "lab"), 'a "b"\n', "caf\u00e9 \udce9", 7)
    request.sock.close()
    lines, body = received(listener)
    assert lines[0] == "POST /v1/level HTTP/1.0"
    assert body == {
        "level": "cut",
        "reason": 'a "b"\n',
        "authorised_by": "caf\u00e9 \ufffd",
        "zones": ["care", "lab"],
        "expect_generation": 7,
    }
    request_level(path, "isolate", (), "", "").sock.close()
    lines, body = received(listener)
    assert body == {"level": "isolate", "reason": "", "authorised_by": ""}
    assert f"Content-Length: {len(json.dumps(body))}" in lines


def test_a_reason_is_cut_to_what_the_daemon_takes():
    assert len(sendable_text("x" * 5000)) == 1000


def test_what_prevents_it_is_kept_for_the_reader_of_the_answer(tmp_path):
    request = RequestSocket(str(tmp_path / "none"), 1.0, "GET", "/")
    assert isinstance(request.connect_error, FileNotFoundError)
    assert request.send_error is None


def test_a_daemon_that_refuses_early_is_no_error_of_sending(listener):
    def refuse():
        connection, _ = listener.accept()
        connection.recv(1)
        connection.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    request = RequestSocket(listener.getsockname(), 5.0, "POST", "/", b"x" * (8 << 20))
    thread.join()
    assert (request.connect_error, request.send_error) == (None, None)
    request.sock.close()


def test_a_daemon_that_takes_nothing_is_a_time_out(listener):
    request = RequestSocket(listener.getsockname(), 0.2, "POST", "/", b"x" * (8 << 20))
    assert isinstance(request.send_error, TimeoutError)
    request.sock.close()
