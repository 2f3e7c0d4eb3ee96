"""The way of a process' words out: bounded, counted, never in the way."""

import errno
import io
import os
import socket
import sys
import threading
import time

import pytest

from ecluse import output as module
from ecluse import systemd_notify
from ecluse.output import MOST_BYTES, Output, capture_prints


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    with io.FileIO(reader) as out, io.FileIO(writer, "w") as into:
        yield out, into


def made(into: io.FileIO) -> Output:
    return Output(into.fileno(), lambda lost: f"{lost} lost\n")


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_is_said_comes_out_in_order_and_the_end_waits_for_it(pipe):
    output = made(pipe[1])
    for number in range(1000):
        output.write(f"{number}\n")
    output.close()
    assert pipe[0].read(1 << 16).decode() == "".join(f"{number}\n" for number in range(1000))
    assert (output.trouble, output.lost) == ("", 0)


def test_what_is_not_read_takes_bounded_memory_and_is_counted_and_told(pipe):
    output = made(pipe[1])
    line = "x" * 1023 + "\n"
    for _ in range(3 * MOST_BYTES // 1024):
        output.write(line)
    assert output.lost >= 2 * MOST_BYTES // 1024 - 65
    assert f"{output.lost} lines" in output.trouble
    got = io.BytesIO()
    os.set_blocking(pipe[0].fileno(), False)
    wait_for(lambda: (got.write(pipe[0].read(1 << 16) or b""), not output.trouble)[1])
    output.close()
    got.write(pipe[0].read(1 << 20) or b"")
    lines = got.getvalue().decode().splitlines()
    assert lines[-1] == f"{output.lost} lost"
    assert set(lines[:-1]) == {line.strip()}
    assert len(lines) - 1 + output.lost == 3 * MOST_BYTES // 1024


def test_what_refuses_is_tried_again_and_a_torn_line_is_ended(monkeypatch, pipe):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.02)
    real, room = os.write, [5]

    def full(descriptor, data):
        if descriptor != pipe[1].fileno() or room[0] is None:
            return real(descriptor, data)
        if not room[0]:
            raise OSError(errno.ENOSPC, "full")
        count, room[0] = min(len(data), room[0]), 0
        return real(descriptor, data[:count])

    monkeypatch.setattr(os, "write", full)
    output = made(pipe[1])
    output.write("the first\n")
    wait_for(lambda: output.trouble)
    assert "No space left" in output.trouble
    room[0] = None
    wait_for(lambda: not output.trouble)
    output.write("the second\n")
    output.close()
    assert pipe[0].read(1 << 16) == b"the f\n1 lost\nthe second\n"


def test_nothing_that_is_said_raises(pipe):
    output = made(pipe[1])
    pipe[0].close()
    for words in ("a\n", "\udcff\n", ""):
        output.write(words)
        output.flush()
    wait_for(lambda: output.lost >= 2)
    output.close()


def test_without_a_thread_the_next_line_tries_again(monkeypatch, pipe):
    real = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread,
        "start",
        lambda _self: (_ for _ in ()).throw(RuntimeError("can't start new thread")),
    )
    output = made(pipe[1])
    output.write("a\n")
    monkeypatch.setattr(threading.Thread, "start", real)
    output.write("b\n")
    output.close()
    assert pipe[0].read(100) == b"a\nb\n"


def test_everything_that_is_printed_goes_that_way_and_only_meanwhile(pipe):
    output, before = made(pipe[1]), (sys.stdout, sys.stderr)
    with capture_prints(output):
        print("out")
        print("err", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert pipe[0].read(100) == b"out\nerr\n"


def test_a_service_manager_that_does_not_read_holds_up_nobody(monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        said = [systemd_notify.notify("WATCHDOG=1") for _ in range(5000)]
    assert said[0]
    assert not said[-1], "positive control: its queue was full"
