"""What was learned, on disk: for after a reboot, when the kernel's sets are empty and the record is
gone.

Lines of nft, so that the boot unit can put them back before the network, without a process of ours
(systemd/boot.sh, which takes lines of this form alone). Above them a comment tells when they were
written.
"""

import json
import math
import re
import time
from ipaddress import ip_address
from pathlib import Path

from ecluse.dnsproxy.learned_journal import Held, Origins, led_by, remember
from ecluse.dnsproxy.whole_files import write_whole
from ecluse.lenient_rows import PARSE_ERRORS, parse_rows
from ecluse.policy import IPAddress
from ecluse.ruleset.dns_redirect import KEPT_SECONDS
from ecluse.ruleset.program import TABLE
from ecluse.ruleset.table_names import is_learned_set

FILE = "learned.nft"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TITLE = "# What the DNS gate of ecluse learned: "
_LINE = re.compile(
    rf"add element {TABLE} (\w+) {{ ([0-9a-f.:]+) expires ([0-9]{{1,9}})s }}(?: # ([!-~]+))?",
    re.ASCII,
)


def boot_id() -> str:
    """Give the kernel's word for this run of the machine, empty where it has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def clock() -> float:
    """Give the time since the machine started: it goes on evenly, whoever sets the machine's date."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def write_snapshot(file: Path, held: Held, origins: Origins, boot: str) -> None:
    """Save what is held, each with the seconds that it has left and what led to it.

    OSError when that is not possible.
    """
    now = clock()
    lines = [_TITLE + json.dumps({"boot": boot, "clock": now, "date": time.time()})]
    lines += [
        f"add element {TABLE} {name} {{ {address} expires {int(until - now)}s }} # {led_by(origins, name, address)}".removesuffix(
            " # "
        )
        for name, every in held.items()
        for address, until in every.items()
        if until - now >= 1
    ]
    write_whole(file, "\n".join([*lines, ""]), mode=0o600)


def read_snapshot(file: Path, boot: str) -> tuple[Held, Origins, str]:
    """Give what was saved, what led to it, and in which run of the machine that was; nothing where
    it is missing or damaged: names are asked again.

    How long the machine was down is told by its date alone, and one that went back counts as no
    time. What is over by then is given as over now: the boot unit, which trusts no date, may have
    put it back, and it is no stranger's.
    """
    now = clock()
    try:
        title, *lines = file.read_bytes().decode(errors="replace").split("\n")
        told = json.loads(title.removeprefix(_TITLE))
        written, clock_then, date_then = (
            str(told["boot"]),
            float(told["clock"]),
            float(told["date"]),
        )
    except PARSE_ERRORS:
        return {}, {}, ""
    if not (math.isfinite(clock_then) and math.isfinite(date_then)):
        return {}, {}, ""
    gone = max(0.0, now - clock_then if written == boot else time.time() - date_then)
    held: Held = {}
    origins: Origins = {}
    for name, address, seconds, led in parse_rows(lines, _row)[0]:
        left = seconds - gone
        if is_learned_set(name) and (left > 0 or written != boot):
            held.setdefault(name, {})[address] = now + max(0.0, left)
            remember(origins, name, address, led)
    return held, origins, written


def _row(line: str) -> tuple[str, IPAddress, int, str]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError("no line of what was saved")
    return found[1], ip_address(found[2]), min(int(found[3]), KEPT_SECONDS), found[4] or ""
