"""A real DHCP client (busybox) and a real VRRP router (keepalived), and a DHCP server (dnsmasq).

`make link-peers` unpacks the first two below build/ and installs nothing. What is installed is
taken where nothing was unpacked.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

from tests.lab.hosts import ROOT

UNPACKED = ROOT / "build" / "link-peers" / "root"
_FOLDERS = [UNPACKED / one for one in ("bin", "usr/bin", "usr/sbin")]
_PATH = ":".join([*map(str, _FOLDERS), os.defpath, "/usr/sbin", "/sbin"])
_LIBRARIES = [*UNPACKED.glob("usr/lib/*-linux-gnu*"), *UNPACKED.glob("lib/*-linux-gnu*")]


def program(name: str) -> str:
    """Give the path of a program; skip the test without it: on a laptop, never when CI=true."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        if os.environ.get("CI") == "true":
            raise RuntimeError(f"missing: {name}; make link-peers")
        pytest.skip(f"missing: {name}; make link-peers")
    return found


class Running:
    """A program in a namespace, ended with the block; its words go to a file."""

    def __init__(self, namespace: str, output: Path, *argv: str) -> None:
        self._output = output
        environment = os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, _LIBRARIES))}
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def said(self) -> str:
        """Give what it wrote until now."""
        return self._output.read_text(errors="replace")
