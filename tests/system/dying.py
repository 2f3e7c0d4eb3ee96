"""The real daemon, made to die by SIGKILL at a named step of a change.

`python -m tests.system.dying STEP [NUMBER] -- flags`.

Steps are what the controller calls out: intent, loaded, program, applied, verified, boot,
generation, audit, cleared. NUMBER: at which time of that step after the start is done (1: the
first).
"""

import os
import signal
import sys
from pathlib import Path

from ecluse import daemon


def main() -> int:
    wanted, number, flags = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    state = Path(flags[flags.index("--state-dir") + 1])
    seen = 0

    def step(name: str) -> None:
        nonlocal seen
        # Armed by the test once the daemon is up, so that its own start does not count.
        if name == wanted and (state.parent / "armed").exists():
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return daemon.main(flags, make=lambda settings, log: daemon.Daemon(settings, log, step=step))


if __name__ == "__main__":
    sys.exit(main())
