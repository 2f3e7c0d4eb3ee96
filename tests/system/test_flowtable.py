"""`fast_path: flowtable`, with the real daemon: it closes and keeps on a kernel with flowtables and
on one without, and says which it is.
"""

import subprocess

import pytest

from ecluse.ruleset.flowtable import TABLE, flowtable_text
from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.system.test_tamper import wait_until

pytestmark = pytest.mark.system

FAST = policy.site(fast_path="flowtable")


def has_flowtables() -> bool:
    done = subprocess.run(
        ["unshare", "--net", "nft", "-f", "-"],
        input=flowtable_text(["lo"]),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0


def stands(hospital: Hospital) -> bool:
    return TABLE in hospital.shell("gw", "nft list tables")


def told(daemon: Daemon) -> list[str]:
    return [text for text in daemon.status()["warnings"] if text.startswith("fast_path")]


def test_it_closes_and_keeps_with_a_flowtable_or_without_and_says_so(hospital: Hospital):
    daemon = hospital.daemon(site=FAST).start()
    assert hospital.care.udp(places.WEB.v4), "positive control"
    assert not stands(hospital)
    for level in ("cut", "isolate", "cut"):
        assert daemon.level(level)["verified"]
        assert bool(hospital.care.tcp(places.LABORATORY.v4)) == (level == "cut")
        assert not hospital.care.udp(places.WEB.v4)
    if has_flowtables():
        wait_until(lambda: stands(hospital))
        assert told(daemon) == []
    else:
        wait_until(lambda: told(daemon))
        assert not stands(hospital)
        assert "it has none" in told(daemon)[0]
    assert daemon.status()["in_step"]
    daemon.level("open")
    wait_until(lambda: not stands(hospital) and not told(daemon))
    daemon.stop()


def test_a_table_of_its_name_goes_with_each_closing(hospital: Hospital):
    """Whoever made it, and whatever is in it: an earlier daemon's flows end with the cut."""
    made = f"nft 'add table {TABLE}; add chain {TABLE} forward'"
    hospital.shell("gw", made)
    daemon = hospital.daemon(site=FAST).start()
    daemon.level("cut")
    if not has_flowtables():
        assert not stands(hospital)
    daemon.stop()
    hospital.shell("gw", made)
    hospital.shell("gw", f"nft -f {daemon.state}/ruleset/isolate.nft")
    assert not stands(hospital), "nor does it outlive what is loaded by hand"
