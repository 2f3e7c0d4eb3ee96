"""The product, loaded once: each shape's daemon and `check --host` are forks of this process.

To load it takes an emulated machine some ten seconds, and each shape would pay that twice.
"""

import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .traffic import enter

_WHERE = "/usr/lib/ecluse/python"
_MODULES = {"daemon": "ecluse.eclused", "command": "ecluse.cli.main"}
# what those load themselves once they run
_LATER = ("ecluse.daemon", "ecluse.cli.verbs", "ecluse.cli.offline_checks", "ecluse.cli.parser")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _MS_REC_SLAVE, _MNT_DETACH = 0x20000, 0x4000 | 1 << 19, 2


def load() -> None:
    """Load the installed package as its own programs do."""
    sys.path.insert(0, _WHERE)
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # as in ecluse.eclused
    for name in (*_MODULES.values(), *_LATER):
        import_module(name)
    gc.freeze()


def start(namespace: str, program: str, words: Sequence[str], output: Path) -> int:
    """Start `daemon` or `command` in a namespace; give its process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _move(namespace)
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
        with output.with_suffix(".err").open("wb") as file:
            os.dup2(file.fileno(), 2)
        sys.argv = [program, *words]
        code = import_module(_MODULES[program]).main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def _move(namespace: str) -> None:
    """Go there as `ip netns exec` does: /sys tells of the links that are there."""
    enter(namespace)
    none = ctypes.c_char_p(None)
    for failed in (
        _LIBC.unshare(_CLONE_NEWNS),
        _LIBC.mount(none, b"/", none, _MS_REC_SLAVE, none),
        _LIBC.umount2(b"/sys", _MNT_DETACH),
        _LIBC.mount(b"shape", b"/sys", b"sysfs", 0, none),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), f"into {namespace}")
