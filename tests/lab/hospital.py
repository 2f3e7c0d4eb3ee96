"""The hospital: zones, a gateway, an internet, each a network namespace, joined by veth pairs.

    care   eth0 --- care0  \\
    admin  eth0 --- admin0  > gw   wan0 --- uplink  inet
    guests eth0 --- guest0 /

Addresses and names stand in `places`. The gateway forwards both families, masquerades IPv4 and
forwards one port, in its own table `ip nat` as the site's firewall would. The internet is one
namespace in which every outside address is local: one server process answers on all of them, on the
ports of `places`.
"""

import atexit
import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ecluse.ruleset import exit_text
from tests.lab import netns, places
from tests.lab.daemon import Daemon
from tests.lab.dnsgate import DnsGate
from tests.lab.hosts import Host, Worker
from tests.lab.places import Place
from tests.lab.sniffer import Sniffer

ROLES = ("care", "admin", "guests", "gw", "inet")

# Duplicate address detection would hold IPv6 back for a second; TCP's tail loss probe would send
# segments again that were not lost, and retransmissions are what tells loss of TCP.
_SYSCTL = """
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
echo 0 > /proc/sys/net/ipv4/tcp_early_retrans
"""
_ROLE_SYSCTL = {
    "gw": (
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n"
    ),
    "inet": "echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind\n",
}

SITE_NAT = f"""
table ip nat {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    iifname "wan0" tcp dport {places.FORWARDED_PORT} \
      dnat to {places.CARE_SERVER.v4}:{places.SERVER_PORT}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname "wan0" masquerade
  }}
}}
"""


def _addresses(interface: str, place: Place, prefixes: tuple[int, int]) -> str:
    return (
        f"addr add {place.v4}/{prefixes[0]} dev {interface}\n"
        f"addr add {place.v6}/{prefixes[1]} dev {interface} nodad\n"
    )


def _batches() -> dict[str, str]:
    """Give, role by role, what `ip -batch` has to do there once the links exist."""
    batches = dict.fromkeys(ROLES, "link set lo up\n")
    for zone in places.ZONES:
        batches["gw"] += f"link set {zone.interface} up\n" + _addresses(
            zone.interface, zone.gateway, (16, 48)
        )
        batches[zone.role] += "link set eth0 up\n"
        for machine in zone.machines:
            batches[zone.role] += _addresses("eth0", machine, (16, 48))
        batches[zone.role] += (
            f"route add default via {zone.gateway.v4}\nroute add default via {zone.gateway.v6}\n"
        )
        batches["inet"] += f"route add {zone.subnets[1]} via {places.GATEWAY_WAN.v6}\n"
    router = places.INTERNET_ROUTER
    batches["gw"] += "link set wan0 up\n" + _addresses("wan0", places.GATEWAY_WAN, (28, 64))
    batches["gw"] += f"route add default via {router.v4}\nroute add default via {router.v6}\n"
    outside = "".join(f"route add local {network} dev lo\n" for network in places.OUTSIDE_NETWORKS)
    uplink = "link set uplink up\n" + _addresses("uplink", router, (28, 64))
    # routes need the uplink's addresses first
    batches["inet"] = batches["inet"].replace(
        "link set lo up\n", "link set lo up\n" + uplink + outside
    )
    return batches


