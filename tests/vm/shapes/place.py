"""Three network namespaces, outside, gateway and inside, and the cables between them."""

import contextlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ROLES = ("out", "gw", "in")
KEPT = {4: "203.0.113.10", 6: "2001:db8:ff::10"}
OTHER = {4: "203.0.113.20", 6: "2001:db8:ff::20"}
ROUTER = {4: "192.0.2.1", 6: "2001:db8:0:1::1"}
GATEWAY = {4: "192.0.2.2", 6: "2001:db8:0:1::2"}
LAN = {4: "10.10.0.1", 6: "2001:db8:10::1"}
HOST = {4: "10.10.0.9", 6: "2001:db8:10::9"}
SUBNETS = ("10.10.0.0/16", "2001:db8:10::/48")


class Place:
    """Where a shape stands. Everything that it started or made goes with `close`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._extra: list[str] = []

    def namespace(self, role: str) -> str:
        return f"{self.name}-{role}"

    def make(self, *roles: str) -> None:
        """Make namespaces that route and never wait for duplicate addresses."""
        for role in roles:
            self._extra.append(role)
            run("ip", "netns", "add", self.namespace(role))
            self.ip(role, "link set lo up")
            self.sh(
                role,
                "cd /proc/sys/net; for i in all default; do echo 0 >ipv6/conf/$i/accept_dad;"
                " echo 0 >ipv4/conf/$i/rp_filter; echo 1 >ipv6/conf/$i/forwarding; done;"
                " echo 1 >ipv4/ip_forward; echo 0 >ipv4/icmp_ratelimit; echo 0 >ipv6/icmp/ratelimit"
                "; echo '0 2147483647' >ipv4/ping_group_range || :",
            )

    def ip(self, role: str, lines: str) -> None:
        """Have `ip -batch` do these lines, given with `;` or new lines between them."""
        text = "\n".join(line.strip() for line in lines.replace(";", "\n").splitlines())
        run("ip", "-n", self.namespace(role), "-batch", "-", stdin=text + "\n")

    def sh(self, role: str, script: str) -> str:
        return run("ip", "netns", "exec", self.namespace(role), "sh", "-ec", script)

    def spawn(
        self, role: str, argv: Sequence[str], env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program there; what it says is in FOLDER/NUMBER.log."""
        with (self.folder / f"{len(self._running)}.log").open("wb") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace(role), *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
            )
        self._running.append(process)
        return process

    def said_by(self, program: str) -> str:
        """Give all that a program said that was started by that name."""
        number = next(
            n
            for n, one in enumerate(self._running)
            if Path(one.args[4]).name == program  # type: ignore[index]
        )
        return (self.folder / f"{number}.log").read_text(errors="replace")

    def said(self) -> str:
        """Give the last words of all that was started."""
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-600:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        for role in self._extra:
            space = self.namespace(role)
            with contextlib.suppress(RuntimeError):
                for pid in run("ip", "netns", "pids", space).split():
                    run("kill", "-9", pid)
            with contextlib.suppress(RuntimeError):
                run("ip", "netns", "del", space)


def run(*argv: str, stdin: str = "", timeout: float = 120.0) -> str:
    """Run a program; give its output. RuntimeError with its words when it fails."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(argv)}: exit {done.returncode}: {done.stderr[-800:]}{done.stdout[-400:]}"
            + (f"\n-- given:\n{stdin}" if stdin else "")
        )
    return done.stdout


def until(what: str, true, seconds: float = 180.0) -> None:
    """Wait until `true()`; RuntimeError naming `what` when that takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not after {seconds:.0f} s")
        time.sleep(0.2)


def cable(place: Place, one: str, other: str) -> None:
    """Lay a cable: `cable(place, "gw:wan0", "out:far")`."""
    (role, name), (far, peer) = one.split(":"), other.split(":")
    # made in the near one: 6.1 wants the name to be free where `ip` runs, too
    far_space = place.namespace(far)
    place.ip(role, f"link add {name} type veth peer name {peer} netns {far_space}")
    place.ip(role, f"link set {name} up")
    place.ip(far, f"link set {peer} up")


def cables(place: Place) -> None:
    """Make the three namespaces; lay the WAN's cable and the LAN's."""
    place.make(*ROLES)
    cable(place, "gw:wan0", "out:far")
    cable(place, "gw:lan0", "in:eth0")


def dress(
    place: Place,
    wan: str = "wan0",
    lan: str = "lan0",
    far: str = "far",
    eth: str = "eth0",
    families: Sequence[int] = (4, 6),
) -> None:
    """Give addresses and routes of both families."""
    lines = dict.fromkeys(ROLES, "")
    for family, lan_bits, wan_bits, one in ((4, 16, 28, 32), (6, 48, 64, 128)):
        if family not in families:
            continue
        if wan:
            lines["gw"] += f"addr add {GATEWAY[family]}/{wan_bits} dev {wan}\n"
            lines["gw"] += f"route add default via {ROUTER[family]}\n"
            lines["out"] += f"addr add {ROUTER[family]}/{wan_bits} dev {far}\n"
            lines["out"] += f"route add {SUBNETS[family // 5]} via {GATEWAY[family]}\n"
        if lan:
            lines["gw"] += f"addr add {LAN[family]}/{lan_bits} dev {lan}\n"
            lines["in"] += f"addr add {HOST[family]}/{lan_bits} dev {eth}\n"
            lines["in"] += f"route add default via {LAN[family]}\n"
        for address in (KEPT[family], OTHER[family]):
            lines["out"] += f"addr add {address}/{one} dev lo\n"
    for role, text in lines.items():
        place.ip(role, text)
