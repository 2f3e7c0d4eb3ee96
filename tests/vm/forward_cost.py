"""What a kept packet costs on Debian's own kernels, in instructions.

`python -m tests.vm.forward_cost 12`, or 13.

The emulator advances the guest's clock by 4 ns for each instruction (QEMU, -icount shift=2), so the
ratios hold at any load of this machine. Not in it: caches, speculation and its mitigations.
Three namespaces in the guest; the sender's own system call carries a packet all the way through the
gateway. 64-byte frames, masqueraded; lower quartile of ROUNDS slices of PACKETS, the rulesets in
turns.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

from ecluse.config import load_policy
from ecluse.ruleset import flowtable, switch
from ecluse.ruleset.compile import compile_program
from tests.lab import places, policy
from tests.vm import images
from tests.vm.machine import Machine
from tests.vm.ward import Ward

ROUNDS, PACKETS = 15, 400
_ENDS = (places.CARE_HOST.v4, places.CARE.gateway.v4, places.GATEWAY_WAN.v4)
_ROUTER, _LABORATORY = places.INTERNET_ROUTER.v4, places.LABORATORY.v4

_INSIDE = f"""\
import json, os, socket, subprocess, sys, time
def sh(text):
    subprocess.run(["sh", "-euc", text], check=True)
def enter(name):
    import ctypes
    handle = os.open("/run/netns/" + name, 0)
    ctypes.CDLL(None).setns(handle, 0x40000000)
def load(text):
    command = ["ip", "netns", "exec", "gw", "nft", "-f", "-"]
    subprocess.run(command, input=text, text=True, check=True)
sh('''
for n in ins gw out; do ip netns add $n; ip -n $n link set lo up; done
ip link add care0 netns gw type veth peer name e0 netns ins
ip link add wan0 netns gw type veth peer name e0 netns out
for l in care0 wan0; do ip -n gw link set $l up; done
for n in ins out; do ip -n $n link set e0 up; done
ip -n ins addr add {_ENDS[0]}/16 dev e0; ip -n gw addr add {_ENDS[1]}/16 dev care0
ip -n gw addr add {_ENDS[2]}/28 dev wan0; ip -n out addr add {_ROUTER}/28 dev e0
ip -n out addr add {_LABORATORY}/32 dev lo
ip -n ins route add default via {_ENDS[1]}; ip -n gw route add default via {_ROUTER}
ip netns exec gw sysctl -qw net.ipv4.ip_forward=1
''')
load('''table ip site {{
  chain postrouting {{
    type nat hook postrouting priority 100;
    oifname "wan0" masquerade
  }}
}}
''')
sets = json.load(open("/root/rulesets.json"))
enter("out")
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(({_LABORATORY!r}, 5000))
enter("ins")
line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
line.connect(({_LABORATORY!r}, 5000))
line.settimeout(20)
data = b"x" * 22
costs = {{name: [] for name in sets}}
for turn in range({ROUNDS}):
    for name, text in sets.items():
        load(text)
        for _ in range(3):
            line.send(data)
            _, back = echo.recvfrom(100)
            echo.sendto(data, back)
            line.recv(100)
        for _ in range(20):
            line.send(data)
        before = time.monotonic_ns()
        for _ in range({PACKETS}):
            line.send(data)
        costs[name].append((time.monotonic_ns() - before) / {PACKETS})
        echo.setblocking(False)
        try:
            while True:
                echo.recv(100)
        except BlockingIOError:
            echo.setblocking(True)
print(json.dumps(costs))
"""


class CountingMachine(Machine):
    """A machine whose clock counts instructions; it has one processor."""

    def _arguments(self) -> list[str]:
        given = super()._arguments()
        given[given.index("tcg,thread=multi")] = "tcg,thread=single"
        given[given.index("-smp") + 1] = "1"
        return [*given, "-icount", "shift=2,sleep=off"]


def rulesets() -> dict[str, str]:
    """Give the rulesets that are compared; each takes the one before away."""
    with tempfile.TemporaryDirectory() as folder:
        policy.write(Path(folder))
        site = load_policy(Path(folder))
    program = compile_program(site, {}, 1)
    away = switch.NEW_TABLE
    at = {
        level: switch.table_text(program)
        + switch.switch_text(site, 1, dict.fromkeys(site.zone_names(), level))
        for level in ("open", "cut")
    }
    flows = flowtable.flowtable_text(["care0", "wan0"])
    return {
        "no table": away,
        "open": at["open"],
        "cut, chains": at["cut"],
        "flowtable alone": away + flows,
        "cut, flowtable": at["cut"] + flows,
    }


def main(number: str) -> None:
    """Measure on a Debian release, and print the ratios to no table."""
    suite = {one.number: one for one in images.SUITES}[number]
    with Ward() as ward:
        machine = CountingMachine(
            ward.directory / "counted",
            images.disk(suite, suite.deb()),
            home=ward.namespace("gw"),
            links=(),
        )
        try:
            machine.boot()
            machine.sh("systemctl stop prober ecluse.socket ecluse ecluse-dns systemd-timesyncd")
            machine.write("/root/rulesets.json", json.dumps(rulesets()))
            machine.write("/root/inside.py", _INSIDE)
            done = machine.sh("uname -r >&2; python3 /root/inside.py", check=True)
        finally:
            machine.power_cut()
    costs = {
        name: statistics.quantiles(slices, n=4)[0] for name, slices in json.loads(done.out).items()
    }
    base = costs["no table"]
    print(f"Linux {done.err.strip()}: ns a packet by the counted clock (4 ns an instruction)")
    for name, cost in costs.items():
        print(f"{name:16} {cost:8.0f}  speed {base / cost:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
