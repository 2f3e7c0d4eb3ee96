"""Debian's own unbound and BIND in the lab.

As the site's resolver with signed zones, and as DNS servers of the inside.

`make dns-servers` unpacks them below build/ and installs nothing, so no service is started on the
machine. What is installed is taken where nothing was unpacked.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT

UNPACKED = ROOT / "build" / "dns-servers" / "root"
PROGRAMS = ("unbound", "named", "dnssec-keygen", "dnssec-signzone")
RESOLVER = "198.51.100.53"
"""Where the site's resolver answers; the lab's own server has port 53 of every address, so it is
led to another.
"""
_PORT = 5353
_FOLDERS = [UNPACKED / one for one in ("usr/sbin", "usr/bin")]
_PATH = ":".join([*map(str, _FOLDERS), os.defpath, "/usr/sbin", "/sbin"])


def need() -> None:
    """Skip the test where the programs are missing: on a laptop, never when CI=true."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing and os.environ.get("CI") == "true":
        raise RuntimeError(f"missing: {', '.join(missing)}; make dns-servers")
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}; make dns-servers")


def _program(name: str) -> str:
    return shutil.which(name, path=_PATH) or name


def _environment() -> dict[str, str]:
    libraries = ":".join(
        map(str, (*UNPACKED.glob("usr/lib/*-linux-gnu*"), *UNPACKED.glob("lib/*-linux-gnu*")))
    )
    return os.environ | ({"LD_LIBRARY_PATH": libraries} if libraries else {})


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Server:
    """One of the inside: where it answers, and its process."""

    label: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        """End it: what it had cached is gone."""
        self.process.kill()
        self.process.wait()


