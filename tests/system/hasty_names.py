"""The real daemon whose clock a test can set: `python -m tests.system.hasty_names -- flags`.

The file `ahead` beside the state directory says by how many seconds its clock is ahead. It looks at
names, and renews the boot ruleset, several times a second, and to it half a second without a word
from the resolvers is a day, or half an hour.
"""

import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from ecluse import daemon
from ecluse.controller.context import Options
from ecluse.controller.tasks import host_names, record_upkeep
from ecluse.resolve import resolver


def main() -> int:
    flags = sys.argv[1:]
    ahead = Path(flags[flags.index("--state-dir") + 1]).parent / "ahead"
    real = daemon.utc_now

    def clock() -> datetime:
        return real() + timedelta(seconds=float(ahead.read_text()) if ahead.exists() else 0)

    def hasty(*args: object, **named: object) -> Options:
        return replace(Options(*args, **named), tick=0.2)

    daemon.utc_now = clock
    daemon.Options = hasty
    record_upkeep._BOOT_DELAY = 0.1
    host_names._SHARE = 1.0
    resolver._SILENT = resolver._LEFT_SECONDS = 0.5
    return daemon.main(flags)


if __name__ == "__main__":
    sys.exit(main())
