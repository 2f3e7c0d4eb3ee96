"""sd_notify(3): tell the service manager that we are ready, alive or stopping."""

import os
import socket


def notify(message: str) -> bool:
    """Send a message (`READY=1`, `WATCHDOG=1`, `STOPPING=1`, `STATUS=...`) to the service manager.

    False when there is none (no NOTIFY_SOCKET) or it does not take it now (never waited for); a
    daemon runs on without.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(message.encode(), socket.MSG_DONTWAIT, address)
    except OSError:
        return False
    return True


def watchdog_seconds() -> float | None:
    """Give the interval of WATCHDOG=1 messages: half the limit, as sd_watchdog_enabled(3) asks.

    None when the service manager expects none.
    """
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
        pid = int(os.environ.get("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 and pid == os.getpid() else None
