"""A network namespace of the test's own, entered by the test itself: it has no name and ends with
its last user.
"""

import asyncio
import ctypes
import os
import socket
import subprocess

import pytest

from ecluse.kernel.conntrack import NfConntrack
from ecluse.kernel.nft_firewall import NftFirewall
from ecluse.kernel.rtnl_links import RtnlLinks

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)

PROGRAM = """
table inet ecluse {
  counter svc_lab { }
  counter refused_out { }
  set k1_inside { type ifname; flags interval; elements = { "lan0", "vlan1*" } }
  map k1_hosts4 { type inet_proto . ipv4_addr . inet_service : counter
    elements = { 6 . 203.0.113.10 . 443 : "svc_lab" } }
  map k1_nets4 { type inet_proto . ipv4_addr . inet_service : counter; flags interval
    elements = { 6 . 198.51.100.0/24 . 443-450 : "svc_lab" } }
  map k1_from { type ifname : verdict; elements = { "lan0" : goto k1_gate.care } }
  set k1_granted { type ipv4_addr; flags timeout; elements = { 203.0.113.77 timeout 1h } }
  set refused4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service; size 65535
    flags dynamic,timeout; timeout 1d; counter; }
  set refused6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service; size 65535
    flags dynamic,timeout; timeout 1d; counter; }
  set refused_hosts4 { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1d; counter; }
  set refused_hosts6 { type ipv6_addr; size 2; flags dynamic,timeout; timeout 1d; counter; }
  chain forward { type filter hook forward priority filter - 10; policy accept;
    goto k1_forward
  }
  chain output { type filter hook output priority filter - 10; policy accept;
    goto k1_output
  }
  chain k1_forward {
    comment "program one"
    iifname @k1_inside oifname @k1_inside accept
    iifname vmap @k1_from
    goto k1_refuse
  }
  chain k1_output {
    ct state new counter name svc_lab
    counter
    limit rate 1000/second burst 5 packets
    ip daddr { 192.0.2.1, 192.0.2.2 } drop
    goto k1_gate.care
  }
  chain k1_gate.care {
    goto k1_at.open
  }
  chain k1_at.open {
    udp dport 9 goto k1_refuse
    accept
  }
  chain k1_at.cut {
    meta nfproto ipv4 ct protocol { 6, 17 } counter name \\
      ct protocol . ct original ip daddr . ct original proto-dst map @k1_hosts4 accept
    goto k1_refuse
  }
  chain k1_refuse {
    counter name refused_out
    meta nfproto ipv4 update @refused_hosts4 { ip saddr timeout 1d counter }
    meta nfproto ipv6 update @refused_hosts6 { ip6 saddr timeout 1d counter }
    meta nfproto ipv4 meta l4proto { tcp, udp, sctp } update @refused4 \\
      { ip saddr . ip daddr . meta l4proto . th dport timeout 1d counter }
    meta nfproto ipv6 meta l4proto { tcp, udp, sctp } update @refused6 \\
      { ip6 saddr . ip6 daddr . meta l4proto . th dport timeout 1d counter }
    drop
  }
}
"""


def run(*argv, text=None):
    """Run a program in the test's namespace, as somebody else would; give its pid."""
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        _, error = process.communicate((text or "").encode())
    assert process.returncode == 0, f"{argv}: {error.decode()}"
    return process.pid


def do(*lines):
    """Run each line as a command."""
    for line in lines:
        run(*line.split())


def ip(words):
    """Run ip(8) with these words."""
    run("ip", *words.split())


async def gather(stream, wanted):
    """Read a stream until everything wanted has been said."""
    seen = []
    async with asyncio.timeout(10):
        while not set(wanted) <= set(seen):
            seen.append(await anext(stream))
    return seen


def nft(text):
    """Change the ruleset as somebody else would."""
    return run("nft", "-f", "-", text=text)


def send_udp(source, destination, port, times=1):
    """Send datagrams over the loopback; the sender's error about a refused one is ignored."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for _ in range(times):
            try:
                sender.sendto(b"x", (destination, port))
            except PermissionError:
                continue


class Heart:
    """Beats in the event loop, and knows the longest time between two beats, in seconds of `clock`.

    With time.thread_time it is how long the loop's own thread was held by something, whatever else
    the machine does.
    """

    def __init__(self, clock):
        self.clock, self.longest, self.beats = clock, 0.0, 0

    async def _beat(self):
        while True:
            began = self.clock()
            await asyncio.sleep(0)
            self.longest = max(self.longest, self.clock() - began)
            self.beats += 1

    async def __aenter__(self):
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()


@pytest.fixture
def namespace():
    """Enter a new network namespace with its loopback up and a few addresses on it; threads begun
    in it are in it.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert LIBC.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        run("ip", "link", "set", "lo", "up")
        for address in (
            "10.10.0.5/32",
            "10.10.0.6/32",
            "203.0.113.10/32",
            "2001:db8::5/128",
            "2001:db8::10/128",
        ):
            run("ip", "addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
        yield
    finally:
        assert LIBC.setns(home, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(home)


@pytest.fixture
def firewall(namespace):
    made = NftFirewall()
    yield made
    made.close()


@pytest.fixture
def conntrack(namespace):
    made = NfConntrack()
    yield made
    made.close()


@pytest.fixture
def links(namespace):
    made = RtnlLinks()
    yield made
    made.close()


@pytest.fixture
def gateway(namespace):
    """A gateway with one interface outside and one of zone care."""
    do(
        "ip link add wan0 type veth peer name far0",
        "ip link add care0 type veth peer name in0",
        "ip link set wan0 up",
        "ip link set care0 up",
    )
