"""sd_notify(3): a message is sent where a service manager listens, and never waited for."""

import os
import socket

import pytest

from ecluse.systemd_notify import notify, watchdog_seconds


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_arrives(tmp_path, monkeypatch, abstract):
    path = f"@ecluse-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path[1:] if abstract else path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_without_a_service_manager_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")


@pytest.mark.parametrize(
    "usec, pid, seconds",
    [
        ("10000000", None, 5.0),
        ("10000000", "ours", 5.0),
        ("10000000", "1", None),
        ("0", None, None),
        (None, None, None),
        ("x", None, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(monkeypatch, usec, pid, seconds):
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "ours" else value)
    assert watchdog_seconds() == seconds