class Hospital:
    """Builds the lab on entry and removes every trace of it on exit, also after an exception or a
    signal.

    care, care_server, admin, management, guest: machines inside. gateway: the gateway itself.
    partner, stranger: machines outside that connect in. `directory` is for files of this run.
    """

    def __init__(self) -> None:
        self.prefix = netns.unique()
        self.directory = Path(tempfile.gettempdir()) / self.prefix
        self._workers: dict[str, Worker] = {}
        self._sniffers: list[Sniffer] = []
        self._daemons: list[Daemon] = []
        self._gates: list[DnsGate] = []
        self._lock = threading.Lock()
        self._open = False

    # -- building and removing

    def __enter__(self) -> Self:
        self._open = True
        atexit.register(self.close)
        _exit_on_sigterm()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything; harmless the second time."""
        if not self._open:
            return
        self._open = False
        for gate in self._gates:
            with contextlib.suppress(Exception):
                gate.kill9()
        for daemon in self._daemons:
            with contextlib.suppress(Exception):
                daemon.kill9()
        for closing in [
            *(s.close for s in self._sniffers),
            *(w.stop for w in self._workers.values()),
        ]:
            with contextlib.suppress(Exception):
                closing()
        netns.remove(self.prefix)
        atexit.unregister(self.close)

    def _build(self) -> None:
        # Others than root have to reach the daemon's socket below.
        self.directory.mkdir()
        self.directory.chmod(0o755)
        add = "".join(f"netns add {self.namespace(role)}\n" for role in ROLES)
        netns.run("ip", "-batch", "-", text=add)
        for role in ROLES:
            self.shell(role, _SYSCTL + _ROLE_SYSCTL.get(role, ""))
        self._join(
            [(zone.interface, "eth0", zone.role) for zone in places.ZONES]
            + [("wan0", "uplink", "inet")]
        )
        for role, batch in _batches().items():
            if role != "gw":
                netns.run("ip", "-n", self.namespace(role), "-batch", "-", text=batch)
        self._dress_gateway()
        self._server.do("listen", protocol="tcp", ports=places.TCP_PORTS)
        self._server.do("listen", protocol="udp", ports=places.UDP_PORTS)
        self._server.do("listen", protocol="raw", ports=places.RAW_PROTOCOLS)
        self.dns(places.NAMES)
        self.care_server.listen("tcp", places.FORWARDED_PORT, places.SERVER_PORT)

    def _join(self, ends: list[tuple[str, str, str]]) -> None:
        """Join the gateway with the others.

        `(the gateway's interface, the other's, the other's role)` each.
        """
        gateway = self.namespace("gw")
        links = "".join(
            (
                f"link add {ours} netns {gateway} type veth peer name {theirs} netns "
                f"{self.namespace(role)}\n"
            )
            for ours, theirs, role in ends
        )
        netns.run("ip", "-batch", "-", text=links)

    def _dress_gateway(self) -> None:
        netns.run("ip", "-n", self.namespace("gw"), "-batch", "-", text=_batches()["gw"])
        self.nft(SITE_NAT)

    # -- acting in it

    def namespace(self, role: str) -> str:
        """Give the host-level name of a role's namespace (`ip netns exec NAME ...`)."""
        return f"{self.prefix}-{role}"

    def shell(self, role: str, script: str) -> str:
        """Run a shell script in a namespace; give what it printed. RuntimeError when it failed."""
        return netns.run("ip", "netns", "exec", self.namespace(role), "sh", "-eu", text=script)

    def nft(self, text: str, role: str = "gw") -> str:
        """Load a ruleset (`nft -f -`) into a namespace.

        RuntimeError with nft's words when it was refused.
        """
        return netns.run("ip", "netns", "exec", self.namespace(role), "nft", "-f", "-", text=text)

    def forget_gate(self) -> None:
        """Take our tables out of the kernel, as a reboot does."""
        self.nft("delete table inet ecluse\n" + exit_text.REMOVAL)

    def dns(self, zone: dict) -> None:
        """Have the DNS server answer from this zone from now on (shape: inside/wire.dns_answer)."""
        self._server.do("dns", zone=zone)

    def dns_asked(self) -> list[tuple[str, str]]:
        """Give what the DNS server outside was asked for since the last look: names and types."""
        return [tuple(one) for one in self._server.do("asked")]

    def dns_gate(self, daemon: Daemon) -> DnsGate:
        """Make the process of the DNS gate that works for a daemon, not started.

        It ends with the hospital.
        """
        gate = DnsGate(self.namespace("gw"), daemon)
        self._gates.append(gate)
        return gate

    def sniff(self, role: str = "inet", interface: str = "uplink") -> Sniffer:
        """Start a witness: on the internet side, or with ("care", "eth0") inside."""
        sniffer = Sniffer(self.namespace(role), interface)
        self._sniffers.append(sniffer)
        return sniffer

    def daemon(self, **options) -> Daemon:
        """Make a daemon for this gateway, not started (see Daemon for the options)."""
        name = f"d{len(self._daemons)}"
        daemon = Daemon(self.namespace("gw"), self.directory / name, **options)
        self._daemons.append(daemon)
        return daemon

    def worker(self, name: str, role: str) -> Worker:
        """Give the process of that name in a role's namespace, started when first asked for."""
        with self._lock:
            if name not in self._workers:
                self._workers[name] = Worker(self.namespace(role))
            return self._workers[name]

    def host(self, place: Place, role: str) -> Host:
        """Give the machine at a place; the place has to be an address of the role's namespace."""
        return Host(place, self.worker(f"client-{role}", role), self._server)

    @property
    def _server(self) -> Worker:
        return self.worker("server", "inet")

    @property
    def care(self) -> Host:
        return self.host(places.CARE_HOST, "care")

    @property
    def care_server(self) -> Host:
        return self.host(places.CARE_SERVER, "care")

    @property
    def admin(self) -> Host:
        return self.host(places.ADMIN_HOST, "admin")

    @property
    def management(self) -> Host:
        return self.host(places.MANAGEMENT, "admin")

    @property
    def guest(self) -> Host:
        return self.host(places.GUEST_HOST, "guests")

    @property
    def gateway(self) -> Host:
        return self.host(places.GATEWAY_WAN, "gw")

    @property
    def partner(self) -> Host:
        return self.host(places.PARTNER, "inet")

    @property
    def stranger(self) -> Host:
        return self.host(places.STRANGER, "inet")

    def run(self, role: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a program in a namespace; its exit code is for the caller to judge."""
        command = ["ip", "netns", "exec", self.namespace(role), *argv]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )


def _exit_on_sigterm() -> None:
    """Have SIGTERM end this process by SystemExit, so that the namespaces go.

    Leave another handler as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
