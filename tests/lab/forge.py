"""Packets that a machine of the lab writes with addresses that are not its own, straight onto its
link.
"""

import sys
from ipaddress import ip_address

from tests.kernel import simulator_packets as b
from tests.lab.hospital import Hospital

_SEND = """
import socket, sys
link, kind, mac, *packets = sys.argv[1:]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
for packet in packets:
    wire.sendto(bytes.fromhex(packet), (link, int(kind), 0, 0, bytes.fromhex(mac)))
"""
_TALK = """
import json, socket, sys
kind, source, port, to, there, patience = sys.argv[1:]
family = socket.AF_INET6 if ":" in to else socket.AF_INET
line = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
line.bind((source, int(port)))
line.settimeout(float(patience))
try:
    line.connect((to, int(there)))
    line.send(b"x" * 64)
    print(json.dumps(len(line.recv(2000)) > 0))
except OSError as error:
    print(json.dumps(False))
"""
_LINKS = {
    "care": ("eth0", "care0"),
    "admin": ("eth0", "admin0"),
    "guests": ("eth0", "guest0"),
    "inet": ("uplink", "wan0"),
}


def packet(kind: str, source: str, port: int, to: str, there: int, turn: int = b.OPENING) -> bytes:
    """Build one packet (kinds: see `simulator_packets.message`)."""
    return b.message(kind, b.Ends(ip_address(source), ip_address(to), port, there), turn, 7)


def send(hospital: Hospital, role: str, *packets: bytes, mac: str = "") -> None:
    """Have a machine of a role send these packets to the gateway, whatever source they have.

    mac: the gateway's on that link, where it is a virtual machine.
    """
    link, ours = _LINKS[role]
    mac = mac or hospital.shell("gw", f"cat /sys/class/net/{ours}/address").strip()
    mac = mac.replace(":", "")
    for one in packets:
        kind = 0x86DD if one[0] >> 4 == 6 else 0x0800
        done = hospital.run(role, [sys.executable, "-c", _SEND, link, str(kind), mac, one.hex()])
        assert done.returncode == 0, done.stderr


def talk(
    hospital: Hospital,
    role: str,
    source: str,
    port: int,
    to: str,
    there: int,
    kind: str = "udp",
    patience: float = 1.0,
) -> bool:
    """Say something from a port of one's own, and whether it was echoed."""
    done = hospital.run(
        role, [sys.executable, "-c", _TALK, kind, source, str(port), to, str(there), str(patience)]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() == "true"
