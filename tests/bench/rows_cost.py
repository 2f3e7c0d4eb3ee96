"""What it costs.

Load, reload, a changed address, memory, a quiet minute, the client, a full connection table.
"""

import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import raw, site
from tests.bench.figures import Section
from tests.bench.gate import PATIENCE, Gate

NAME = "moving.bench.example"
NFNL_SUBSYS_NFTABLES, NFNLGRP_NFTABLES, NFT_MSG_NEWGEN = (
    10,
    7,
    15,
)  # include/uapi/linux/netfilter/nf_tables.h


def load(section: Section, rounds: int, exact: int = 100_000, many: int = 2_000) -> None:
    """Cold start and restart to armed, and a reload with 1 % changed."""
    for kind, entries, limit in (
        (f"{exact:,} exact addresses", site.addresses(exact), 2000),
        (f"{many:,} prefixes, every second inside another", site.prefixes(many), 1000),
    ):
        cold, again, changed = [], [], []
        for _ in range(rounds):
            with Gate() as gate:
                gate.make_daemon(site.allowlist(entries))
                cold.append(_start(gate))
                change = max(1, len(entries) // 100)
                fresh = [*entries[change:], *site.addresses(change, first=110_000)]
                gate.daemon.write_config(site.only_care(), site.allowlist(fresh))
                changed.append(gate.ask("/v1/reload", {"reason": "benchmark"})[0].ms)
                gate.wait_for_purge()
                gate.daemon.stop(PATIENCE)
                again.append(_start(gate))
        section.below("cold start to armed", kind, "ms", cold, limit)
        section.below("reload, 1 % changed", kind, "ms", changed, limit)
        section.add("restart to armed", kind, "ms", again)


def _start(gate: Gate) -> float:
    """Start the daemon.

    Give the milliseconds until its API says that it is armed (looked at every 10 ms).
    """
    began = time.monotonic()
    gate.daemon.start(PATIENCE)
    while not gate.daemon.status()["armed"]:
        if time.monotonic() - began > PATIENCE:
            raise RuntimeError("the daemon is not armed")
        time.sleep(0.005)
    return (time.monotonic() - began) * 1000


class _Commits:
    """Hears when nf_tables of a namespace commits (NFNLGRP_NFTABLES;
    include/uapi/linux/netfilter/nfnetlink.h).
    """

    def __init__(self, namespace: str) -> None:
        self.sock = raw.in_namespace(namespace, self._make)

    @staticmethod
    def _make() -> socket.socket:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
        sock.bind((0, 0))
        sock.setsockopt(270, 1, NFNLGRP_NFTABLES)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
        return sock

    def wait(self, patience: float) -> int:
        """Wait for the end of a transaction; give its time, nanoseconds since the epoch."""
        self.sock.settimeout(patience)
        while True:
            data = self.sock.recv(1 << 20)
            now, at = time.time_ns(), 0
            while at + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN:
                    return now
                at += (length + 3) & ~3


def dns(section: Section, sizes: Sequence[int], rounds: int) -> None:
    """One address of a name changes.

    From the resolver's last answer at the gateway to the kernel's commit.
    """
    for size in sizes:
        with Gate() as gate:
            zone = {NAME: {"a": ["203.0.113.100"], "ttl": 1}}
            gate.hospital.dns(zone)
            files = site.allowlist(site.addresses(size), NAME)
            gate.start_daemon(files, environment={"ECLUSE_DNS_MINIMUM_TTL": "1"})
            time.sleep(0.5)
            commits = _Commits(gate.hospital.namespace("gw"))
            answers = raw.Witness(gate.hospital.namespace("gw"), "wan0")
            took = []
            for number in range(rounds):
                answers.take()
                address = f"203.0.113.{101 + number}"
                gate.hospital.dns({NAME: {"a": [address], "ttl": 1}})
                at = commits.wait(20.0)
                heard = [
                    t
                    for key, times in answers.take().items()
                    if raw.source_port(key) == 53
                    for t in times
                    if t < at
                ]
                took.append((at - max(heard)) / 1e6)
                # An old address stays for a while; its removal is a transaction of its own.
                time.sleep(0.3)
                while _pending(commits):
                    pass
            answers.close()
        section.below(
            "changed address, answer to kernel",
            "one of two answers (A, AAAA) to commit",
            "ms",
            took,
            5,
            size=size,
        )


def _pending(commits: _Commits) -> bool:
    try:
        return bool(commits.wait(0.05))
    except TimeoutError:
        return False


def client(section: Section, rounds: int) -> None:
    """Whole processes, in turns."""
    with Gate() as gate:
        gate.start_daemon(site.allowlist(site.addresses(1_000)))
        commands = {
            "ecluse status": gate.cli_argv("status"),
            "ecluse --help": gate.cli_argv("--help"),
            "python -c pass": ["/usr/bin/python3", "-c", "pass"],
            "python -I -S -c pass": ["/usr/bin/python3", "-I", "-S", "-c", "pass"],
            "nft --version": ["nft", "--version"],
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, argv in commands.items():
                took[name].append(gate.launch(*argv).ms)
    for name, values in took.items():
        if name.startswith("ecluse"):
            section.below("start to end", name, "ms", values, 40)
        else:
            section.add("start to end", name, "ms", values)


def idle(section: Section, sizes: Sequence[int], seconds: float) -> None:
    """Resident memory, and the processor time of quiet seconds (schedstat, proc(5))."""
    for size, most in zip(sizes, (64, 200), strict=False):
        with Gate() as gate:
            gate.start_daemon(site.allowlist(site.addresses(size)))
            gate.level("cut")
            gate.wait_for_purge()
            time.sleep(3.0)
            pid = gate.daemon.pid
            peak, now = (memory(pid, key) for key in ("VmHWM", "VmRSS"))
            before, began = _cpu(pid), time.monotonic()
            time.sleep(seconds)
            share = (_cpu(pid) - before) / 1e9 / (time.monotonic() - began) * 100
            section.below("resident memory", "eclused", "MiB", [now], most, size=size)
            section.add("resident memory, highest so far", "eclused", "MiB", [peak], size=size)
            section.below(
                f"CPU over {seconds:.0f} quiet seconds",
                "eclused",
                "% of a core",
                [share],
                0.1,
                size=size,
            )


def memory(pid: int, key: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def _cpu(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def purge(section: Section, entries: int, patience: float = 120.0) -> None:
    """Fill the connection table, half of it not kept, cut, and ask the API all the while."""
    with Gate() as gate:
        # Entries of flows that nobody answers would expire meanwhile.
        gate.hospital.shell("gw", "echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout")
        gate.start_daemon(site.allowlist(site.addresses(1_000)))
        macs = gate.macs()
        # One way or the other in turns; a source port each, and a second port of the partner past
        # 50,000.
        frames = [
            raw.frame(
                macs,
                "udp",
                f"10.10.{10 + flow // 50_000}.7",
                (site.KEPT.v4, site.CUT_OFF.v4)[number % 2],
                2_000 + flow % 50_000,
                (site.PORT, site.SPARE_PORT)[flow // 50_000 % 2],
            )
            for number in range(entries)
            for flow in (number // 2,)
        ]
        gate.sender(frames, 0).ask(f"once {entries}", patience)
        time.sleep(0.2)
        filled = int(gate.hospital.shell("gw", "cat /proc/sys/net/netfilter/nf_conntrack_count"))
        run = gate.level("cut")
        delays, purged = [], None
        number = gate.ask("/v1/status")[1]["generation"]
        while (time.time_ns() - run.ended) / 1e9 < patience:
            answer, body = gate.ask(f"/v1/generations/{number}")
            delays.append(answer.ms)
            purged = body["purge"]
            if purged["state"] != "running":
                break
            time.sleep(0.01)
        took = (time.time_ns() - run.ended) / 1e9
        left = int(gate.hospital.shell("gw", "cat /proc/sys/net/netfilter/nf_conntrack_count"))
    who = f"{filled:,} entries, half not kept"
    section.below("purge, after the answer", who, "s", [took], 5)
    section.add("the cut itself", who, "ms", [run.ms])
    section.add("API meanwhile", who, "ms", delays)
    section.remarks.append(
        f"State {purged['state']}: {purged['ended']:,} ended, {purged['kept']:,} kept; "
        f"{left:,} entries left."
    )
