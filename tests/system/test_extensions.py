"""A site that does not use an extension loads nothing of it; a reload that turns it on does."""

from pathlib import Path

import pytest

from ecluse.extensions import EXTENSIONS
from tests.lab import policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.system.test_dns_gate import ALLOWLIST, ROOM, wait_until

pytestmark = pytest.mark.system

ORDERS = next(one.config_file for one in EXTENSIONS if one.name == "dns_gate")
PACKAGES = tuple(one.daemon.rpartition(".")[0] for one in EXTENSIONS)


def modules(file: Path) -> set[str]:
    """Have the daemon write what it has loaded."""
    file.unlink(missing_ok=True)
    file.with_suffix(".wanted").touch()
    wait_until(file.exists)
    return set(file.read_text().split())


def of_the_proxy(loaded: set[str]) -> set[str]:
    return {name for name in loaded if name.startswith("ecluse.dnsproxy")}


def of_extensions(loaded: set[str]) -> set[str]:
    return {name for name in loaded if name.startswith(PACKAGES)}


def test_a_site_without_the_dns_gate_loads_nothing_of_it(hospital: Hospital, tmp_path: Path):
    file = tmp_path / "modules"
    daemon: Daemon = hospital.daemon(
        argv=("-m", "tests.system.listing_modules", str(file)),
        site=policy.site(dns_gate={"mode": "never"}),
    )
    # What a policy before left to the gate's process must not go on.
    (daemon.rundir / ORDERS).write_text('{"port": 5310}')
    daemon.start()
    daemon.level("cut")
    daemon.level("open")
    assert daemon.cli("status").returncode == 0
    assert daemon.api("GET", "/metrics").status == 200
    before = modules(file)
    assert of_extensions(before) == set()
    assert daemon.status()["dns"] is None
    assert (daemon.rundir / ORDERS).read_text() == ""

    daemon.write_config(policy.site(dns_gate=ROOM), ALLOWLIST)
    assert daemon.cli("reload", "--yes").returncode == 0
    assert daemon.status()["dns"]["mode"] == "cut", "with the reload's own answer"
    wait_until(lambda: "operator.example" in (daemon.rundir / ORDERS).read_text())
    assert "ecluse_dns_gate_working" in daemon.api("GET", "/metrics").body
    after = modules(file)
    assert {
        "ecluse.dnsproxy.daemon_part",
        "ecluse.dnsproxy.client",
        "ecluse.dnsproxy.lint",
        "ecluse.dnsproxy.metrics",
    } <= of_the_proxy(after)
    # And with it comes nothing else of the core: it needs no more than what was there.
    assert {n for n in after - before if n.startswith("ecluse.")} == of_the_proxy(after)
    # Neither is loaded what its own process alone needs.
    assert not {"ecluse.dnsproxy.forwarder", "ecluse.dnsproxy.process"} & after

    daemon.write_config(policy.site(dns_gate={"mode": "never"}))
    assert daemon.cli("reload", "--yes").returncode == 0
    assert daemon.status()["dns"] is None
    wait_until(lambda: (daemon.rundir / ORDERS).read_text() == "")
    daemon.stop()
