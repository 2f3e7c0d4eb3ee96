"""Who is measured.

Ours by API and by command, the floor that nftables itself sets, and what people would use instead.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench import site
from tests.bench.gate import Gate, Run

OURS, FLOOR, SCRIPT, PRODUCT = "ours", "floor", "script", "product"
PACKAGES = ("nftables", "iptables", "ipset", "firewalld", "ufw", "conntrack")
_UNITS = ("firewalld", "ufw")
"""Of these packages, the ones whose service Debian enables when they are installed."""
_PROGRAMS = (
    *("nft", "iptables-nft-restore", "iptables-legacy-restore", "ipset"),
    *("firewall-cmd", "dbus-daemon", "ufw", "conntrack"),
)


def missing() -> list[str]:
    """Name the programs that are not installed."""
    return [program for program in _PROGRAMS if not shutil.which(program)]


def install() -> dict[str, str]:
    """Install the peers' packages where they are missing; give package -> version, or "missing"."""
    if missing() and shutil.which("apt-get"):
        new = [unit for unit in _UNITS if _version(unit) == "missing"]
        # No service is started by the installation (RUNLEVEL, invoke-rc.d(8)): the machine's own
        # rules stay as they are.
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (
            ("update", "-q"),
            ("install", "-q", "-y", "--no-install-recommends", *PACKAGES),
        ):
            subprocess.run(
                ["apt-get", *command],
                env=environment,
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
        # Nor by the next boot: firewalld would be.
        if new and shutil.which("systemctl"):
            subprocess.run(
                ["systemctl", "--quiet", "disable", *new], check=False, capture_output=True
            )
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    query = ["dpkg-query", "-W", "-f=${db:Status-Status} ${Version}", package]
    words = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    return words[1] if len(words) == 2 and words[0] == "installed" else "missing"


@dataclass(frozen=True, slots=True)
class Contender:
    """prepare: bring a gateway with n entries to open.

    cut, reopen: as named. command: what is run, for the report.

    shares: contenders of the same name here use one gateway. most: the largest size that it is
    tried with.
    """

    name: str
    kind: str
    command: str
    prepare: Callable[[Gate, int], None]
    cut: Callable[[Gate], Run]
    reopen: Callable[[Gate], object]
    shares: str
    most: int = 100_000


# -- ours


def _ours(gate: Gate, size: int) -> None:
    gate.start_daemon(site.allowlist(site.addresses(size)))


def back(gate: Gate) -> Run:
    """Roll back by the API."""
    run, change = gate.ask("/v1/rollback", {"reason": "benchmark"})
    if not change["verified"]:
        raise RuntimeError(f"not verified: {change}")
    return run


def _quiet(gate: Gate) -> Run:
    run = back(gate)
    gate.wait_for_purge()
    return run


# -- nft


def _elements(size: int) -> str:
    return ", ".join(f"{address} . 443" for address in site.addresses(size))


_LOOK_UP = "ct original ip daddr . ct original proto-dst @kept accept"


def _table(size: int, chain: str) -> str:
    kept = f"set kept {{ type ipv4_addr . inet_service; elements = {{ {_elements(size)} }}\n }}"
    return f"table inet site\ndelete table inet site\ntable inet site {{\n{kept}\n{chain}\n}}\n"


def _guarded(name: str, head: str = "") -> str:
    return (
        f"chain {name} {{ {head}\n meta nfproto ipv4 ct protocol {{ tcp, udp }} {_LOOK_UP}\n"
        " drop\n }"
    )


def _nft_whole(gate: Gate, size: int) -> None:
    gate.write("whole.nft", _table(size, _guarded("cut", "type filter hook forward priority -10;")))
    gate.write("none.nft", "table inet site\ndelete table inet site\n")


def _nft_switch(gate: Gate, size: int) -> None:
    base = "chain gate { type filter hook forward priority -10;\n }"
    gate.launch("nft", "-f", gate.write("load.nft", _table(size, _guarded("cut") + "\n" + base)))
    gate.write("cut.nft", "flush chain inet site gate\nadd rule inet site gate goto cut\n")
    gate.write("open.nft", "flush chain inet site gate\n")


# -- iptables with ipset


def _iptables(gate: Gate, size: int) -> None:
    lines = ["create kept hash:ip,port maxelem 262144", "flush kept"]
    lines += [f"add kept {address},tcp:443" for address in site.addresses(size)]
    sets = gate.write("kept.ipset", "\n".join(lines) + "\n")
    rules = (
        "-A FORWARD -m set --match-set kept dst,dst -j ACCEPT\n"
        "-A FORWARD -m set --match-set kept src,src -j ACCEPT\n"
    )
    gate.write("cut.rules", f"*filter\n:FORWARD DROP [0:0]\n{rules}COMMIT\n")
    gate.write("open.rules", "*filter\n:FORWARD ACCEPT [0:0]\n-F FORWARD\nCOMMIT\n")
    gate.launch("ipset", "-exist", "restore", "-f", sets)
    gate.launch("iptables-nft-restore", "-n", str(gate.directory / "open.rules"))


def _iptables_open(gate: Gate) -> Run:
    return gate.launch("iptables-nft-restore", "-n", str(gate.directory / "open.rules"))


# -- firewalld, on a system bus of its own

_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
_POLICY = """<?xml version="1.0" encoding="utf-8"?>
<policy priority="-1" target="ACCEPT">
  <ingress-zone name="trusted"/><egress-zone name="external"/>
  <rule family="ipv4"><destination ipset="kept"/><accept/></rule>
</policy>
"""


def firewalld_zones(gate: Gate) -> None:
    """Write its zones: what is inside is trusted, the link to the internet is external."""
    inside = '<interface name="care0"/><interface name="admin0"/><interface name="guest0"/>'
    gate.write("firewalld/zones/trusted.xml", f'{_HEAD}<zone target="ACCEPT">{inside}</zone>\n')
    gate.write(
        "firewalld/zones/external.xml",
        f'{_HEAD}<zone><interface name="wan0"/><masquerade/></zone>\n',
    )


def _firewalld(gate: Gate, size: int) -> None:
    entries = "".join(f"<entry>{address}</entry>\n" for address in site.addresses(size))
    options = '<option name="maxelem" value="262144"/>'
    gate.write(
        "firewalld/ipsets/kept.xml", f'{_HEAD}<ipset type="hash:ip">{options}\n{entries}</ipset>\n'
    )
    gate.write("firewalld/policies/inside-out.xml", _POLICY)
    firewalld_zones(gate)
    start_firewalld(gate)


def start_firewalld(gate: Gate) -> None:
    """Start firewalld on a system bus of its own, with the files of `firewalld/` in the gate's
    directory.
    """
    gate.shell(
        f"cp -a /etc/firewalld {gate.directory}/etc; mount -t tmpfs none /etc/firewalld; "
        f"cp -a {gate.directory}/etc/. /etc/firewalld/; "
        f"cp -a {gate.directory}/firewalld/. /etc/firewalld/; "
        "mount -t tmpfs none /run; mkdir -p /run/dbus; dbus-daemon --system --fork; "
        "firewalld --nofork >/run/firewalld.log 2>&1 & "
        'n=0; until firewall-cmd --state >/dev/null 2>&1; do n=$((n+1)); [ "$n" -lt 600 ]; '
        "sleep 0.1; done"
    )


def _panic_off(gate: Gate) -> Run:
    return gate.launch("firewall-cmd", "--panic-off")


_FIREWALLD_CUT = (
    "firewall-cmd --permanent --policy inside-out --set-target DROP; firewall-cmd --reload; "
    "conntrack -F"
)
_FIREWALLD_OPEN = (
    "firewall-cmd --permanent --policy inside-out --set-target ACCEPT; firewall-cmd --reload"
)

# -- ufw


def own_ufw(gate: Gate) -> None:
    """Give ufw files of its own."""
    gate.shell(
        f"cp -a /etc/ufw {gate.directory}/ufw; mount --bind {gate.directory}/ufw /etc/ufw; cp -a "
        f"/lib/ufw {gate.directory}/libufw; mount --bind {gate.directory}/libufw /lib/ufw; cp "
        f"/etc/default/ufw {gate.directory}/default; mount --bind {gate.directory}/default "
        "/etc/default/ufw; mount -t tmpfs none /run"
    )


def _ufw(gate: Gate, size: int) -> None:
    own_ufw(gate)
    default = gate.directory / "default"
    text = default.read_text().replace(
        'DEFAULT_FORWARD_POLICY="DROP"', 'DEFAULT_FORWARD_POLICY="ACCEPT"'
    )
    default.write_text(text)
    rules = "".join(
        f"### tuple ### route:allow tcp 443 {address} any 0.0.0.0/0 in\n"
        f"-A ufw-user-forward -p tcp -d {address} --dport 443 -j ACCEPT\n\n"
        for address in site.addresses(size)
    )
    path = gate.directory / "ufw/user.rules"
    path.write_text(path.read_text().replace("### RULES ###\n", f"### RULES ###\n\n{rules}", 1))
    gate.shell("ufw --force enable")


_UFW_CUT = "ufw default deny routed; conntrack -F"

CONTENDERS = (
    Contender(
        "Écluse, API call", OURS, "POST /v1/level", _ours, lambda g: g.level("cut"), _quiet, "ours"
    ),
    Contender(
        "Écluse, whole command",
        OURS,
        "ecluse cut",
        _ours,
        lambda g: g.launch(*g.cli_argv("cut")),
        _quiet,
        "ours",
    ),
    Contender(
        "nft, switch alone",
        FLOOR,
        "nft -f (flush chain, add rule goto)",
        _nft_switch,
        lambda g: g.launch("nft", "-f", f"{g.directory}/cut.nft"),
        lambda g: g.launch("nft", "-f", f"{g.directory}/open.nft"),
        "nft switch",
    ),
    Contender(
        "iptables-restore over a loaded ipset",
        FLOOR,
        "iptables-nft-restore -n",
        _iptables,
        lambda g: g.launch("iptables-nft-restore", "-n", f"{g.directory}/cut.rules"),
        _iptables_open,
        "iptables",
    ),
    Contender(
        "nft, whole ruleset",
        SCRIPT,
        "nft -f (table with its set)",
        _nft_whole,
        lambda g: g.launch("nft", "-f", f"{g.directory}/whole.nft"),
        lambda g: g.launch("nft", "-f", f"{g.directory}/none.nft"),
        "nft whole",
    ),
    Contender(
        "ipset restore, iptables-restore",
        SCRIPT,
        "ipset restore; iptables-nft-restore -n",
        _iptables,
        lambda g: g.shell(
            f"ipset -exist restore -f {g.directory}/kept.ipset; "
            f"iptables-nft-restore -n {g.directory}/cut.rules"
        ),
        _iptables_open,
        "iptables",
    ),
    Contender(
        "firewalld, panic (keeps nothing)",
        PRODUCT,
        "firewall-cmd --panic-on",
        _firewalld,
        lambda g: g.launch("firewall-cmd", "--panic-on"),
        _panic_off,
        "firewalld",
    ),
    Contender(
        "firewalld, policy with ipset",
        PRODUCT,
        _FIREWALLD_CUT,
        _firewalld,
        lambda g: g.shell(_FIREWALLD_CUT),
        lambda g: g.shell(_FIREWALLD_OPEN),
        "firewalld",
    ),
    Contender(
        "ufw",
        PRODUCT,
        _UFW_CUT,
        _ufw,
        lambda g: g.shell(_UFW_CUT),
        lambda g: g.shell("ufw default allow routed"),
        "ufw",
        most=1_000,
    ),
)
