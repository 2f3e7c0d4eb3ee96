"""The units under a real systemd, in a container.

What the daemon may, what a boot without it comes to, what restarts do.
"""

import re
from collections.abc import Iterator

import pytest

from tests.vm.nspawn import Container

pytestmark = pytest.mark.vm

SITE = """\
site: chu-example
title: CHU d'Example
zones:
  - name: care
    title: Care
    interfaces: [lan0]
    subnets: [10.10.0.0/16, "2001:db8:10::/48"]
lifeline:
  management:
    networks: [10.10.9.0/24]
    ports: [tcp/22]
  presets: [dhcp, nd]
resolvers: [192.0.2.53]
"""
ALLOWLIST = """\
services:
  - name: laboratory
    title: Laboratory
    owner: Biology
    contact: "+33 1 99 00 00 00"
    criticality: vital
    zones: [care]
    destinations:
      - to: [203.0.113.10]
        ports: [tcp/443]
"""
STATE = "/var/lib/ecluse"
FORWARD = "nft list chain inet ecluse forward"
BROKEN = {
    "torn": f"truncate -s -80 {STATE}/boot.nft",
    "torn after its program": f"sed -i '/^include/q' {STATE}/boot.nft",
    "another byte": f"sed -i 's/care/cara/' {STATE}/boot.nft",
    "emptied": f": > {STATE}/boot.nft",
    "deleted": f"rm {STATE}/boot.nft",
    "its program torn": f"for f in {STATE}/ruleset/program-*; do truncate -s -80 $f; done",
    "its program deleted": f"rm {STATE}/ruleset/program-*",
    "closed.nft too": f"truncate -s 10 {STATE}/boot.nft {STATE}/closed.nft",
    "all of it": f"rm -r {STATE}",
}


@pytest.fixture
def gateway(container: Container) -> Iterator[Container]:
    """A gateway with a site's files, its daemon up and open."""
    container.write("/etc/ecluse/site.yaml", SITE)
    container.write("/etc/ecluse/allowlist.d/10.yaml", ALLOWLIST)
    container.boot()
    up(container)
    yield container


def up(box: Container) -> None:
    """Have the daemon up and answering.

    `--no-block` and the question after it: a first start may go on already.
    """
    box.sh(
        (
            "systemctl enable -q ecluse.service ecluse.socket ecluse-boot.service; "
            "systemctl start ecluse"
        ),
        check=True,
    )
    assert "kernel    in step" in box.sh("ecluse status", check=True).out


def levels(box: Container) -> str:
    return box.sh("ecluse status", check=True).out.split("since")[0].split("\n", 1)[1].strip()


def is_shut(box: Container) -> bool:
    return "policy drop" in box.sh(FORWARD).out


def handle(box: Container) -> str:
    """Give the table's handle: another one means that it was deleted and made again."""
    found = re.search(
        r"table inet ecluse \{ # handle (\d+)", box.sh("nft -a list table inet ecluse").out
    )
    return found[1] if found else ""


def moment(box: Container, unit: str, what: str) -> int:
    return int(box.sh(f"systemctl show --value -p {what} {unit}", check=True).out)


def test_verified_and_locked_down(gateway: Container):
    units = "ecluse.service ecluse.socket ecluse-boot.service nftables.service"
    verified = gateway.sh(f"systemd-analyze verify --man=no {units} 2>&1")
    assert (verified.code, verified.out) == (0, "")
    said = gateway.sh(
        "systemd-analyze security --no-pager ecluse.service | tail -n 1", check=True
    ).out
    assert float(re.search(r"([0-9.]+) OK", said)[1]) <= 2.0


