"""The package under a real systemd.

Installed offline, upgraded while cut, and removed only when somebody says how.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from make_deb import package, suites
from tests.vm.images import Suite
from tests.vm.nspawn import Container, Done
from tests.vm.test_units import ALLOWLIST, SITE, is_shut, up

pytestmark = pytest.mark.vm

TABLE = "nft -a list table inet ecluse | head -n 1"
STATE = "/var/lib/ecluse"
UNITS = "ecluse-boot.service ecluse.service ecluse.socket"


@pytest.fixture
def box(container: Container, suite: Suite) -> Iterator[Container]:
    """A gateway whose site's files are there and whose daemon is up and open.

    The package lies in /root.
    """
    (container.upper / "root").mkdir()
    shutil.copy(suite.deb(), container.upper / "root/ecluse.deb")
    container.write("/etc/ecluse/site.yaml", SITE)
    container.write("/etc/ecluse/allowlist.d/10.yaml", ALLOWLIST)
    container.boot()
    up(container)
    yield container


@pytest.fixture(scope="session")
def newer(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same code as a later version."""
    (one,) = (known for known in suites.SUITES if known.name == suite.name)
    stamp = suites.Stamp("9.0", suites.stamp().epoch)
    return package.build(one, stamp, tmp_path_factory.mktemp("newer"), suites.ROOT / "build/wheels")


def dpkg(box: Container, words: str, how: str = "") -> Done:
    return box.sh(
        f"env ECLUSE_REMOVE_WHILE_CUT={how} dpkg {words} 2>&1" if how else f"dpkg {words} 2>&1"
    )


def cut(box: Container) -> None:
    box.sh("ecluse cut --reason test", check=True)
    assert is_shut(box)


def table(box: Container) -> str:
    """Name the table as the kernel does: another handle is another table."""
    return box.sh(TABLE).out


def pid(box: Container, unit: str = "ecluse") -> str:
    return box.sh(f"systemctl show -P MainPID {unit}", check=True).out


# -- installation


def test_without_files_it_is_enabled_and_says_what_to_type(box: Container):
    assert dpkg(box, "-P ecluse").ok
    box.sh("mv /etc/ecluse /root/files", check=True)
    done = dpkg(box, "-i /root/ecluse.deb")
    assert done.ok, done.out
    assert "gate is OPEN" in done.out
    assert "ecluse check" in done.out
    assert "systemctl start ecluse" in done.out
    assert box.sh(f"systemctl is-enabled {UNITS}").out == "enabled\n" * 3
    assert box.sh("systemctl is-active ecluse").out != "active\n"
    assert table(box) == ""
    assert box.sh("ecluse check /usr/share/ecluse/examples/config").ok
    assert box.sh("ecluse --version; eclused --version").out.splitlines() == [
        "ecluse 0.2.0",
        "eclused 0.2.0",
    ]
    # What is bundled is for our two programs alone.
    assert not box.sh("python3 -c 'import aiohttp'").ok
    assert not box.sh("python3 -c 'import ecluse'").ok
    box.reboot()
    assert box.sh("systemctl is-failed ecluse ecluse-boot").code != 0


def test_files_with_faults_do_not_start_it_and_sound_ones_do(box: Container):
    assert dpkg(box, "-P ecluse").ok
    box.write("/etc/ecluse/site.yaml", SITE.replace("resolvers", "rezolvers"))
    done = dpkg(box, "-i /root/ecluse.deb")
    assert done.ok, done.out
    assert "/etc/ecluse/site.yaml:" in done.out
    assert "NOT started" in done.out
    assert box.sh("systemctl is-active ecluse").out != "active\n"
    assert table(box) == ""
    box.write("/etc/ecluse/site.yaml", SITE)
    done = dpkg(box, "-i /root/ecluse.deb")
    assert done.ok, done.out
    assert "OPEN      care, gateway" in box.sh("ecluse status", check=True).out
    assert not is_shut(box)


def test_a_disabled_unit_stays_disabled(box: Container, newer: Path):
    box.sh("systemctl disable -q ecluse-boot", check=True)
    box.sh("cat >/root/newer.deb", check=True)
    shutil.copy(newer, f"/proc/{box._leader}/root/root/newer.deb")
    assert dpkg(box, "-i /root/newer.deb").ok
    assert box.sh("systemctl is-enabled ecluse-boot").out == "disabled\n"


# -- upgrade


