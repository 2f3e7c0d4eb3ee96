"""What goes into the package: pins, versions, units, and the questions that its scripts ask of the
gate.
"""

import hashlib
import json
import os
import re
import subprocess
import tomllib
from itertools import pairwise

import pytest

from make_deb import package, suites, tree, wheels
from make_deb.suites import ROOT, SUITES, Stamp

SCRIPTS = ("postinst", "prerm", "postrm")


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_all_that_the_project_needs_is_pinned_by_hash(suite):
    pins = {pin.name: pin for pin in wheels.read_pins(suite)}
    assert len(pins) >= 15
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in project["dependencies"]:
        name = re.split(r"[<>=]", wanted)[0].lower().replace(".", "-")
        assert name in pins or name in wheels.FROM_DEBIAN, name
    assert not re.search(r"https?:|\bindex\b|\bfind-links\b", suite.requirements.read_text())


def test_a_line_that_is_no_pin_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "ROOT", tmp_path)
    (tmp_path / "packaging").mkdir()
    suite = SUITES[0]
    digest = "0" * 64
    suite.requirements.write_text(f"# head\na-b==1.0 \\\n    --hash=sha256:{digest}\n")
    assert wheels.read_pins(suite) == (wheels.Pin("a-b", "1.0", digest),)
    for line in ("c==1.0", "--extra-index-url x", f"d>=1 \\\n    --hash=sha256:{digest}"):
        suite.requirements.write_text(f"a-b==1.0 \\\n    --hash=sha256:{digest}\n{line}\n")
        with pytest.raises(ValueError, match="no pins"):
            wheels.read_pins(suite)


def test_versions_sort_as_upgrades_go():
    bookworm, trixie = SUITES
    daily = Stamp("0.1.0~20261123021205.g0123456789", 0)
    later = Stamp("0.1.0~20261124021205.g0000000000", 0)
    release = Stamp("0.1.0", 0)
    rising = [
        daily.of(bookworm),
        daily.of(trixie),
        later.of(bookworm),
        release.of(bookworm),
        release.of(trixie),
        Stamp("0.1.1", 0).of(bookworm),
    ]
    for lower, higher in pairwise(rising):
        command = ["dpkg", "--compare-versions", lower, "lt", higher]
        assert not subprocess.run(command, check=False).returncode, (lower, higher)


def test_systemd_is_laid_out_by_pattern(tmp_path):
    source, root = tmp_path / "systemd", tmp_path / "root"
    for name in (
        "a.service",
        "a.socket",
        "a.sysusers",
        "a.tmpfiles",
        "a.nft",
        "a.sh",
        "README.md",
        "b.service.d/1.conf",
    ):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[Install]\n" if name == "a.socket" else "x\n")
    units = tree.lay_systemd(source, root)
    assert (units.enabled, units.sysusers, units.tmpfiles) == (["a.socket"], ["a.conf"], ["a.conf"])
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == {
        "usr/lib/systemd/system/a.service",
        "usr/lib/systemd/system/a.socket",
        "usr/lib/systemd/system/b.service.d/1.conf",
        "usr/lib/sysusers.d/a.conf",
        "usr/lib/tmpfiles.d/a.conf",
        "usr/lib/ecluse/a.nft",
        "usr/lib/ecluse/a.sh",
    }
    assert os.access(root / "usr/lib/ecluse/a.sh", os.X_OK)
    (source / "what").write_text("x")
    with pytest.raises(ValueError, match="what"):
        tree.lay_systemd(source, tmp_path / "other")


def test_all_of_systemd_belongs_somewhere(tmp_path):
    units = tree.lay_systemd(ROOT / "systemd", tmp_path)
    assert "ecluse.service" in units.enabled
    assert "ecluse-boot.service" not in units.started


