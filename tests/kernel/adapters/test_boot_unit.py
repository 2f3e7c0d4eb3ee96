"""The boot unit itself (systemd/boot.sh) and the second lock: loaded after the gate, or told."""

import asyncio
import hashlib
import subprocess
from pathlib import Path

import pytest

from ecluse.kernel.exit_table import NftExitTable
from ecluse.ruleset import exit_text, switch
from ecluse.ruleset.exit_values import Ends, ExitDevice, ExitLock
from tests.golden.cases import HERE, compiled
from tests.kernel.adapters.conftest import ip, nft
from tests.kernel.adapters.test_flowtable import owned

pytestmark = pytest.mark.kernel

LOCK = ExitLock((ExitDevice("wan0", (0x020000000001,)),), Ends(), Ends())
POLICY, PROGRAM = compiled(HERE / "01-one-address")
ISOLATE = dict.fromkeys(POLICY.zone_names(), "isolate")
SCRIPT = Path(__file__).parents[3] / "systemd" / "boot.sh"


def seal(text: str) -> str:
    return f"{text}# sha256: {hashlib.sha256(text.encode()).hexdigest()}\n"


async def boot(folder: Path, lock: str) -> str:
    """Boot with this file of the second lock; give what the unit said."""
    script = folder / "boot.sh"
    script.write_text(SCRIPT.read_text().replace("/dev/kmsg", "/dev/null"))
    gate = switch.table_text(PROGRAM) + switch.switch_text(POLICY, PROGRAM.slot, ISOLATE)
    (folder / "boot.nft").write_text(seal(gate))
    (folder / "boot-lock.nft").write_text(lock)
    done = await asyncio.to_thread(
        subprocess.run,
        ["/bin/sh", script],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "ECLUSE_STATE_DIR": str(folder),
            "ECLUSE_DNS_STATE_DIR": str(folder),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


async def test_the_second_lock_stands_after_a_boot_as_the_daemon_means_it(firewall, tmp_path):
    ip("link add wan0 type veth peer name peer0")
    said = await boot(tmp_path, seal(exit_text.boot_text(LOCK)))
    assert "second lock" not in said
    table = NftExitTable()
    try:
        reading = await table.read_table(LOCK)
        assert reading.stands
        assert [one.device for one in reading.counts] == ["wan0"]
    finally:
        table.close()
    assert (await firewall.targets(["forward"]))["forward"] == f"k{PROGRAM.slot}_forward"


@pytest.mark.parametrize(
    ("lock", "why"),
    [
        (seal("table netdev ecluse_exit { nonsense }\n"), "is refused by the kernel"),
        (exit_text.boot_text(LOCK) + "# sha256: 0\n", "is not what was written"),
        ("", "is not what was written"),
    ],
)
async def test_one_that_is_torn_or_refused_costs_itself_alone_and_is_told(
    firewall, tmp_path, lock, why
):
    ip("link add wan0 type veth peer name peer0")
    said = await boot(tmp_path, lock)
    assert "the second lock is not there until the daemon has made it" in said
    assert why in said
    assert (await firewall.targets(["forward"]))["forward"] == f"k{PROGRAM.slot}_forward"


async def test_opened_by_hand_the_second_lock_goes_first(firewall):
    ip("link add wan0 type veth peer name peer0")
    table = NftExitTable()
    try:
        await table.apply(LOCK)
        assert (await table.read_table(LOCK)).stands
        nft(switch.table_text(PROGRAM) + switch.by_hand_text(POLICY, ISOLATE))
        assert (await table.read_table(LOCK)).stands, "positive control: isolate leaves it"
        nft(switch.by_hand_text(POLICY, dict.fromkeys(POLICY.zone_names(), "open")))
        assert not (await table.read_table(None)).stands
    finally:
        table.close()


@pytest.mark.parametrize("words", [("flush",), ("load", "rules")])
async def test_the_sites_own_rules_come_and_go_beside_both_locks(firewall, tmp_path, words):
    ip("link add wan0 type veth peer name peer0")
    (tmp_path / "rules").write_text("flush ruleset\ntable inet site { }\n")
    table = NftExitTable()
    try:
        await table.apply(LOCK)
        nft(switch.table_text(PROGRAM) + switch.by_hand_text(POLICY, ISOLATE))
        nft("table inet mine { }\ntable netdev mine { }")
        script = SCRIPT.with_name("site-rules.sh")
        done = await asyncio.to_thread(
            subprocess.run, ["/bin/sh", script, *words], cwd=tmp_path, check=False, timeout=60
        )
        assert done.returncode == 0
        assert (await table.read_table(LOCK)).stands
        listing = ["nft", "list", "tables"]
        tables = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        assert "inet ecluse\n" in tables
        assert "mine" not in tables, "positive control"
        assert ("inet site" in tables) == (words[0] == "load")
    finally:
        table.close()


async def test_a_table_of_an_extra_that_a_process_owns_refuses_no_recorded_gate(firewall, tmp_path):
    with owned():
        said = await boot(tmp_path, seal(exit_text.boot_text(LOCK)))
        assert "closed.nft" not in said
        assert (await firewall.targets(["forward"]))["forward"] == f"k{PROGRAM.slot}_forward"
        assert not (tmp_path / "closed-at-boot").exists()
