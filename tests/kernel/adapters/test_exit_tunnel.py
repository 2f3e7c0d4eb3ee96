"""The second lock at a device without Ethernet header: tun here, ppp and others likewise."""

import contextlib
import fcntl
import os
import select
import socket
import struct
import time
from dataclasses import replace

import pytest

from ecluse.ruleset.exit_judge import judge
from ecluse.ruleset.exit_values import ExitDevice
from tests.kernel.adapters.conftest import do, ip
from tests.kernel.adapters.test_exit_table import CUT, FRAMES, ISOLATE, gate, run, table

pytestmark = pytest.mark.kernel
__all__ = ["gate", "table"]


class Tunnel:
    """A tun device, which has no Ethernet header: what is sent here comes out at its program."""

    def __init__(self):
        self.far = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.far, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))  # TUNSETIFF
        do("sysctl -qw net.ipv6.conf.tun0.disable_ipv6=1")
        ip("link set tun0 up")
        self.near = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)

    def close(self):
        self.near.close()
        os.close(self.far)

    def passes(self, kind, packet):
        with contextlib.suppress(OSError):  # it is told of a drop
            self.near.sendto(packet, ("tun0", kind))
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            try:
                if os.read(self.far, 65536)[: len(packet)] == packet:
                    return True
            except BlockingIOError:
                if not select.select([self.far], [], [], 0.02)[0]:
                    return False  # it is there at once, or not at all
        return False


@pytest.fixture
def tunnel(namespace):
    made = Tunnel()
    yield made
    made.close()


@pytest.mark.parametrize("lock", [CUT, ISOLATE], ids=["cut", "isolate"])
def test_a_device_without_ethernet_header_is_judged_as_the_oracle_does(tunnel, table, lock):
    device = ExitDevice("tun0", ethernet=False)
    lock = replace(lock, devices=(device,))
    packets = {
        name: (kind, frame[14:])
        for name, frame in FRAMES.items()
        if (kind := int.from_bytes(frame[12:14], "big")) in {0x0800, 0x86DD}
        and "foreign mac" not in name
    }
    without = [name for name, each in packets.items() if not tunnel.passes(*each)]
    assert not without, "each is a road without the lock"
    run(table.apply(lock))
    judged = {name: judge(lock, device, each[1], each[0]) for name, each in packets.items()}
    wrong = {
        name: judged[name]
        for name, each in packets.items()
        if tunnel.passes(*each) != (judged[name] != "lost")
    }
    assert not wrong
    assert sum(one == "lost" for one in judged.values()) > 20
    assert not tunnel.passes(0x1234, b"whatever"), "nor what says that it is no IP"
    counts = run(table.read_table(lock)).counts[0]
    assert counts.lost.packets > 20