@pytest.mark.parametrize("name", SCRIPTS)
def test_maintainer_scripts_are_filled_in_and_sound(name, tmp_path):
    units = tree.lay_systemd(ROOT / "systemd", tmp_path / "root")
    text = package._script(name, SUITES[0], units)
    assert not re.search(r"#[A-Z]+#", text)
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["dash", "-n", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    strange = subprocess.run(
        ["dash", str(tmp_path / name), "nonsense"], capture_output=True, text=True, check=False
    )
    assert strange.returncode == 1


def asked(question, tmp_path, nft=""):
    """Ask the scripts' own function, of a state directory and an nft of the test's."""
    text = (ROOT / "packaging/scripts/gate.sh").read_text()
    text = text.replace("state=/var/lib/ecluse", f"state={tmp_path}/state").replace(
        "PATH=/usr/sbin", f"PATH={tmp_path}:/usr/sbin"
    )
    (tmp_path / "nft").write_text(f"#!/bin/sh\n{nft}\n")
    (tmp_path / "nft").chmod(0o755)
    return subprocess.run(
        ["dash", "-euc", f"{text}\n{question}"], capture_output=True, text=True, check=True
    ).stdout.strip()


ACCEPT = "echo 'type filter hook forward priority filter - 10; policy accept;'"
DROP = "echo 'type filter hook forward priority filter - 10; policy drop;'"
MISSING = "echo 'Error: No such file or directory; did you mean' >&2; exit 1"


@pytest.mark.parametrize(
    ("nft", "gate"),
    [
        (ACCEPT, "open"),
        (DROP, "shut"),
        (MISSING, "none"),
        ("echo 'Operation not permitted' >&2; exit 1", "unknown"),
        (f'case "$6" in input) {DROP};; *) {ACCEPT};; esac', "shut"),
        (f'case "$6" in output) {MISSING};; *) {ACCEPT};; esac', "shut"),
        ("echo nonsense", "shut"),
    ],
)
def test_the_kernel_is_asked(nft, gate, tmp_path):
    assert asked("kernel_gate", tmp_path, nft) == gate


def boot(**levels):
    text = (
        f"# Ecluse: what this gateway loads\n# levels: {json.dumps(levels, sort_keys=True)}\n"
        "# generation: 7\n"
    )
    return sealed(text)


def sealed(text):
    return f"{text}# sha256: {hashlib.sha256(text.encode()).hexdigest()}\n"


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        (boot(care="open"), "open"),
        (boot(care="open", gateway="open"), "open"),
        (boot(care="cut"), "shut"),
        (boot(care="open", guests="isolate"), "shut"),
        (boot(care="opened"), "shut"),
        ("", "shut"),
        (sealed("# Ecluse\n# of: []\n"), "shut"),
        (boot(care="open")[:-2], "shut"),
        (None, "none"),
    ],
)
def test_the_record_is_asked(text, gate, tmp_path):
    (tmp_path / "state").mkdir()
    if text is not None:
        (tmp_path / "state/boot.nft").write_text(text)
    assert asked("recorded_gate", tmp_path) == gate
    (tmp_path / "state/by-hand.log").write_text("{}\n")
    assert asked("recorded_gate", tmp_path) == "shut"


def test_a_record_without_its_boot_ruleset_counts_as_shut(tmp_path):
    (tmp_path / "state/generations").mkdir(parents=True)
    assert asked("recorded_gate", tmp_path) == "none"
    (tmp_path / "state/generations/00000001.json").write_text("{}")
    assert asked("recorded_gate", tmp_path) == "shut"
    (tmp_path / "state/boot.nft.before-removal").write_text("a removal opened it by hand")
    assert asked("recorded_gate", tmp_path) == "none"


def test_what_answers_the_zones_dns_is_installed_with_it():
    fields = dict(
        line.split(": ", 1)
        for line in package._control(SUITES[0], Stamp("1.0", 0), 1).splitlines()
        if not line.startswith(" ")
    )
    assert fields["Recommends"] == "dnsmasq-base"
