"""eclused as a process.

What it tells its service manager, signals, socket activation, a second one beside it.
"""

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT

pytestmark = pytest.mark.system


@pytest.fixture
def manager(hospital: Hospital):
    """The service manager's end of NOTIFY_SOCKET (sd_notify(3))."""
    path = hospital.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(5)
        yield sock, path


def said(sock: socket.socket) -> str:
    return sock.recv(4096).decode()


def test_ready_only_when_armed_then_signs_of_life_then_stopping(hospital: Hospital, manager):
    sock, path = manager
    environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
    daemon = hospital.daemon(environment=environment).start()
    assert said(sock).startswith("READY=1")
    assert (
        "goto k" in hospital.run("gw", ["nft", "list", "chain", "inet", "ecluse", "forward"]).stdout
    )
    began = time.monotonic()
    assert [said(sock) for _ in range(3)] == ["WATCHDOG=1"] * 3
    assert time.monotonic() - began < 3
    daemon.stop()
    rest = []
    sock.settimeout(0.5)
    try:
        while True:
            rest.append(said(sock))
    except TimeoutError:
        pass
    assert rest[-1] == "STOPPING=1"


def test_sigterm_leaves_the_kernel_as_it_is(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    time.sleep(0.3)
    before = hospital.run("gw", ["nft", "-s", "list", "table", "inet", "ecluse"]).stdout
    assert daemon.stop() == 0
    assert hospital.run("gw", ["nft", "-s", "list", "table", "inet", "ecluse"]).stdout == before
    assert not daemon.socket.exists()
    assert '"event":"stop"' in (daemon.state / "audit.log").read_text().replace(" ", "")
    daemon.start()


def test_sighup_reloads_and_a_broken_file_changes_nothing(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    daemon.write_config(None, {k: v for k, v in policy.ALLOWLIST.items() if k != "20-finance.yaml"})
    daemon.hang_up()
    deadline = time.monotonic() + 5
    while len(daemon.status()["services"]) > 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "treasury" not in {s["name"] for s in daemon.status()["services"]}
    assert not hospital.admin.tcp(places.TREASURY.v4, timeout=0.3)
    (daemon.config / "site.yaml").write_text("site: [")
    daemon.hang_up()
    time.sleep(0.3)
    assert daemon.status()["in_step"]
    assert hospital.care.tcp(places.LABORATORY.v4)
    assert "Traceback" not in daemon.tail()


def test_a_changed_file_alone_changes_nothing_and_is_said_after_a_restart(
    hospital: Hospital, daemon: Daemon
):
    daemon.level("cut")
    daemon.write_config(None, {k: v for k, v in policy.ALLOWLIST.items() if k != "20-finance.yaml"})
    daemon.restart()
    assert hospital.admin.tcp(places.TREASURY.v4)
    assert any("differ" in warning for warning in daemon.status()["warnings"])
    shown = daemon.cli("plan", "--reload")
    assert "treasury" in shown.stdout


def test_a_second_daemon_on_the_same_state_is_refused(hospital: Hospital, daemon: Daemon):
    second = hospital.daemon()
    second.state = daemon.state
    with pytest.raises(RuntimeError, match="another eclused uses the state directory"):
        second.start()
    assert daemon.status()["in_step"]


def test_a_second_daemon_in_the_same_network_is_refused_whoever_squats_names(hospital: Hospital):
    """Anybody may bind an abstract name.

    The guard must neither fall to a stranger nor keep the daemon from starting.
    """
    strangers = subprocess.Popen(
        ["ip", "netns", "exec", hospital.namespace("gw"), sys.executable, "-c", _SQUATTERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert strangers.stdout.readline() == b"ready\n"
        first = hospital.daemon().start()
        second = hospital.daemon()
        with pytest.raises(
            RuntimeError, match=f"another eclused .pid {first.pid}. guards this machine's network"
        ):
            second.start()
        assert first.status()["in_step"]
        first.kill9()
        second.start()
        second.stop()
    finally:
        strangers.stdin.close()
        strangers.wait(10)
        strangers.stdout.close()


def test_a_daemon_whose_guard_is_flooded_is_found_all_the_same(hospital: Hospital, daemon: Daemon):
    flood = subprocess.Popen(
        ["ip", "netns", "exec", hospital.namespace("gw"), sys.executable, "-c", _KNOCKERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert int(flood.stdout.readline()) > 200, "positive control: more than its queue holds"
        with pytest.raises(RuntimeError, match="guards this machine's network"):
            hospital.daemon().start()
    finally:
        flood.stdin.close()
        flood.wait(10)
        flood.stdout.close()


_SQUATTERS = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
held = []
for name in ("eclused", "eclused-1", "eclused-" + "a" * 32):
    held.append(socket.socket(socket.AF_UNIX)); held[-1].bind("\\0" + name); held[-1].listen()
print("ready", flush=True)
sys.stdin.read()
"""

_KNOCKERS = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
names = [n for l in open("/proc/self/net/unix") for n in l.split()[7:8] if n.startswith("@eclused")]
held = []
for _ in range(300):
    sock = socket.socket(socket.AF_UNIX)  # blocking: it waits for room
    sock.connect("\\0" + names[0][1:]); held.append(sock)
print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("most", range(4, 13, 2))
def test_what_nobody_foresaw_ends_it_with_words(hospital: Hospital, most: int):
    """A start that meets the machine's limits: no traceback, and what to type."""
    daemon = hospital.daemon(argv=("-c", _FEW_DESCRIPTORS.replace("MOST", str(most))))
    with pytest.raises(RuntimeError) as caught:
        daemon.start()
    told = str(caught.value)
    assert "ended with 1" in told
    assert "Traceback" not in told
    assert "oo many open files" in told
    assert told.count("eclused: ") >= 2, "what failed, and what to type"


_FEW_DESCRIPTORS = """
import resource, sys
from ecluse import daemon, eclused
resource.setrlimit(resource.RLIMIT_NOFILE, (MOST, MOST))
sys.exit(eclused.main())
"""


def test_faults_in_the_files_at_first_start_are_all_said(hospital: Hospital):
    daemon = hospital.daemon()
    (daemon.config / "site.yaml").write_text("site: UPPER\nzones: []\ncolour: red\n")
    with pytest.raises(RuntimeError) as caught:
        daemon.start()
    told = str(caught.value)
    assert "ended with 2" in told
    assert all(f"site.yaml:{line}:" in told for line in (1, 2, 3))
    assert "Traceback" not in told


def test_not_root_is_told_so(hospital: Hospital):
    daemon = hospital.daemon(
        argv=(
            "-c",
            (
                "import os, sys; from ecluse import daemon; os.setgroups([]); os.setuid(65534); "
                "sys.exit(daemon.main())"
            ),
        )
    )
    for folder in (daemon.state, daemon.rundir):
        os.chown(folder, 65534, 65534)
    with pytest.raises(RuntimeError) as caught:
        daemon.start()
    assert "Traceback" not in str(caught.value)
    assert "ermi" in str(caught.value), "permission, in words"


def test_socket_activation(hospital: Hospital):
    """systemd holds the socket: what is asked while the daemon starts is answered when it is up."""
    daemon = hospital.daemon()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(daemon.socket))
    listener.listen(16)
    os.set_inheritable(listener.fileno(), True)
    starter = (
        f"import os, runpy, sys; os.dup2({listener.fileno()}, 3); "
        "os.environ['LISTEN_FDS'] = '1'; os.environ['LISTEN_PID'] = str(os.getpid()); "
        "runpy.run_module('ecluse.daemon', run_name='__main__', alter_sys=True)"
    )
    daemon.argv = ("-c", starter)
    daemon.pass_fds = (listener.fileno(),)
    daemon.start()
    listener.close()
    assert daemon.status()["armed"]
    daemon.stop()
    assert daemon.socket.exists(), "the socket belongs to systemd"


def test_events_tell_what_happens(hospital: Hospital, daemon: Daemon):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(daemon.socket))
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = b""
        while b"\r\n\r\n" not in heard:
            heard += sock.recv(4096)
        daemon.level("cut", reason="the reason")
        while b"the reason" not in heard:
            heard += sock.recv(4096)
    assert b'"kind":"level"' in heard.replace(b" ", b"")


def test_metrics_and_services_follow_the_packets(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    for _ in range(5):
        assert hospital.care.udp(places.LABORATORY.v4)
    service = next(
        s for s in daemon.api("GET", "/v1/services").body["services"] if s["name"] == "laboratory"
    )
    assert service["packets"] >= 10
    assert service["state"] == "kept"
    assert service["last_packet"]
    assert {a["address"] for a in service["addresses"]} == {
        places.LABORATORY.v4,
        places.LABORATORY.v6,
    }
    metrics = daemon.api("GET", "/metrics").body
    assert any("laboratory" in line and "packets" in line for line in metrics.splitlines())


def test_console_log_is_words(hospital: Hospital):
    daemon = hospital.daemon(flags=["--log-format", "console"]).start()
    assert "armed" in daemon.tail()
    with pytest.raises(ValueError):
        json.loads(daemon.tail().splitlines()[0])
    daemon.stop()


def test_names_are_saved_and_a_dead_resolver_at_start_changes_nothing(
    hospital: Hospital, daemon: Daemon
):
    daemon.level("cut")
    # Known by name alone: an allowlist whose only destination is the name.
    byname = policy.service(
        "by-name", "vital", ["care"], [{"to": ["www.web.example"], "ports": ["tcp/443"]}]
    )
    daemon.write_config(None, policy.ALLOWLIST | {"50-name.yaml": [byname]})
    assert daemon.api("POST", "/v1/reload", {"reason": "a name"}).status == 200
    assert hospital.care.tcp(places.WEB.v4)
    hospital.dns({"www.web.example": {"silent": True}})
    time.sleep(0.2)
    daemon.kill9()
    # A start that waited for the resolver, which never answers, would outlast the patience of
    # `start` here.
    daemon.flags = [*daemon.flags, "--dns-timeout", "30"]
    daemon.start()
    assert hospital.care.tcp(places.WEB.v4), "the last good answer stands"
    assert hospital.care.tcp(places.WEB.v6)
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)


def test_a_trigger_never_waits_for_dns(hospital: Hospital):
    hospital.dns({name: {"silent": True} for name in places.NAMES})
    daemon = hospital.daemon().start()
    assert daemon.level("cut")["took_ms"] < 1000
    assert hospital.care.tcp(places.LABORATORY.v4), "addresses in the files need no DNS"
    daemon.stop()


def test_files_of_the_state_directory_are_not_for_everybody(hospital: Hospital, daemon: Daemon):
    daemon.level("cut")
    for path in daemon.state.rglob("*"):
        mode = path.stat().st_mode & 0o777
        assert not mode & 0o007, (Path(path).name, oct(mode))


def test_the_example_hospital_comes_up_and_is_cut(hospital: Hospital):
    """`config/`, as it is: on a machine without its interfaces and with its resolvers away."""
    daemon = hospital.daemon()
    shutil.rmtree(daemon.config)
    shutil.copytree(ROOT / "config", daemon.config, ignore=shutil.ignore_patterns("ecluse.toml"))
    daemon.start()
    change = daemon.level("cut")
    assert change["verified"]
    # No zone of it but the gateway has a living interface here, and what no packet can come of is
    # not called kept.
    assert any("laboratory" in words for words in change["no_link"]), change
    assert not any("laboratory" in words for words in change["kept"]), change
    assert change["kept"], "the gateway's own services"
    told = " ".join(daemon.status()["warnings"])
    assert "no interface is called" in told
    assert "has no address yet" in told
    assert not hospital.guest.tcp(places.WEB.v4, timeout=0.3)
    daemon.stop()


def test_an_interface_whose_name_is_no_utf8_starves_no_watchdog(hospital: Hospital, manager):
    sock, path = manager
    daemon = hospital.daemon(
        environment={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
    ).start()
    try:
        daemon.level("cut")
        hospital.run("gw", ["ip", "link", "add", os.fsdecode(b"caf\xe9"), "type", "bridge"])
        hospital.run("gw", ["ip", "link", "set", os.fsdecode(b"caf\xe9"), "up"])
        hospital.run(
            "gw", ["ip", "addr", "add", "203.0.113.222/32", "dev", os.fsdecode(b"caf\xe9")]
        )
        wanted = "caf\N{REPLACEMENT CHARACTER}"
        deadline = time.monotonic() + 15
        while not any(wanted in text for text in daemon.status()["warnings"]):
            assert time.monotonic() < deadline, daemon.status()["warnings"]
            time.sleep(0.05)
        assert not any("failed" in text for text in daemon.status()["warnings"])
        while sock in select.select([sock], [], [], 0)[0]:
            said(sock)
        assert [said(sock) for _ in range(3)] == ["WATCHDOG=1"] * 3
    finally:
        daemon.stop()
