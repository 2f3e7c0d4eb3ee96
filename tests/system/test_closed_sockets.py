"""What the kernel sends for sockets that have gone carries no user: ours pass, others' do not."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.other_user import other_user

pytestmark = pytest.mark.system

FAMILIES = (4, 6)
STRANGER = 64321
"""A user of the gateway that is neither the daemon's (root's, in the lab) nor the DNS proxy's."""
UNSENT = 300_000
BESIDE_THE_LABS = """
table inet nat {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    iifname "uplink" meta l4proto { tcp, udp } th dport 53 redirect to :10053
  }
}
"""
"""The lab's own resolver has every port 53 outside."""
RESOLVER = places.DNS_SERVER

_SERVER = """
import socket, sys, threading, time
after = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), after.set()), daemon=True).start()
def udp(s):
    while True:
        print("datagram", s.recvfrom(9)[0].decode(), flush=True)
def serve(line):
    line.settimeout(3)
    name = line.recv(8).decode()
    print("opened", name, flush=True)
    total = 0
    if name.startswith("slow"):
        after.wait()
    try:
        if name.startswith("big"):
            line.sendall(bytes(400_000))
        while data := (time.sleep(0.02), line.recv(20_000))[1]:
            total += len(data)
    except OSError as error:
        print("broken", name, type(error).__name__, flush=True)
    print("got", name, total, flush=True)
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 10053))
threading.Thread(target=udp, args=(s,), daemon=True).start()
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
s.bind(("::", 10053))
s.listen()
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""
_CLIENT = """
import socket, sys
address, port, name, kind = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
s.settimeout(2)
s.bind(("", int(port)))
try:
    s.connect((address, 53))
    s.sendall(name.encode().ljust(8))
    print("connected", flush=True)
    if kind == "wait":
        sys.stdin.readline()
    if kind == "udp":
        pass
    elif kind == "big":
        s.recv(100)
    else:
        s.sendall(bytes(300_000))
    s.close()
    print("closed", flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""


@pytest.fixture
def daemon(hospital: Hospital) -> Iterator[Daemon]:
    site = policy.site(resolvers=[RESOLVER.v4, RESOLVER.v6])
    kept = policy.service(
        "health", "vital", ["care"], [{"to": places.HEALTH_DATA.v4, "ports": ["tcp/443"]}]
    )
    started = hospital.daemon(site=site, allowlist={"10-all.yaml": [kept]}).start()
    yield started
    started.stop()


class Server:
    """The resolver outside: counts what each connection, known by its name, brings."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def read_on(self) -> None:
        """Have it read what the connections named `slow` bring."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def says(self, *wanted: str) -> str:
        """Wait until it says a line that begins so; it ends by itself after an hour."""
        while line := self._process.stdout.readline():
            if line.startswith(wanted):
                return line.strip()
        raise AssertionError("the resolver ended")


@contextmanager
def _started(hospital: Hospital, role: str, *argv: str) -> Iterator[subprocess.Popen]:
    command = ["ip", "netns", "exec", hospital.namespace(role), *argv]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def server(hospital: Hospital) -> Iterator[Server]:
    hospital.nft(BESIDE_THE_LABS, role="inet")
    with _started(hospital, "inet", sys.executable, "-c", _SERVER) as process:
        made = Server(process)
        made.says("ready")
        yield made


def client(name: str, family: int, kind: str = "send", port: int = 0, uid: int = 0) -> list[str]:
    """Give the command of a program on the gateway that talks to the resolver."""
    who = other_user(uid) if uid else ()
    return [*who, sys.executable, "-c", _CLIENT, RESOLVER.address(family), str(port), name, kind]


def said(hospital: Hospital, *words, **more) -> list[str]:
    return hospital.run("gw", client(*words, **more)).stdout.split()


def refused_here(daemon: Daemon) -> list[str]:
    """Give the refused flows whose source is the gateway."""
    here = {places.GATEWAY_WAN.v4, places.GATEWAY_WAN.v6}
    found = json.dumps(daemon.api("GET", "/v1/refused").body)
    return [one for one in here if one in found]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_that_our_own_closed_sockets_have_to_send_arrives(
    hospital: Hospital, daemon: Daemon, server: Server, family: int
):
    assert said(hospital, "o", family) == ["connected", "closed"]
    assert server.says("got o") == f"got o        {UNSENT}", "positive control: at open"
    assert said(hospital, "slow", family) == ["connected", "closed"]
    before = client("early", family, "wait")
    with _started(hospital, "gw", *before) as early:
        assert early.stdout.readline() == "connected\n"
        server.says("opened early")
        daemon.level("isolate")
        server.read_on()
        assert server.says("got slow") == f"got slow     {UNSENT}", "closed before the cut"
        assert said(hospital, "late", family) == ["connected", "closed"]
        assert server.says("got late") == f"got late     {UNSENT}"
        early.stdin.write("\n")
        early.stdin.flush()
        assert server.says("got early") == f"got early    {UNSENT}", "one that was open at the cut"
    # An answer larger than the window, closed after a few bytes of it: the kernel resets the rest.
    assert said(hospital, "big", family, "big") == ["connected", "closed"]
    assert server.says("broken big") == "broken big      ConnectionResetError"
    assert refused_here(daemon) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_another_user_has_no_way_to_the_resolver_by_an_old_connection(
    hospital: Hospital, daemon: Daemon, server: Server, family: int
):
    assert said(hospital, "o", family, uid=STRANGER) == ["connected", "closed"]
    server.says(f"got o        {UNSENT}")
    assert said(hospital, "slow", family, uid=STRANGER) == ["connected", "closed"]
    server.says("opened slow")
    daemon.level("cut")
    server.read_on()
    left = int(server.says("got slow").split()[2])
    assert left < UNSENT // 2, "closed before the cut, most of it unsent"
    assert said(hospital, "new", family, uid=STRANGER) != ["connected", "closed"]
    # The very ports of a connection of ours, which has its label.
    assert said(hospital, "ours", family, "udp", 40053) == ["connected", "closed"]
    assert server.says("datagram ") == "datagram ours"
    said(hospital, "theirs", family, "udp", 40053, STRANGER)
    assert said(hospital, "after", family, "udp", 40053) == ["connected", "closed"]
    assert server.says("datagram ") == "datagram after", "and not what the other user said"
    assert refused_here(daemon), "it is listed"
