"""The real daemon on a disk that a test can stop: `python -m tests.system.slow_disk -- flags`.

While the file `hangs` stands beside the state directory, every reading and writing of the store
waits, as fsync(2) does on storage that went away. While `slow` does, each waits as many seconds as
that file says. While `fsync` does, each fsync(2) and fdatasync(2) waits so long, and while `broken`
does, each fails with EIO, and nothing else is touched.
"""

import errno
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ecluse import daemon
from ecluse.controller.context import Ports

ON_DISK = frozenset(
    {
        *("write_intent", "clear_intent", "write_generation", "write_policy", "read_policy"),
        *(
            "write_program",
            "point_boot",
            "fill_disk_reserve",
            "write_closed",
            "forget",
            "write_names",
            "append",
        ),
    }
)


class Disk:
    """A port behind a disk."""

    def __init__(self, port: Any, folder: Path) -> None:
        self._port = port
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return self._behind(found) if name in ON_DISK else found

    def _behind(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def after_the_disk(*args: Any, **named: Any) -> Any:
            while (self._folder / "hangs").exists():
                time.sleep(0.01)
            slow = self._folder / "slow"
            if slow.exists():
                time.sleep(float(slow.read_text()))
            return method(*args, **named)

        return after_the_disk


def _worse(folder: Path, sync: Callable[[int], None]) -> Callable[[int], None]:
    def worse(fd: int) -> None:
        if (folder / "broken").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        slow = folder / "fsync"
        if slow.exists():
            time.sleep(float(slow.read_text()))
        sync(fd)

    return worse


def main() -> int:
    flags = sys.argv[1:]
    folder = Path(flags[flags.index("--state-dir") + 1]).parent
    os.fsync, os.fdatasync = _worse(folder, os.fsync), _worse(folder, os.fdatasync)

    def behind_a_disk(ports: Ports) -> Ports:
        gone = [n for n in ON_DISK if not hasattr(ports.store, n) and not hasattr(ports.audit, n)]
        assert not gone, f"the ports have no {gone} any more: nothing would wait for the disk"
        return replace(ports, store=Disk(ports.store, folder), audit=Disk(ports.audit, folder))

    return daemon.main(
        flags, make=lambda settings, log: daemon.Daemon(settings, log, adapters=behind_a_disk)
    )


if __name__ == "__main__":
    sys.exit(main())
