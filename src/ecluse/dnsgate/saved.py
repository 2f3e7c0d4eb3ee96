"""What was learned, on disk: for after a reboot, when the kernel's sets are empty and the record is gone."""

import json
import time
from ipaddress import ip_address
from pathlib import Path

from ecluse.dnsgate.files import write_whole
from ecluse.dnsgate.record import Held
from ecluse.ruleset.dnsgate import KEPT_SECONDS
from ecluse.ruleset.names import is_learned

FILE = "learned.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Give the kernel's word for this run of the machine, empty where it has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def clock() -> float:
    """Give the time since the machine started: it goes on evenly, whoever sets the machine's date."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def write(file: Path, held: Held, boot: str) -> None:
    """Save what is held, each with the seconds that it has left. OSError when that is not possible."""
    now = clock()
    rows = [
        [name, str(address), int(until - now)]
        for name, every in held.items()
        for address, until in every.items()
    ]
    write_whole(file, json.dumps({"boot": boot, "clock": now, "date": time.time(), "left": rows}), mode=0o600)


def read(file: Path, boot: str) -> tuple[Held, str]:
    """Give what was saved, and in which run of the machine; nothing where it is missing or damaged: names are asked again.

    How long the machine was down is told by its date alone, and one that went back counts as no time.
    """
    now = clock()
    try:
        told = json.loads(file.read_text())
        written = str(told["boot"])
        gone = now - float(told["clock"]) if written == boot else max(0.0, time.time() - float(told["date"]))
        found = [
            (str(name), ip_address(address), min(float(left), KEPT_SECONDS) - gone)
            for name, address, left in told["left"]
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return {}, ""
    held: Held = {}
    for name, address, left in found:
        if is_learned(name) and left > 0:
            held.setdefault(name, {})[address] = now + left
    return held, written
