"""The site's resolvers as a test wants them.

Two servers on the internet side, each told how to answer for each name.
"""

import json
import subprocess
import sys
import time
from typing import Any, Self

from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT
from tests.lab.inside.authority import PORT

FIRST, SECOND = "198.51.100.53", "198.51.100.54"
"""Their addresses; both are outside, and no other server of the lab answers DNS there."""


class Resolvers:
    """Two servers in the internet's namespace (inside/authority.py).

    They answer NXDOMAIN for what they were not told.
    """

    def __init__(self, hospital: Hospital) -> None:
        self._hospital = hospital
        self._file = hospital.directory / "resolvers.json"
        self._told: dict[str, dict[str, list[Any]]] = {FIRST: {}, SECOND: {}}

    def __enter__(self) -> Self:
        self._write()
        # Port 53 of every address is the lab's own server's.
        rules = "".join(
            f"ip daddr {address} {protocol} dport 53 dnat to {address}:{PORT}\n"
            for address in (FIRST, SECOND)
            for protocol in ("udp", "tcp")
        )
        chain = "type nat hook prerouting priority dstnat;"
        self._hospital.nft(
            f"table ip resolvers {{\nchain at53 {{\n{chain}\n{rules}}}\n}}\n", "inet"
        )
        self._process = subprocess.Popen(
            [
                *(
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    "ip",
                    "netns",
                    "exec",
                    self._hospital.namespace("inet"),
                ),
                *(
                    sys.executable,
                    "-m",
                    "tests.lab.inside.authority",
                    str(self._file),
                    FIRST,
                    SECOND,
                ),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while (
            self._hospital.gateway.resolve(FIRST, "ready.example", timeout=0.2).more.get("rcode")
            != 3
        ):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("the resolvers of the lab do not answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def tell(self, name: str, *way: Any, server: str = "") -> None:
        """Have both servers, or the one named, answer so from now on (the ways:
        inside/authority.py).
        """
        for address in [server] if server else self._told:
            self._told[address][name] = list(way)
        self._write()

    def put(self, name: str, *addresses: str, ttl: int = 1) -> None:
        """Let the name have these addresses."""
        self.tell(name, "records", *([name, ttl, address] for address in addresses))

    def _write(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self._told), encoding="utf-8")
        new.rename(self._file)
