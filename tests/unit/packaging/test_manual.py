"""Manual pages and completion name all that the code has; the shells and the formatters take them
without a word.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ecluse.cli.exit_codes import CODES
from ecluse.cli.parser import build_parser
from ecluse.config import file_schemas as schemas
from ecluse.config.schema import Key, Unread
from ecluse.config.settings import Settings
from ecluse.dnsproxy import process
from make_deb import completion, manual

PAGES = manual.pages("2026-11-23")
COMPLETION = completion.files()
SHELLS = {
    name: Path(path).name
    for path in COMPLETION
    for name in ("bash", "zsh", "fish")
    if f"/{name}" in path
}


def plain(page: str) -> str:
    return re.sub(r"\\f[BIR]|\\&", "", PAGES[page]).replace("\\-", "-")


def test_every_verb_and_option_is_in_the_manual():
    text = plain("ecluse.1")
    found = manual.verbs(build_parser())
    assert len(found) >= 16
    for name, (_, parser) in found.items():
        (part,) = re.findall(
            rf"^\.SS ecluse {name}(?: .*)?\n((?:(?!\.S[SH]).*\n)*)", text, re.MULTILINE
        )
        for action in manual.options(parser, manual.EVERYWHERE):
            heads = action.option_strings or [action.metavar]
            assert all(
                re.search(rf"^\.TP\n(?:.*, )?{re.escape(head)}\b", part, re.MULTILINE)
                for head in heads
            ), (name, heads)
    assert all(
        re.search(rf"^\.TP\n{code}\n", text, re.MULTILINE)
        for code in re.findall(r"^ +(\d+)", CODES, re.MULTILINE)
    )
    for option in ("--json", "--socket PATH", "--version"):
        assert re.search(rf"^\.TP\n{option}", text, re.MULTILINE)


def test_every_setting_is_in_the_manual():
    for name in Settings.model_fields:
        assert re.search(
            rf"^\.TP\n--{name.replace('_', '-')} [A-Z]", plain("eclused.8"), re.MULTILINE
        ), name


def test_the_dns_gate_is_in_the_manual(tmp_path):
    """Its options, the files that it is made with by default, its exit codes, and that systemd runs
    it.
    """
    text = plain("eclused.8")
    assert re.search(r"^\.SH SYNOPSIS\n(?:.*\n){2}eclused dns-gate", text, re.MULTILINE)
    (part,) = re.findall(r"^\.SH THE DNS GATE\n((?:(?!\.SH).*\n)*)", text, re.MULTILINE)
    for flag in re.findall(r"--[a-z-]+ [A-Z]+", process.parser().format_usage()):
        assert f"\n.TP\n{flag}\n" in part, flag
    given = process.parser().parse_args([])
    defaults = {tmp_path / "run": given.run_dir, tmp_path / "state": given.state_dir}
    for directory in defaults:
        directory.mkdir()
    gate = process.DnsProxyProcess(given.orders, *defaults)
    files = {
        gate._file,
        gate._last,
        gate._run_dir / process.REPORT,
        gate._dnsmasq._main,
        gate._dnsmasq._servers,
        gate._learned._store._snapshot,
        gate._learned._store._journal,
    }
    gate._learned.close()
    installed = {str(defaults.get(file.parent, file.parent) / file.name) for file in files}
    assert set(re.findall(r"^\.TP\n(/.*)$", part, re.MULTILINE)) == installed
    assert re.findall(r"^\.TP\n(\d)$", part, re.MULTILINE) == ["0", "1", "2"]
    assert "ecluse-dns.service" in part


HOLDERS = {"management", "internal", "limits"}
"""Keys that hold others, which are told by their path."""


@pytest.mark.parametrize(
    ("page", "kinds"),
    [
        (
            "ecluse-site.5",
            (
                schemas.SITE,
                schemas.LIFELINE,
                schemas.MANAGEMENT,
                schemas.ZONE,
                schemas.LEVEL,
                schemas.DNS_GATE,
                schemas.INTERNAL,
                schemas.LIMITS,
            ),
        ),
        ("ecluse-allowlist.5", (schemas.SERVICE, schemas.DESTINATION)),
    ],
)
def test_every_key_of_the_files_is_in_the_manual(page, kinds):
    heads = re.findall(r"^\.TP\n(\S+)\n", plain(page), re.MULTILINE)
    for kind in kinds:
        for key in kind.keys:
            inner = (kind is schemas.SITE and key in {"lifeline", "dns_gate"}) or key in HOLDERS
            assert inner or any(head.rpartition(".")[2] == key for head in heads), key


def test_a_key_that_the_documentation_does_not_know_ends_the_build():
    rows = dict.fromkeys(("name", "title", "interfaces", "subnets"), ("text", "", ""))
    assert "colour" not in manual._described_keys(schemas.ZONE.keys, rows)
    with pytest.raises(ValueError, match="colour"):
        manual._described_keys({**schemas.ZONE.keys, "colour": Key(Unread())}, rows)


@pytest.mark.parametrize("name", PAGES)
def test_formatters_have_nothing_to_say(name, tmp_path):
    path = tmp_path / name
    path.write_text(PAGES[name], encoding="utf-8")
    for command in (
        ["mandoc", "-T", "lint", "-W", "warning"],
        ["groff", "-K", "utf8", "-man", "-ww", "-T", "utf8"],
    ):
        if shutil.which(command[0]):
            done = subprocess.run(
                [*command, str(path)], capture_output=True, text=True, check=False
            )
            assert (done.stderr, done.returncode) == ("", 0)
            assert command[0] != "mandoc" or not done.stdout
    assert not re.search(r"^\.(?!\\\"|TH|SH|SS|TP|PP|IP|RS|RE|nf|fi|I )", PAGES[name], re.MULTILINE)


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_take_the_completion_and_it_has_every_verb_and_option(shell, tmp_path):
    (text,) = (text for path, text in COMPLETION.items() if f"/{shell}" in path)
    for name, (_, parser) in manual.verbs(build_parser()).items():
        assert all(re.search(rf"\b{word}\b", text) for word in name.split())
        for action in manual.options(parser):
            for option in action.option_strings:
                wanted = (
                    f"-{'l' if option.startswith('--') else 's'} {option.lstrip('-')}"
                    if shell == "fish"
                    else option
                )
                assert wanted in text, (name, option)
    if shutil.which(shell):
        path = tmp_path / "completion"
        path.write_text(text)
        done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
        assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("c", "cut check"),
        ("--socket x is", "isolate"),
        ("level ", "open cut isolate"),
        ("audit ", "verify show"),
        ("audit show --l", "--limit"),
        ("cut --no", "--no-daemon"),
        ("status --z", ""),
        ("cut --reason ", ""),
        ("cut --zone ", "care gateway"),
        ("--v", "--version"),
    ],
)
def test_bash_offers_what_fits(line, offered, tmp_path):
    (tmp_path / "completion").write_text(completion.bash())
    (tmp_path / "ecluse").write_text(
        '#!/bin/sh\nprintf \'{\\n  "levels": {\\n    "care": "cut",\\n    "gateway": '
        '"open"\\n  },\\n  "x": "y"\\n}\\n\'\n'
    )
    (tmp_path / "ecluse").chmod(0o755)
    words = " ".join(f"'{word}'" for word in ["ecluse", *line.split(" ")])
    script = (
        f"source {tmp_path}/completion; COMP_WORDS=({words}); "
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _ecluse; echo "${COMPREPLY[*]}"'
    )
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.stderr, done.stdout.strip()) == ("", offered)
