"""The unit of the DNS gate under a real systemd: what it may, that it answers, that it is replaced when it hangs."""

import pytest

from tests.vm.nspawn import Container
from tests.vm.test_units import ALLOWLIST, SITE, up

pytestmark = pytest.mark.vm

WILDCARD = ALLOWLIST.replace("203.0.113.10", '"*.operator.example"')
ASK = """
import socket, struct, sys
name = b"".join(bytes([len(p)]) + p.encode() for p in sys.argv[1].split(".")) + b"\\0"
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
sock.sendto(struct.pack("!6H", 7, 256, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1), ("127.0.0.1", 5300))
print("rcode", sock.recv(512)[3] & 15)
"""


def test_the_dns_gate_works_locked_down_and_is_replaced(container: Container):
    container.write("/etc/ecluse/site.yaml", SITE)
    container.write("/etc/ecluse/allowlist.d/10.yaml", WILDCARD)
    container.write("/root/ask.py", ASK)
    container.boot()
    container.sh("systemctl enable -q ecluse-dns.service")
    up(container)
    container.sh("until ecluse status | grep -q 'answers for what is kept'; do sleep 0.2; done", check=True)
    assert "rcode 5" in container.sh("python3 /root/ask.py nobody.example").out
    assert container.sh("systemd-analyze verify ecluse-dns.service").out == ""
    exposure = container.sh("systemd-analyze security ecluse-dns.service | tail -1").out
    assert float(exposure.split("service: ")[1].split()[0]) <= 2.0
    main = container.sh("systemctl show -P MainPID ecluse-dns").out.strip()
    status = container.sh(f"grep -E '^(Uid|CapEff|CapBnd)' /proc/{main}/status").out
    assert "0000000000001000" in status
    engine = container.sh("pgrep -x dnsmasq").out.strip()
    assert "CapEff:\t0000000000000000" in container.sh(f"cat /proc/{engine}/status").out
    # What somebody else puts into its sets goes: it hears the kernel's events, keeps its record and may write to the sets.
    container.sh("grep -q '^boot [0-9a-f-]' /run/ecluse-dns/learned.record", check=True)
    container.sh("nft add element inet ecluse dns_all_4 '{ 203.0.113.66 }'", check=True)
    container.sh(
        "timeout 10 sh -c 'while nft list set inet ecluse dns_all_4 | grep -q 203.0.113.66; do sleep 0.1; done'",
        check=True,
    )
    container.sh(
        "timeout 10 sh -c 'until ecluse status | grep -q \"203.0.113.66 in dns_all_4\"; do sleep 0.2; done'",
        check=True,
    )
    # Hung: the watchdog replaces it, and it works by its last orders.
    container.sh(f"kill -STOP {main}", check=True)
    container.sh(
        f"timeout 20 sh -c 'until [ \"$(systemctl show -P MainPID ecluse-dns)\" != {main} ]; do sleep 0.2; done'",
        check=True,
    )
    container.sh("systemctl stop ecluse")
    container.sh(
        "timeout 10 sh -c 'until python3 /root/ask.py nobody.example | grep -q \"rcode 5\"; do sleep 0.3; done'",
        check=True,
    )
