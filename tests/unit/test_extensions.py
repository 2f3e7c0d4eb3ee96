"""The registry: every module that it names is there, and does what its place asks for."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ecluse
from ecluse.dnsproxy import client, process
from ecluse.extensions import EXTENSIONS
from ecluse.policy import Policy
from ecluse.results import Status
from tests.golden.cases import HERE, compiled

PLACES = {
    "daemon": "make_part",
    "lint": "find_warnings",
    "metrics": "metrics",
    "status_text": "show",
    "process": "main",
}
SOURCE = Path(ecluse.__file__).parent


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda one: one.name)
def test_every_module_that_is_named_has_what_its_place_asks_for(extension):
    for place, function in PLACES.items():
        if path := getattr(extension, place):
            assert callable(getattr(import_module(path), function)), path
    assert extension.status in {"", *Status.__dataclass_fields__}
    assert bool(extension.process) == bool(extension.verb)
    if extension.verbs:
        module = import_module(extension.verbs)
        groups = {verb.name.partition(" ")[0] for verb in module.VERBS if " " in verb.name}
        assert groups == set(module.GROUPS)


GATE = next(one for one in EXTENSIONS if one.name == "dns_gate")


def test_the_core_says_whether_one_is_used():
    assert GATE.is_used(compiled(HERE / "10-dns-gate")[0])
    plain: Policy = compiled(HERE / "01-one-address")[0]
    packages = {extension.daemon.rpartition(".")[0] for extension in EXTENSIONS}
    for one in EXTENSIONS:
        assert not one.is_used(plain), one.name
        module = one.used.partition(":")[0]
        assert not any(module.startswith(package) for package in packages)


def test_the_file_that_is_emptied_is_the_one_that_configures_the_process():
    assert GATE.config_file == client.CONFIG_FILE == Path(process.CONFIG_FILE).name


def test_the_registry_imports_nothing_of_ours_and_nothing_slow():
    """The command line reads it, and the process of an extension."""
    program = (
        "import sys; before = set(sys.modules); import ecluse.extensions;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=SOURCE.parent,
    )
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("ecluse")} == {
        "ecluse",
        "ecluse.extensions",
    }
    assert not loaded & {"dataclasses", "typing", "inspect"}


def test_each_package_of_an_extension_is_forbidden_to_the_core():
    """The import contract in pyproject.toml knows every extension."""
    import tomllib

    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if "imports no extension" in one["name"]]
    packages = {one.daemon.rpartition(".")[0] for one in EXTENSIONS}
    assert packages == set(contract["protected_modules"])
    assert not contract["allowed_importers"]