def test_an_upgrade_while_cut_touches_nothing_in_the_kernel(box: Container, newer: Path):
    cut(box)
    shutil.copy(newer, f"/proc/{box._leader}/root/root/newer.deb")
    before = (table(box), pid(box), pid(box, "ecluse-dns"))
    assert "0\n" not in before
    # Each look that does not show a shut gate leaves a line.
    box.sh(
        'sh -c \'while :; do nft list chain inet ecluse forward 2>&1 | grep -q "policy drop" || '
        "date >>/run/open; done' "
        ">/dev/null 2>&1 & echo $! >/run/looker",
        check=True,
    )
    done = dpkg(box, "-i /root/newer.deb")
    assert done.ok, done.out
    assert "CUT       care, gateway" in box.sh("ecluse status", check=True).out
    assert not box.sh("kill $(cat /run/looker); cat /run/open").out
    assert table(box) == before[0]
    assert pid(box) != before[1]
    assert pid(box, "ecluse-dns") not in {before[2], "0\n"}, (
        "the DNS gate's process is of the new version too"
    )
    assert box.sh("dpkg-query -W -f '${Version}' ecluse").out.startswith("9.0+deb")


def test_an_upgrade_while_cut_with_faulty_files_keeps_the_record(box: Container, newer: Path):
    cut(box)
    shutil.copy(newer, f"/proc/{box._leader}/root/root/newer.deb")
    box.write("/etc/ecluse/site.yaml", "site: [")
    done = dpkg(box, "-i /root/newer.deb")
    assert done.ok, done.out
    assert "/etc/ecluse/site.yaml:" in done.out
    assert "CUT       care, gateway" in box.sh("ecluse status", check=True).out


# -- removal


@pytest.mark.parametrize(
    "beside",
    [
        "true",
        "systemctl stop ecluse.socket ecluse",
        "systemctl stop ecluse.socket ecluse; nft delete table inet ecluse",
        f"systemctl stop ecluse.socket ecluse; rm -r {STATE}/*",
        f"systemctl stop ecluse.socket ecluse; echo x >{STATE}/boot.nft; nft flush ruleset",
    ],
    ids=["running", "stopped", "table gone", "records gone", "record damaged"],
)
def test_removal_and_purge_are_refused_while_cut(box: Container, beside: str):
    cut(box)
    box.sh(beside, check=True)
    before = (table(box), pid(box))
    for words in ("-r ecluse", "-P ecluse"):
        done = dpkg(box, words)
        assert not done.ok
        for way in (
            "ecluse open",
            "ECLUSE_REMOVE_WHILE_CUT=leave-cut",
            "ECLUSE_REMOVE_WHILE_CUT=open",
        ):
            assert way in done.out
    assert not dpkg(box, "-r ecluse", "yes").ok
    assert box.sh("dpkg-query -W -f '${db:Status-Status}' ecluse").out == "installed"
    if beside == "true":
        assert (table(box), pid(box)) == before
        assert is_shut(box)


def test_removal_that_leaves_it_cut_holds_without_the_package(box: Container):
    cut(box)
    before = table(box)
    done = dpkg(box, "-r ecluse", "leave-cut")
    assert done.ok, done.out
    assert "STILL SHUT" in done.out
    assert table(box) == before
    box.sh("systemctl restart nftables", check=True)
    assert is_shut(box)
    box.reboot()
    assert is_shut(box)
    assert (
        "ECLUSE_DNS_STATE_DIR=/"
        in box.sh("systemctl show -p Environment ecluse-left-cut.service").out
    )
    done = dpkg(box, "-P ecluse", "leave-cut")
    assert not done.ok
    assert "NOT purged" in done.out
    assert box.sh(f"ls {STATE}/audit.log").ok
    done = dpkg(box, "-i /root/ecluse.deb")
    assert done.ok, done.out
    assert "CUT       care, gateway" in box.sh("ecluse status", check=True).out
    assert not box.sh("ls /etc/systemd/system/*left-cut* /etc/ecluse/left-cut").ok


@pytest.mark.parametrize(
    "beside", ["true", "systemctl stop ecluse.socket ecluse"], ids=["running", "stopped"]
)
def test_removal_that_opens_is_recorded(box: Container, beside: str):
    cut(box)
    box.sh(beside, check=True)
    done = dpkg(box, "-r ecluse", "open")
    assert done.ok, done.out
    assert table(box) == ""
    assert box.sh(
        f"grep -h ECLUSE_REMOVE_WHILE_CUT=open {STATE}/audit.log /etc/ecluse/removal.log"
    ).out
    box.reboot()
    assert table(box) == ""
    done = dpkg(box, "-P ecluse")
    assert done.ok, done.out
    assert not box.sh(f"ls -d {STATE} /etc/ecluse/in-service").out
    assert box.sh("ls /etc/ecluse/site.yaml").ok


def test_removal_while_open_takes_the_table_and_purge_the_records(box: Container):
    done = dpkg(box, "-r ecluse")
    assert done.ok, done.out
    assert table(box) == ""
    assert box.sh(f"ls {STATE}/audit.log").ok
    assert not box.sh("ls /usr/lib/ecluse").ok
    done = dpkg(box, "-P ecluse")
    assert done.ok, done.out
    for directory in (STATE, "/var/lib/ecluse-dns", "/run/ecluse-dns"):
        assert not box.sh(f"ls -d {directory}").ok
    assert not box.sh("find /etc/systemd -name '*ecluse*' | grep .").ok
