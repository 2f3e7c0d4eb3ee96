"""The unit of the DNS gate under a real systemd.

What it may, that it answers, that it is replaced when it hangs.
"""

import pytest

from tests.vm.nspawn import Container
from tests.vm.test_units import ALLOWLIST, SITE, is_shut, up

pytestmark = pytest.mark.vm

WILDCARD = ALLOWLIST.replace("203.0.113.10", '"*.operator.example"')
ASK = """
import socket, struct, sys
name = b"".join(bytes([len(p)]) + p.encode() for p in sys.argv[1].split(".")) + b"\\0"
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
question = struct.pack("!6H", 7, 256, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)
sock.sendto(question, ("127.0.0.1", 5300))
print("rcode", sock.recv(512)[3] & 15)
"""


def test_the_dns_gate_works_locked_down_and_is_replaced(container: Container):
    container.write("/etc/ecluse/site.yaml", SITE)
    container.write("/etc/ecluse/allowlist.d/10.yaml", WILDCARD)
    container.write("/root/ask.py", ASK)
    container.boot()
    container.sh("systemctl enable -q ecluse-dns.service")
    up(container)
    container.sh(
        "until ecluse status | grep -q 'answers for what is kept'; do sleep 0.2; done", check=True
    )
    assert "rcode 5" in container.sh("python3 /root/ask.py nobody.example").out
    assert container.sh("systemd-analyze verify ecluse-dns.service").out == ""
    exposure = container.sh("systemd-analyze security ecluse-dns.service | tail -1").out
    assert float(exposure.split("service: ")[1].split()[0]) <= 2.0
    main = container.sh("systemctl show -P MainPID ecluse-dns").out.strip()
    status = container.sh(f"grep -E '^(Uid|CapEff|CapBnd)' /proc/{main}/status").out
    assert "0000000000001000" in status
    engine = container.sh("pgrep -x dnsmasq").out.strip()
    assert "CapEff:\t0000000000000000" in container.sh(f"cat /proc/{engine}/status").out
    # What somebody else puts into its sets goes: it hears the kernel's events, keeps its record and
    # may write to the sets.
    container.sh("grep -q '^boot [0-9a-f-]' /run/ecluse-dns/learned.record", check=True)
    container.sh("nft add element inet ecluse dns_all_4 '{ 203.0.113.66 }'", check=True)
    container.sh(
        (
            "timeout 10 sh -c 'while nft list set inet ecluse dns_all_4 | grep -q 203.0.113.66; "
            "do sleep 0.1; done'"
        ),
        check=True,
    )
    container.sh(
        (
            'timeout 10 sh -c \'until ecluse status | grep -q "203.0.113.66 in dns_all_4"; '
            "do sleep 0.2; done'"
        ),
        check=True,
    )
    # Hung: the watchdog replaces it, and it works by its last orders.
    container.sh(f"kill -STOP {main}", check=True)
    container.sh(
        (
            f'timeout 20 sh -c \'until [ "$(systemctl show -P MainPID ecluse-dns)" != {main} ]; '
            "do sleep 0.2; done'"
        ),
        check=True,
    )
    container.sh("systemctl stop ecluse")
    container.sh(
        (
            'timeout 10 sh -c \'until python3 /root/ask.py nobody.example | grep -q "rcode 5"; '
            "do sleep 0.3; done'"
        ),
        check=True,
    )


LEARNED = """\
# What the DNS gate of ecluse learned: {"boot": "another", "clock": 1, "date": 1}
add element inet ecluse dns_svc_laboratory_4 { 203.0.113.77 expires 1800s }
add element inet ecluse dns_all_4 { 203.0.113.77 expires 1800s }
add element inet ecluse dns_svc_laboratory_6 { 2001:db8::77 expires 90s }
add element inet ecluse dns_svc_given_up_4 { 203.0.113.78 expires 1800s }
add element inet ecluse dns_all_4 { 203.0.113.79 expires 1800s }; flush ruleset
add element inet filter dns_all_4 { 203.0.113.80 expires 1800s }
delete table inet ecluse
flush ruleset
"""


def test_what_was_learned_is_back_before_the_network_without_any_process(container: Container):
    container.write("/etc/ecluse/site.yaml", SITE)
    container.write("/etc/ecluse/allowlist.d/10.yaml", WILDCARD)
    container.boot()
    up(container)
    container.sh("ecluse cut", check=True)
    container.sh(
        "systemctl disable -q ecluse.service ecluse.socket; systemctl stop ecluse", check=True
    )
    container.write("/var/lib/ecluse-dns/learned.nft", LEARNED)
    container.reboot()
    found = container.sh(
        (
            "for s in dns_svc_laboratory_4 dns_all_4 dns_svc_laboratory_6; "
            "do nft list set inet ecluse $s; done"
        ),
        check=True,
    ).out
    assert found.count("203.0.113.77 ") == 2
    assert "2001:db8::77 " in found
    assert "203.0.113.79" not in found
    assert is_shut(container)
    assert "dns_svc_given_up_4 was not taken" in container.journal()
