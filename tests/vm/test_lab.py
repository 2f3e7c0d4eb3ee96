"""The laboratory itself: what the other tests take for granted."""

from pathlib import Path

import pytest

from tests.vm.nspawn import Container

pytestmark = pytest.mark.vm


def test_a_container_boots_reboots_and_keeps_its_disk(container: Container):
    container.write("/etc/before", "written before the boot")
    container.boot()
    assert container.sh("cat /etc/before", check=True).out == "written before the boot"
    container.sh("echo kept > /var/lib/kept", check=True)
    container.reboot()
    assert container.sh("cat /var/lib/kept", check=True).out == "kept\n"
    assert len(container.sh("journalctl --list-boots --no-pager -q -o json").out.splitlines()) >= 1


def test_nothing_is_left_of_a_container_that_was_killed(root: Path):
    with Container(root) as box:
        box.boot()
        folder, leader = box.folder, box._leader
        assert box.sh("sleep 1000 >/dev/null 2>&1 & echo started").out == "started\n"
        groups = box._groups()
        box.kill9()
        assert not Path(f"/proc/{leader}").exists()
        box.boot()
    assert not folder.exists()
    assert not [group for group in groups if group.exists()]


def test_a_containers_writes_do_not_reach_what_it_started_from(container: Container, root: Path):
    container.boot()
    container.sh("rm /bin/ip /usr/bin/ip; echo spoilt > /etc/hostname", check=True)
    container.close()
    assert (root / "usr/bin/ip").exists() or (root / "bin/ip").exists()
    assert (root / "etc/hostname").read_text() != "spoilt\n"