class RealDns:
    """BIND as the site's resolver, with its zones signed at run time.

    Unbound and BIND inside as they are asked for.

    zones: origin -> lines below its SOA; one whose name is in `unsigned` has no keys. A zone below
    another is delegated.
    """

    def __init__(
        self, hospital: Hospital, zones: dict[str, Sequence[str]], unsigned: Sequence[str] = ()
    ) -> None:
        self._hospital, self._zones, self._unsigned = hospital, zones, unsigned
        self._directory = hospital.directory / "real-dns"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._number = 0
        self._read = 0
        self._key = ""

    def __enter__(self) -> Self:
        self._directory.mkdir()
        try:
            self._sign()
            self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _sign(self) -> None:
        """Sign from the longest name up, so that each zone finds the keys of those below it."""
        for origin in sorted(
            self._zones, key=lambda one: -len(one.strip(".").split(".")) if one != "." else 0
        ):
            file = f"{origin.strip('.') or 'root'}.zone"
            text = [
                "$TTL 60",
                f"{origin} IN SOA ns.example. admin.example. 1 3600 600 86400 5",
                f"{origin} IN NS ns.example.",
                *self._zones[origin],
            ]
            signed = origin not in self._unsigned
            text += [one for below in self._zones for one in self._delegation(below, origin)]
            (self._directory / file).write_text("\n".join([*text, ""]))
            if signed:
                keygen = (_program("dnssec-keygen"), "-q", "-a", "ECDSAP256SHA256")
                _run(*keygen, origin, cwd=self._directory)
                key = _run(*keygen, "-f", "KSK", origin, cwd=self._directory).strip()
                sign = (
                    _program("dnssec-signzone"),
                    "-S",
                    "-o",
                    origin,
                    "-f",
                    f"{file}.signed",
                    file,
                )
                _run(*sign, cwd=self._directory)
                if origin == ".":
                    self._key = (self._directory / f"{key}.key").read_text().splitlines()[-1]

    def _delegation(self, below: str, above: str) -> list[str]:
        if below == above or below.partition(".")[2].strip(".") != above.strip("."):
            return []
        made = [f"{below} IN NS ns.example."]
        file = self._directory / f"dsset-{below}"
        return made + ([file.read_text().strip()] if file.exists() else [])

    def _answer(self) -> None:
        zones = "".join(
            f'zone "{origin}" {{ type primary; file "{origin.strip(".") or "root"}.zone'
            f'{"" if origin in self._unsigned else ".signed"}"; }};\n'
            for origin in self._zones
        )
        conf = self._directory / "named.conf"
        conf.write_text(
            f'options {{ directory "{self._directory}"; listen-on port {_PORT} {{ {RESOLVER}; }};'
            " listen-on-v6 { none; }; recursion yes; dnssec-validation no; pid-file none; "
            "session-keyfile none;"
            " allow-query { any; }; minimal-responses yes; querylog yes; };\n"
            f"controls {{ }};\n{zones}"
        )
        self._hospital.nft(
            f"table ip resolver {{\nchain at53 {{\ntype nat hook prerouting priority dstnat;\n"
            f"ip daddr {RESOLVER} udp dport 53 dnat to {RESOLVER}:{_PORT}\n"
            f"ip daddr {RESOLVER} tcp dport 53 dnat to {RESOLVER}:{_PORT}\n}}\n}}\n",
            "inet",
        )
        self._hospital.shell("inet", f"ip addr add {RESOLVER}/32 dev lo")
        self._start(
            "inet", [_program("named"), "-g", "-c", str(conf)], self._directory / "named.log"
        )
        self._wait(
            lambda: self._hospital.gateway.resolve(RESOLVER, "ns.example", timeout=0.3), "named"
        )

    def asked(self) -> set[tuple[str, str]]:
        """Give what the site's resolver was asked since the last call: names, types, lower case."""
        text = (self._directory / "named.log").read_text()
        fresh, self._read = text[self._read :], len(text)
        found = re.findall(r"query: (\S+) IN (\S+) ", fresh)
        return {(name.lower(), kind.lower()) for name, kind in found}

    def unbound(self, address: str, *, validating: bool, role: str = "care") -> Server:
        """Start one that forwards everything to the site's resolver, as Debian has it.

        Validating or not.
        """
        directory, label = self._folder("unbound", validating=validating)
        anchor = f'trust-anchor: "{self._key}"'.replace("\t", " ") if validating else ""
        conf = directory / "unbound.conf"
        conf.write_text(
            f"server:\n interface: {address}\n port: 53\n do-daemonize: no\n chroot: ''\n"
            " username: ''\n"
            f" directory: '{directory}'\n pidfile: ''\n use-syslog: no\n logfile: ''\n"
            " val-log-level: 2\n"
            f" access-control: 0.0.0.0/0 allow\n outgoing-interface: {address}\n"
            f" module-config: '{'validator iterator' if validating else 'iterator'}'\n {anchor}\n"
            "remote-control:\n control-enable: no\nforward-zone:\n name: '.'\n"
            f" forward-addr: {RESOLVER}\n"
        )
        return self._serve(
            label, address, role, [_program("unbound"), "-d", "-c", str(conf)], directory
        )

    def bind(self, address: str, *, validating: bool, role: str = "care") -> Server:
        """Start one that forwards everything to the site's resolver."""
        directory, label = self._folder("bind", validating=validating)
        flags, protocol, algorithm, *key = self._key.split("DNSKEY", 1)[1].split()
        conf = directory / "named.conf"
        conf.write_text(
            f'options {{ directory "{directory}"; listen-on port 53 {{ {address}; }}; '
            "listen-on-v6 { none; };"
            f" query-source address {address}; recursion yes; forward only; "
            f"forwarders {{ {RESOLVER}; }};"
            f" dnssec-validation {'yes' if validating else 'no'}; pid-file none; "
            "session-keyfile none;"
            " allow-query { any; }; empty-zones-enable no; };\ncontrols { };\n"
            f'trust-anchors {{ "." static-key {flags} {protocol} {algorithm} "{"".join(key)}"; '
            "};\n"
        )
        return self._serve(
            label, address, role, [_program("named"), "-g", "-c", str(conf)], directory
        )

    def _folder(self, program: str, *, validating: bool) -> tuple[Path, str]:
        self._number += 1
        directory = self._directory / f"{program}{self._number}"
        directory.mkdir()
        return directory, f"{program}{' validating' if validating else ''}"

    def _serve(
        self, label: str, address: str, role: str, command: list[str], directory: Path
    ) -> Server:
        self._hospital.shell(role, f"ip addr replace {address}/16 dev eth0")
        log = directory / "log"
        process = self._start(role, command, log)
        host = self._hospital.care if role == "care" else self._hospital.admin
        # The root's own question is answered by every server that runs, be it with a failure.
        self._wait(
            lambda: host.resolve(address, "version.bind", timeout=0.3).more.get("rcode", -1) >= 0,
            label,
        )
        return Server(label, address, process, log)

    def _start(self, role: str, command: list[str], log: Path) -> "subprocess.Popen[bytes]":
        with log.open("ab") as file:
            process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    "ip",
                    "netns",
                    "exec",
                    self._hospital.namespace(role),
                    *command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )
        self._processes.append(process)
        return process

    def _wait(self, there, what: str) -> None:
        deadline = time.monotonic() + 30
        while not there():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} does not answer")
            time.sleep(0.05)
