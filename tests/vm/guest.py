"""What is laid over a virtual machine's disk.

The gateway's networks, the site's NAT and files, a prober. Nothing of ours.
"""

import tempfile
from pathlib import Path

from tests.lab import places, policy
from tests.lab.hospital import SITE_NAT
from tests.lab.places import Place

INTERFACES = (*(zone.interface for zone in places.ZONES), "wan0")
"""In the order of the machine's network cards."""

TOLD = "/dev/virtio-ports/org.ecluse.told"
"""What is written there the host has, even if the power goes in the next moment."""


def mac(interface: str) -> str:
    """Give the hardware address by which the interface gets its name."""
    return f"52:54:00:ec:1e:{INTERFACES.index(interface):02x}"


def files() -> dict[str, str]:
    """Give path -> text."""
    laid = {
        "/etc/sysctl.d/50-gateway.conf": (
            "net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n"
        ),
        # as Debian's own begins (and 'nat' is the name that iptables wants for itself): who
        # restarts nftables flushes everybody's rules
        "/etc/nftables.conf": (
            "#!/usr/sbin/nft -f\nflush ruleset\n"
            f"{SITE_NAT.replace('table ip nat', 'table ip site')}"
        ),
        # the agent writes a line for each question
        "/etc/systemd/system/qemu-guest-agent.service.d/quiet.conf": (
            "[Service]\nLogLevelMax=warning\n"
        ),
        "/usr/local/sbin/commander": _COMMANDER,
        # emulation on a busy host is twenty to a hundred times slower than a gateway: no time-out
        # is the product's fault
        "/etc/systemd/system.conf.d/patience.conf": (
            "[Manager]\nDefaultTimeoutStartSec=600\nDefaultTimeoutStopSec=60\n"
        ),
        "/usr/local/sbin/prober": _PROBER,
        "/etc/systemd/system/prober.service": _PROBER_UNIT,
    }
    for zone in places.ZONES:
        laid |= _network(zone.interface, zone.gateway, (16, 48))
    router = places.INTERNET_ROUTER
    laid |= _network(
        "wan0", places.GATEWAY_WAN, (28, 64), f"Gateway={router.v4}\nGateway={router.v6}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        policy.write(Path(folder))
        for path in sorted(Path(folder).rglob("*.yaml")):
            laid[f"/etc/ecluse/{path.relative_to(folder)}"] = path.read_text(encoding="utf-8")
    return laid


UNITS = ("nftables.service", "prober.service")
"""Enabled beside what the package enables."""


def _network(
    interface: str, place: Place, prefixes: tuple[int, int], more: str = ""
) -> dict[str, str]:
    folder = "/etc/systemd/network"
    return {
        f"{folder}/10-{interface}.link": (
            f"[Match]\nMACAddress={mac(interface)}\n[Link]\nName={interface}\n"
        ),
        f"{folder}/10-{interface}.network": (
            f"[Match]\nName={interface}\n"
            # as networks look at a gateway: up and addressed whether or not anybody is there
            "[Network]\nConfigureWithoutCarrier=yes\nIPv6AcceptRA=no\nLLMNR=no\nMulticastDNS=no\n"
            + more
            + f"[Address]\nAddress={place.v4}/{prefixes[0]}\n"
            + f"[Address]\nAddress={place.v6}/{prefixes[1]}\nDuplicateAddressDetection=none\n"
        ),
    }


# The gateway's own malware: from the first moment at which anything can run to the last, 400
# datagrams a second to where nothing is kept, in both families, now and then a connection, and a
# datagram to a kept partner. It takes a tenth of an emulated processor; the prober that counts
# milliseconds is outside the machine.
_PROBER = f"""\
import itertools, socket, time
AWAY = [(socket.AF_INET, {places.WEB.v4!r}), (socket.AF_INET6, {places.WEB.v6!r})]
KEPT = {places.HEALTH_DATA.v4!r}
socks = [(socket.socket(family, socket.SOCK_DGRAM), host) for family, host in AWAY]
for number in itertools.count():
    payload = b"prober %d" % number
    for sock, host in socks:
        try:
            sock.sendto(payload, socket.MSG_DONTWAIT, (host, 5001))
        except OSError:
            pass
    if number % 10 == 0:
        try:
            socks[0][0].sendto(payload, socket.MSG_DONTWAIT, (KEPT, 500))
        except OSError:
            pass
    if number % 200 == 0:
        for family, host in AWAY:
            with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
                try:
                    caller.connect((host, 8443))
                except OSError:
                    pass
    time.sleep(0.005)
"""

# Commands without a pause, and says before and after each what it is about to do and what was
# answered.
_COMMANDER = f"""\
import http.client, json, os, socket

TOGGLED = "/etc/ecluse/allowlist.d/90-toggled.yaml"
SERVICE = '''services:
  - {{name: toggled, title: Toggled, owner: Nobody, contact: "+33 1 99 00 00 00",
     criticality: vital, zones: [care], review: 2031-01-31,
     destinations: [{{to: [203.0.113.99], ports: [tcp/443]}}]}}
'''
told = os.open({TOLD!r}, os.O_WRONLY)


def tell(**what):
    os.write(told, json.dumps(what).encode() + b"\\n")


class Socket(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/ecluse/ecluse.sock")


def post(path, body):
    tell(begin=path, body=body)
    connection = Socket("localhost", timeout=300)
    connection.request("POST", path, json.dumps(body), {{"Content-Type": "application/json"}})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    outcome = {{key: answer[key] for key in ("generation", "unrecorded")}}
    tell(done=path, status=response.status, **outcome)


while True:
    post("/v1/level", {{"level": "cut"}})
    if os.path.exists(TOGGLED):
        os.unlink(TOGGLED)
    else:
        with open(TOGGLED, "w") as file:
            file.write(SERVICE)
    post("/v1/reload", {{}})
    post("/v1/level", {{"level": "open"}})
"""

_PROBER_UNIT = """\
[Unit]
Description=Sends what must not leave, from the earliest moment to the last
DefaultDependencies=no

[Service]
ExecStart=/usr/bin/python3 -S -E /usr/local/sbin/prober
Restart=always

[Install]
WantedBy=sysinit.target
"""
