"""What is no readable file."""

import os

import pytest

from ecluse.config import load_policy
from tests.unit.config.samples import L


def test_missing_things(files):
    (files.path / "site.yaml").unlink()
    (files.path / "allowlist.d/10-labs.yaml").unlink()
    (files.path / "allowlist.d").rmdir()
    assert files.faults() == [
        (
            "allowlist.d: there is no such file or directory, expected one, with the form"
            " that config/ shows"
        ),
        (
            "site.yaml: there is no such file or directory, expected one, with the form that"
            " config/ shows"
        ),
    ]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.mkdir(), "this is a directory, expected a regular file"),
        (os.mkfifo, "this is a FIFO, expected a regular file"),
        (
            lambda p: p.symlink_to("/nowhere/x.yaml"),
            "a link to /nowhere/x.yaml, which does not exist, expected a file",
        ),
        (
            lambda p: p.symlink_to(p),
            "it can't be read: Too many levels of symbolic links, expected a readable file",
        ),
        (lambda p: p.symlink_to("/dev/zero"), "this is a device, expected a regular file"),
        (
            lambda p: p.write_bytes(b"#" * (4 * 1024 * 1024 + 1)),
            "the file is larger than 4194304 bytes, expected several files in allowlist.d",
        ),
    ],
)
def test_what_is_no_readable_file(files, make, said):
    make(files.path / "allowlist.d/20-more.yaml")
    assert files.faults() == [f"allowlist.d/20-more.yaml: {said}"]


def test_a_file_that_may_not_be_read(files, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    said = f"user {os.geteuid()} may not read it, expected read permission for the daemon"
    assert files.faults() == [f"{L[:-1]}: {said}", f"site.yaml: {said}"]


def test_a_link_to_a_good_file_is_read(files, tmp_path):
    target = tmp_path / "elsewhere"
    (files.path / "site.yaml").rename(target)
    (files.path / "site.yaml").symlink_to(target)
    assert load_policy(files.path).site.name == "chu-example"


def test_yml_is_a_fault_and_hidden_files_are_not_read(files):
    files.write("allowlist.d/20-more.yml", "services: []")
    files.write("allowlist.d/.20-more.yaml", b"\x00\xff")
    (files.path / "allowlist.d/.#20-more.yaml").symlink_to("somebody@somewhere")  # an editor's lock
    assert files.faults() == [
        "allowlist.d/20-more.yml: the file would not be read, expected a name that ends in .yaml"
    ]


def test_a_file_name_cannot_write_on_the_terminal(files):
    name = os.fsencode(files.path) + b"/allowlist.d/\x1b[2J\xff.yaml"
    with open(name, "wb") as file:
        file.write(b"[")
    assert files.faults()[0].startswith("allowlist.d/\\x1b[2J\\udcff.yaml:")


def test_files_that_are_not_read_are_named(files):
    files.write("allowlist.d/20-more.yaml.disabled", "")
    assert files.warnings() == [
        "allowlist.d/20-more.yaml.disabled: this file is not read: its name does not end in .yaml"
    ]


def test_files_that_everyone_may_change(files):
    path = files.path / "allowlist.d/10-labs.yaml"
    path.chmod(0o666)
    assert files.warnings() == [
        f"{L[:-1]}: every user of this machine may change it; type: chmod o-w {L[:-1]}"
    ]
