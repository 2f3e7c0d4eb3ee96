"""The dnsmasq process: when it is restarted, when it only reloads, and what is said of its end."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ecluse.dnsproxy import dnsmasq as module
from ecluse.dnsproxy.alias_chains import AliasChains
from ecluse.dnsproxy.dnsmasq import CONFIG as MAIN
from ecluse.dnsproxy.dnsmasq import SERVERS, Dnsmasq
from tests.unit.dnsproxy.messages import CONFIG

STAND_IN = f"""#!{sys.executable} -S
import signal, sys, time
say = lambda text: print(text, file=sys.stderr, flush=True)
# As dnsmasq does it, and not as `trap`: that has no effect where SIGHUP was ignored (nohup).
signal.signal(signal.SIGHUP, lambda *_: say("hup"))
say("started " + sys.argv[1])
while True:
    time.sleep(60)
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    """Put a script in dnsmasq's place, which writes to its log when it is started and reloaded."""
    script = tmp_path / "stand-in"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    monkeypatch.setattr(module.shutil, "which", lambda _name, path: str(script))
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    return script


async def until(holds) -> None:
    async with asyncio.timeout(60):  # a machine may be very busy
        while not holds():
            await asyncio.sleep(0.01)


async def test_names_alone_are_reloaded_and_anything_else_is_a_restart(tmp_path, program):
    log = bytearray()
    dnsmasq = Dnsmasq(tmp_path, log.extend)
    try:
        await dnsmasq.apply_config(CONFIG)
        await until(lambda: b"started" in log)
        assert f"--conf-file={tmp_path / MAIN}".encode() in log
        assert (tmp_path / MAIN).stat().st_mode & 0o777 == 0o600, "it has the secret"
        pid = dnsmasq.pid
        await dnsmasq.apply_config(replace(CONFIG, names={}))
        await until(lambda: b"hup\n" in log)
        assert (dnsmasq.pid, dnsmasq.starts) == (pid, 1)
        assert "results.lab.example" not in (tmp_path / SERVERS).read_text()
        await dnsmasq.apply_config(replace(CONFIG, interfaces=("lan9",)))
        assert dnsmasq.pid not in {0, pid}
        assert dnsmasq.starts == 2
    finally:
        await dnsmasq.stop()
    assert dnsmasq.pid == 0


async def test_new_targets_are_reloaded_once_and_known_ones_not_again(tmp_path, program):
    log = bytearray()
    dnsmasq, chains = Dnsmasq(tmp_path, log.extend), AliasChains()
    await dnsmasq.let_through(chains)
    assert not (tmp_path / SERVERS).exists(), "there is no configuration yet"
    try:
        await dnsmasq.apply_config(CONFIG)
        await until(lambda: b"started" in log)
        chains.targets = lambda _now: frozenset({"front.cdn.example"})
        await dnsmasq.let_through(chains)
        await until(lambda: log.count(b"hup\n") == 1)
        assert "server=/front.cdn.example/" in (tmp_path / SERVERS).read_text()
        await dnsmasq.let_through(chains)
        await asyncio.sleep(0.2)
        assert log.count(b"hup\n") == 1
    finally:
        await dnsmasq.stop()


async def test_one_that_ended_is_started_again_and_its_last_words_are_said(tmp_path, program):
    program.write_text("#!/bin/sh\necho first >&2\necho the port is taken >&2\nexit 2\n")
    dnsmasq = Dnsmasq(tmp_path, lambda _: None)
    await dnsmasq.apply_config(CONFIG)
    await until(lambda: not dnsmasq.pid and dnsmasq._log_ended())
    await dnsmasq.ensure_running()
    assert dnsmasq.trouble == "dnsmasq ended with 2: the port is taken"
    assert dnsmasq.starts == 2
    await dnsmasq.disable()
    await dnsmasq.ensure_running()
    assert (dnsmasq.starts, dnsmasq.trouble) == (2, ""), "without a configuration none is started"


async def test_a_machine_without_dnsmasq_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda _name, path: None)
    dnsmasq = Dnsmasq(tmp_path, lambda _: None)
    await dnsmasq.apply_config(CONFIG)
    assert dnsmasq.trouble == "dnsmasq is not installed: apt install dnsmasq-base"


async def test_it_is_killed_with_what_it_forked(tmp_path, program):
    program.write_text("#!/bin/sh\nsleep 300 &\necho $! >&2\nwait\n")
    log = bytearray()
    dnsmasq = Dnsmasq(tmp_path, log.extend)
    await dnsmasq.apply_config(CONFIG)
    await until(lambda: b"\n" in log)
    await asyncio.wait_for(dnsmasq.stop(), 10)
    child = Path(f"/proc/{int(log)}/stat")
    await until(lambda: not child.exists() or child.read_text().split()[2] == "Z")