def test_the_daemon_is_a_user_with_one_capability(gateway: Container):
    status = gateway.sh(
        "cat /proc/$(systemctl show --value -p MainPID ecluse)/status", check=True
    ).out
    found = dict(line.split(":", 1) for line in status.splitlines())
    net_admin = f"{1 << 12:016x}"
    assert {found[key].strip() for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {net_admin}
    assert found["Uid"].split()[1] == gateway.sh("id -u eclused", check=True).out.strip() != "0"
    assert (found["NoNewPrivs"].strip(), found["Seccomp"].strip()) == ("1", "2")
    assert gateway.sh(f"stat -c '%U %a' {STATE} {STATE}/audit.log").out.split() == [
        "eclused",
        "750",
        "eclused",
        "600",
    ]
    assert gateway.sh("stat -c '%U %G %a' /run/ecluse/ecluse.sock").out.split() == [
        "root",
        "ecluse",
        "666",
    ]


def test_who_may_look_command_and_neither(gateway: Container):
    gateway.sh(
        "useradd -G ecluse looker; useradd -G ecluse-operators oncall; useradd stranger", check=True
    )
    assert gateway.sh("setpriv --reuid looker --init-groups ecluse status").ok
    assert gateway.sh("setpriv --reuid looker --init-groups ecluse cut").code == 3
    assert gateway.sh("setpriv --reuid stranger --init-groups ecluse status").code == 3
    assert not is_shut(gateway)
    assert gateway.sh("setpriv --reuid oncall --init-groups ecluse cut").ok
    assert is_shut(gateway)
    audited = gateway.sh("ecluse audit show; ecluse audit verify", check=True).out
    assert all(name in audited for name in ("looker", "stranger", "oncall"))


def test_a_stop_and_a_start_leave_the_kernel_alone(gateway: Container):
    gateway.sh("ecluse cut", check=True)
    before = handle(gateway)
    gateway.sh("systemctl stop ecluse.socket ecluse", check=True)
    assert (is_shut(gateway), handle(gateway)) == (True, before)
    gateway.sh("systemctl restart ecluse", check=True)
    assert (levels(gateway), handle(gateway)) == ("CUT       care, gateway", before)


def test_cut_then_boot_without_the_daemon(gateway: Container):
    gateway.sh("ecluse cut", check=True)
    gateway.sh("systemctl mask ecluse.service ecluse.socket", check=True)
    gateway.reboot()
    assert is_shut(gateway)
    assert "203.0.113.10" in gateway.sh("nft list table inet ecluse").out, (
        "what is kept is kept without it too"
    )
    boot = moment(gateway, "ecluse-boot.service", "ExecMainExitTimestampMonotonic")
    assert moment(gateway, "nftables.service", "ActiveEnterTimestampMonotonic") <= boot
    assert boot <= moment(gateway, "network-pre.target", "ActiveEnterTimestampMonotonic")
    assert boot <= moment(gateway, "systemd-networkd.service", "ExecMainStartTimestampMonotonic")
    gateway.sh("systemctl unmask ecluse.service ecluse.socket", check=True)
    up(gateway)
    assert levels(gateway) == "CUT       care, gateway"


def test_a_gateway_that_was_never_in_service_boots_open(container: Container):
    container.boot()
    assert "table inet ecluse" not in container.sh("nft list tables", check=True).out
    assert (
        container.sh("systemctl is-failed ecluse-boot ecluse ecluse.socket")
        .out.split()
        .count("failed")
        == 0
    )


@pytest.mark.parametrize("how", BROKEN)
def test_a_cut_whose_boot_ruleset_is_broken_boots_closed(gateway: Container, how: str):
    gateway.sh("ecluse cut", check=True)
    gateway.sh("systemctl mask ecluse.service ecluse.socket", check=True)
    gateway.sh(BROKEN[how], check=True)
    gateway.reboot()
    assert is_shut(gateway)
    assert "was loaded instead" in gateway.sh("cat /run/ecluse/closed-at-boot").out
    assert "ecluse-boot:" in gateway.sh("journalctl -b -u ecluse-boot --no-pager").out
    gateway.sh("systemctl unmask ecluse.service ecluse.socket", check=True)
    up(gateway)
    assert levels(gateway) == ("CUT       care, gateway")
    assert not gateway.sh("test -e /run/ecluse/closed-at-boot").ok, "the precaution is over"


@pytest.mark.parametrize("how", ["torn", "deleted", "closed.nft too"])
def test_a_broken_boot_ruleset_of_an_open_gate_does_not_isolate_a_hospital(
    gateway: Container, how: str
):
    gateway.sh(f"systemctl mask ecluse.service ecluse.socket; {BROKEN[how]}", check=True)
    gateway.reboot()
    assert is_shut(gateway), "until the records were read"
    gateway.sh("systemctl unmask ecluse.service ecluse.socket", check=True)
    up(gateway)
    assert levels(gateway) == "OPEN      care, gateway"
    assert "closed at boot as a precaution" in " ".join(gateway.sh("ecluse status").out.split())


def test_nftables_service_leaves_the_gate_alone(gateway: Container):
    rules = "flush ruleset\ntable inet site {\n\tset NAME { type ipv4_addr; }\n}\n"
    gateway.write("/etc/nftables.conf", rules.replace("NAME", "first"))
    gateway.sh("systemctl restart nftables; ecluse cut", check=True)
    before = handle(gateway)
    gateway.write("/etc/nftables.conf", rules.replace("NAME", "second"))
    for action in ("reload", "restart", "stop", "start"):
        gateway.sh(f"systemctl {action} nftables", check=True)
        assert (is_shut(gateway), handle(gateway)) == (True, before), action
    site = gateway.sh("nft list table inet site", check=True).out
    assert "set second" in site
    assert "set first" not in site, "what 'flush ruleset' is there for"
    gateway.write("/etc/nftables.conf", "flush ruleset\ntable inet site {\n\tnonsense\n}\n")
    assert not gateway.sh("systemctl reload nftables").ok
    assert gateway.sh("nft list table inet site").out == site, "whole or not at all"
    assert "tamper" not in gateway.sh("ecluse status", check=True).out
    gateway.sh("nft flush ruleset", check=True)
    assert "tamper" in gateway.sh("sleep 1; ecluse status", check=True).out, (
        "the measurement can fail"
    )


def test_a_hung_daemon_is_ended_by_the_watchdog_and_the_gate_stands(gateway: Container):
    gateway.write(
        "/run/systemd/system/ecluse.service.d/t.conf",
        "[Service]\nWatchdogSec=2\nTimeoutAbortSec=2\n",
    )
    gateway.sh("systemctl daemon-reload; systemctl restart ecluse; ecluse cut", check=True)
    before, pid = handle(gateway), gateway.sh("systemctl show --value -p MainPID ecluse").out
    gateway.sh(f"kill -STOP {pid}", check=True)
    waited = (
        "for i in $(seq 100); do [ $(systemctl show --value -p NRestarts ecluse) -ge 1 ] && exit "
        "0; sleep .2; done; exit 1"
    )
    gateway.sh(waited, check=True)
    assert "CUT" in gateway.sh("ecluse status", check=True).out, (
        "the socket held the question until it was up"
    )
    assert (is_shut(gateway), handle(gateway)) == (True, before)


def test_a_daemon_that_crashes_at_once_is_tried_for_ever(gateway: Container):
    gateway.sh("ecluse cut", check=True)
    before = handle(gateway)
    gateway.write(
        "/run/systemd/system/ecluse.service.d/t.conf",
        "[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=20ms\n",
    )
    gateway.sh("systemctl daemon-reload; systemctl restart --no-block ecluse", check=True)
    waited = (
        "for i in $(seq 100); do [ $(systemctl show --value -p NRestarts ecluse) -ge 25 ] && "
        "exit 0; sleep .2; done; exit 1"
    )
    gateway.sh(waited, check=True)
    assert (is_shut(gateway), handle(gateway)) == (True, before)
    gateway.sh("rm -r /run/systemd/system/ecluse.service.d; systemctl daemon-reload", check=True)
    assert "CUT" in gateway.sh("sleep 1; ecluse status", check=True).out


def test_closed_without_the_daemon_and_recorded_by_it(gateway: Container):
    gateway.sh("systemctl mask --now ecluse.service ecluse.socket", check=True)
    done = gateway.sh("ecluse cut --no-daemon --reason drill")
    assert (done.code, is_shut(gateway)) == (0, True), done
    gateway.reboot()
    assert is_shut(gateway)
    gateway.sh("systemctl unmask ecluse.service ecluse.socket", check=True)
    up(gateway)
    assert levels(gateway) == "CUT       care, gateway"
    assert "cut without the daemon" in gateway.sh(f"grep drill {STATE}/audit.log", check=True).out
    assert gateway.sh(f"find {STATE} ! -user eclused").out == "", (
        "the daemon can replace what root wrote"
    )


def test_a_table_that_was_saved_with_the_sites_rules_is_not_taken_for_the_recorded_gate(
    gateway: Container,
):
    gateway.sh(
        (
            "(echo 'flush ruleset'; nft list ruleset) > /etc/nftables.conf; "
            "systemctl enable -q nftables"
        ),
        check=True,
    )
    gateway.sh("ecluse cut; systemctl mask ecluse.service ecluse.socket", check=True)
    gateway.reboot()
    assert is_shut(gateway), "it was saved while everything was open"


HOSTILE = "x\ntable ip real # \nid>/ran/e;s/a/b"


def test_the_name_of_a_table_is_never_a_program(gateway: Container):
    """A table's name is free text; the site's rules are loaded by root."""
    named = (
        "import sys; sys.path.insert(0, '/usr/lib/ecluse/python')\n"
        "from ecluse.kernel.netlink import *\n"
        "from ecluse.kernel import read_table as t\n"
        f"name = text_attribute(1, {HOSTILE!r})\n"
        "with Netlink(NETLINK_NETFILTER) as n:\n"
        "    kind = netfilter_kind(t.NFNL_SUBSYS_NFTABLES, 0)\n"
        "    n.transaction(t.NFNL_SUBSYS_NFTABLES, [(kind, 0x400, netfilter_header(2) + name)])\n"
    )
    gateway.write("/root/named.py", named)
    gateway.sh("python3 /root/named.py; nft add table ip a/b; nft add table ip gone", check=True)
    gateway.sh("ecluse cut", check=True)
    before = handle(gateway)
    gateway.write("/etc/nftables.conf", "flush ruleset\ntable inet site {\n}\n")
    gateway.sh("systemctl restart nftables", check=True)
    assert not gateway.sh("test -e /ran").ok
    listed = gateway.sh("nft list tables", check=True).out
    assert "table inet site" in listed
    assert "table ip gone" not in listed
    assert "table ip a/b" not in listed
    assert (is_shut(gateway), handle(gateway)) == (True, before)


def test_a_boot_does_not_wait_for_what_stands_in_a_files_place(gateway: Container):
    gateway.sh("ecluse cut; systemctl mask ecluse.service ecluse.socket", check=True)
    gateway.sh(
        (
            f"cd {STATE}; for f in ruleset/program-*; do rm $f; mkfifo $f; done; rm closed.nft; "
            "mkfifo closed.nft"
        ),
        check=True,
    )
    gateway.reboot(patience=60)
    assert is_shut(gateway)


def test_flush_of_a_family_and_of_a_file_that_is_included(gateway: Container):
    gateway.sh("ecluse cut", check=True)
    before = handle(gateway)
    gateway.write("/etc/nftables.conf", "flush ruleset inet\ntable inet site {\n}\n")
    gateway.sh("nft add table ip other; systemctl restart nftables", check=True)
    assert (is_shut(gateway), handle(gateway)) == (True, before)
    gateway.write("/etc/more.nft", "flush ruleset\ntable inet site {\n}\n")
    gateway.write("/etc/nftables.conf", 'include "/etc/more.nft"\n')
    gateway.sh("systemctl stop ecluse.socket ecluse; systemctl restart nftables", check=True)
    assert is_shut(gateway), "put back without the daemon"
