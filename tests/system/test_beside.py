"""Beside the site's own firewall.

What it denies stays denied, what it allows of ours is kept, its reloads open nothing.
"""

import fcntl
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench import contenders
from tests.bench.gate import Helper, Run, launched
from tests.lab import places
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

ALLOWED = (places.LABORATORY.v4, places.MAINTENANCE.v4)
"""What the site's rules let out.

We keep the laboratory and not the maintenance; of what the site denies, the treasury.
"""


class Site:
    """The gateway's root shell, with mounts of its own: the site's firewall is run from it."""

    def __init__(self, hospital: Hospital) -> None:
        self.directory = hospital.directory
        self._helper = Helper(hospital.namespace("gw"), str(ROOT / "tests/bench/launcher.py"))

    def shell(self, script: str) -> Run:
        return launched(self._helper, "sh", "-eu", "-c", script)

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def close(self) -> None:
        self._helper.close()


# -- the firewalls


def _plain(site: Site) -> None:
    site.write(
        "site.nft",
        "table ip site\ndelete table ip site\ntable ip site {\n chain forward {\n"
        "  type filter hook forward priority filter; policy drop;\n"
        "  ct state established,related accept\n"
        f"  ip daddr {{ {', '.join(ALLOWED)} }} accept\n }}\n}}\n",
    )
    site.shell(f"nft -f {site.directory}/site.nft")


def _iptables(flavour: str) -> Callable[[Site], None]:
    def prepare(site: Site) -> None:
        allowed = "".join(f"-A FORWARD -d {address} -j ACCEPT\n" for address in ALLOWED)
        established = "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
        head = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"
        site.write("site.rules", f"{head}{established}{allowed}COMMIT\n")
        site.shell(f"{flavour}-restore {site.directory}/site.rules")

    return prepare


_CONTAINERS = """
for n in 1 2 3 4 5; do
  {0} -N DOCKER-$n; {0} -I FORWARD 1 -j DOCKER-$n; {0} -A DOCKER-$n -i wan0 -o docker0 -j ACCEPT
  {0} -t nat -N DOCKER-$n; {0} -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
  {0} -t nat -D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE; {0} -t nat -X DOCKER-$n
  {0} -D FORWARD -j DOCKER-$n; {0} -F DOCKER-$n; {0} -X DOCKER-$n
done
"""


def _firewalld(site: Site) -> None:
    rules = "".join(
        f'<rule family="ipv4"><destination address="{address}"/><accept/></rule>'
        for address in ALLOWED
    )
    site.write(
        "firewalld/policies/inside-out.xml",
        '<?xml version="1.0" encoding="utf-8"?>\n<policy priority="-1" target="DROP">'
        f'<ingress-zone name="trusted"/><egress-zone name="external"/>{rules}</policy>\n',
    )
    contenders.firewalld_zones(site)
    contenders.start_firewalld(site)


def _ufw(site: Site) -> None:
    contenders.own_ufw(site)
    site.shell("; ".join(["ufw --force enable", *(f"ufw route allow to {one}" for one in ALLOWED)]))


@dataclass(frozen=True)
class Firewall:
    """prepare: bring it up with its rules.

    again: what a colleague, or a program, does to it while we are cut.
    """

    prepare: Callable[[Site], None]
    again: str


FIREWALLS = {
    "nft": Firewall(_plain, "nft -f {directory}/site.nft; nft -f {directory}/site.nft"),
    "iptables-nft": Firewall(
        _iptables("iptables-nft"),
        "iptables-nft-restore {directory}/site.rules;" + _CONTAINERS.replace("{0}", "iptables-nft"),
    ),
    "iptables-legacy": Firewall(
        _iptables("iptables-legacy"),
        "iptables-legacy-restore {directory}/site.rules;"
        + _CONTAINERS.replace("{0}", "iptables-legacy"),
    ),
    "firewalld": Firewall(_firewalld, "firewall-cmd --reload; firewall-cmd --complete-reload"),
    "ufw": Firewall(_ufw, "ufw reload; ufw --force disable; ufw --force enable"),
}


@pytest.fixture(scope="session")
def firewalls() -> None:
    """Have them all.

    What is missing is installed, by one worker at a time, and no service of it is left enabled.
    """
    with (Path(tempfile.gettempdir()) / "ecluse-firewalls.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if contenders.missing():
            contenders.install()
    missing = contenders.missing()
    if missing:
        pytest.fail(f"apt-get could not install {', '.join(missing)}", pytrace=False)


@pytest.fixture
def site(firewalls: None, hospital: Hospital) -> Iterator[Site]:
    made = Site(hospital)
    yield made
    made.close()


@pytest.mark.parametrize("name", FIREWALLS)
def test_what_the_site_denies_stays_denied_and_what_it_reloads_opens_nothing(
    hospital: Hospital, site: Site, daemon: Daemon, name: str
):
    firewall = FIREWALLS[name]
    assert hospital.admin.tcp(places.TREASURY.v4), "positive control"
    firewall.prepare(site)
    # Open: we deny nothing, the site's rules do.
    assert hospital.care.tcp(places.LABORATORY.v4)
    assert hospital.care.tcp(places.MAINTENANCE.v4)
    assert not hospital.admin.tcp(places.TREASURY.v4, timeout=0.3)
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    with hospital.sniff() as witness:
        line = hospital.care.open(places.LABORATORY.v4)
        kept = hospital.care.stream(places.LABORATORY.v4, 5000, rate=200)
        leaking = hospital.care.stream(places.MAINTENANCE.v4, 5000, rate=1000)  # 1 ms
        time.sleep(0.2)
        assert witness.count(destination=places.MAINTENANCE.v4), (
            "positive control: the witness sees it"
        )
        daemon.level("cut")
        cut = time.time_ns()
        assert hospital.care.tcp(places.LABORATORY.v4)
        assert not hospital.admin.tcp(places.TREASURY.v4, timeout=0.3), (
            "kept by us, denied by the site"
        )
        assert not hospital.care.tcp(places.MAINTENANCE.v4, timeout=0.3), (
            "allowed by the site, cut by us"
        )
        site.shell(firewall.again.replace("{directory}", str(site.directory)))
        assert line.talk()
        assert hospital.care.tcp(places.LABORATORY.v4)
        assert not hospital.admin.tcp(places.TREASURY.v4, timeout=0.3)
        end = time.monotonic() + 5
        while kept.report().silent_ms > 50:
            assert time.monotonic() < end, "the kept stream goes on"
            time.sleep(0.05)
        assert leaking.stop(grace=0).sent > 200
        left = witness.seen(since=cut, from_gateway=True)
        assert {one.destination for one in left} <= {places.LABORATORY.v4, places.DNS_SERVER.v4}, (
            left
        )
        report = kept.stop()
    assert not report.rig_drops
    print(
        f"{name}: the kept stream lost {report.lost} of {report.sent} while the site's firewall "
        "was set up again"
    )
    status = daemon.status()
    assert status["in_step"]
    assert status["last_tamper"] is None, "it touched its own rules alone"
    line.close()
