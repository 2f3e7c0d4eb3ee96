"""The manual pages: from the parsers, the models of the files, and what docs/ says of each key.

A key or an option that the code has and the page would not, or the other way round, ends the build.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ecluse import __version__
from ecluse.cli import exit_codes
from ecluse.cli.parser import build_parser
from ecluse.config import file_schemas
from ecluse.config.schema import Key
from ecluse.config.settings import Settings
from ecluse.config.settings import parser as daemon_parser
from ecluse.dnsproxy import process as dns_gate
from ecluse.dnsproxy.dnsmasq import CONFIG, SERVERS
from ecluse.dnsproxy.learned_store import JOURNAL, SNAPSHOT
from make_deb import roff
from make_deb.suites import ROOT

_LEVEL = {
    "name": "The level's name: not `open`, `cut` or `isolate`.",
    "title": "For people; the name if left out.",
    "keeps": "A list of `vital`, `important`, `deferrable`: which services it keeps.",
}
_ENVIRONMENT = {
    "ECLUSE_SOCKET": "The daemon's socket, where no `--socket` is given.",
    "ECLUSE_STATE_DIR": "The daemon's records, for `audit` and `--no-daemon`.",
    "ECLUSE_CONFIG_DIR": "The site's files, for `check`.",
    "NO_COLOR": "No colours, whatever it is set to.",
}
_FILES = {
    "/etc/ecluse": (
        "The site's files: `site.yaml`, `allowlist.d/*.yaml`, and the daemon's `ecluse.toml`."
    ),
    "/run/ecluse/ecluse.sock": "The daemon's socket.",
    "/usr/share/ecluse/examples/config": "A whole annotated example of the site's files.",
}
_GATE_FILES = {
    dns_gate.CONFIG_FILE: (
        "The daemon's configuration for it: names, types, resolvers, bounds. "
        "An empty file: there is nothing to answer. One that can't be read changes nothing."
    ),
    f"{dns_gate.RUN_DIR}/{dns_gate.REPORT}": (
        "What it tells the daemon, for `ecluse status` and `ecluse refused`."
    ),
    f"{dns_gate.RUN_DIR}/{CONFIG}": "What its engine is started with.",
    f"{dns_gate.RUN_DIR}/{SERVERS}": (
        "The names that the engine lets through, reloaded without a gap."
    ),
    f"{dns_gate.STATE_DIR}/{SNAPSHOT}": (
        "The learned addresses, put back into the kernel at boot by the boot unit."
    ),
    f"{dns_gate.RUN_DIR}/{JOURNAL}": (
        "The same as it grows: it tells a stranger's address from one that was learned since."
    ),
    f"{dns_gate.STATE_DIR}/{dns_gate.LAST}": (
        "The last configuration, until the daemon writes another."
    ),
}
Row = tuple[str, ...]


def _doc(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def _between(text: str, begin: str, end: str) -> str:
    found = re.search(f"{begin}\n(.*?)(?:{end}|\\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"docs: no {begin!r}")
    return found[1]


def _tables(text: str) -> Iterator[list[Row]]:
    """Give each table's rows, less its heading."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [
            tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
            for line in block.splitlines()
        ]
        yield rows[2:]


def _described(rows: list[Row]) -> dict[str, Row]:
    return {name.strip("`"): tuple(rest) for row in rows for name, *rest in [row]}


def _sentence(text: str) -> str:
    return (text[:1].upper() + text[1:]).strip(". ")


def _key(key: str, row: Row) -> str:
    kind, default, *meaning = row
    told = "Needed." if default == "needed" else f"Default: {default}." if default else ""
    text = ". ".join(_sentence(part) for part in (kind, *meaning) if part)
    return roff.item(roff.bold(key), f"{text}. {told}".strip())


_INNER: Mapping[str, Any] = {
    "lifeline": file_schemas.LIFELINE,
    "management": file_schemas.MANAGEMENT,
    "dns_gate": file_schemas.DNS_GATE,
    "internal": file_schemas.INTERNAL,
    "limits": file_schemas.LIMITS,
}
"""Keys that hold others, which are told by their path."""


def _keys(keys: Mapping[str, Key], prefix: str = "") -> Iterator[str]:
    """Name the keys of a form, those of a mapping inside by their path."""
    for name in keys:
        if name in _INNER:
            yield from _keys(_INNER[name].keys, f"{prefix}{name}.")
        else:
            yield prefix + name


def _described_keys(keys: Mapping[str, Key], rows: Mapping[str, Row]) -> str:
    differ = set(_keys(keys)) ^ set(rows)
    if differ:
        raise ValueError(f"docs/configuration.md and the files' form differ in {differ}")
    return "".join(_key(key, rows[key]) for key in rows)


def _values() -> str:
    return roff.prose(
        _between(_doc("configuration.md"), "^## How values are written", "^Warnings never")
    )


def _example(name: str) -> str:
    return roff.code((ROOT / "config" / name).read_text(encoding="utf-8").splitlines())


def site_page(date: str) -> str:
    """ecluse-site(5)."""
    top, zone = map(
        _described, _tables(_between(_doc("configuration.md"), "^## site.yaml", "^## allowlist"))
    )
    if set(_LEVEL) != set(_keys(file_schemas.LEVEL.keys)):
        raise ValueError("the keys of a level are others than the page says")
    levels = "".join(roff.item(roff.bold(key), text) for key, text in _LEVEL.items())
    return "".join(
        [
            roff.head(
                "ecluse-site", 5, date, __version__, "what is inside, and what no level ever cuts"
            ),
            roff.section("SYNOPSIS", ".I /etc/ecluse/site.yaml\n"),
            roff.section(
                "DESCRIPTION",
                roff.prose(
                    "`site.yaml` names the zones of the inside, who may always reach the gateway, "
                    "and the site's own levels. It is strict YAML: a key that is not listed here "
                    "is a fault. Nothing in it takes effect by itself. `ecluse check` finds every "
                    "fault with its place, and `ecluse reload` shows the difference and asks."
                ),
                roff.subsection("Keys", _described_keys(file_schemas.SITE.keys, top)),
                roff.subsection("Keys of a zone", _described_keys(file_schemas.ZONE.keys, zone)),
                roff.subsection("Keys of a level", levels),
                roff.subsection("How values are written", _values()),
            ),
            roff.section("EXAMPLE", _example("site.yaml")),
            _see_also("ecluse-site"),
        ]
    )


def allowlist_page(date: str) -> str:
    """ecluse-allowlist(5)."""
    service, destination = map(
        _described,
        _tables(_between(_doc("configuration.md"), r"^## allowlist\.d/[^\n]*", "^## How values")),
    )
    return "".join(
        [
            roff.head(
                "ecluse-allowlist",
                5,
                date,
                __version__,
                "the services that a hospital needs from outside",
            ),
            roff.section("SYNOPSIS", ".I /etc/ecluse/allowlist.d/*.yaml\n"),
            roff.section(
                "DESCRIPTION",
                roff.prose(
                    "Each file holds a list, `services`. Every `*.yaml` is read, in name order. A "
                    "key that is not listed here is a fault. Nothing in the files takes effect by "
                    "itself: `ecluse check`, then `ecluse reload`.\n"
                    "\n"
                    "Where two services share packets, they are counted for one of them; `ecluse "
                    "check` says so."
                ),
                roff.subsection(
                    "Keys of a service", _described_keys(file_schemas.SERVICE.keys, service)
                ),
                roff.subsection(
                    "Keys of a destination",
                    _described_keys(file_schemas.DESTINATION.keys, destination),
                ),
                roff.subsection("How values are written", _values()),
            ),
            roff.section("EXAMPLE", _example("allowlist.d/20-care.yaml")),
            _see_also("ecluse-allowlist"),
        ]
    )


def verbs(parser: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Give each verb's help and parser, a verb of a verb as `audit verify`."""
    found: dict[str, tuple[str, argparse.ArgumentParser]] = {}
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to look at a parser
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            for name, inner in action.choices.items():
                below = verbs(inner)
                found |= {f"{name} {deeper}": value for deeper, value in below.items()}
                if not below:
                    found[name] = helps[name], inner
    return found


def options(
    parser: argparse.ArgumentParser, but: frozenset[str] = frozenset()
) -> list[argparse.Action]:
    """Give what a parser takes, less what is named in `but`, options first."""
    found = [
        action
        for action in parser._actions  # noqa: SLF001
        if not isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        and not but.intersection(action.option_strings)
    ]
    return sorted(found, key=lambda action: not action.option_strings)


def _option(action: argparse.Action) -> str:
    value = (
        f" \\fI{roff.escaped(str(action.metavar))}\\fR"
        if action.nargs != 0 and action.metavar
        else ""
    )
    names = ", ".join(roff.bold(name) for name in action.option_strings)
    return roff.item((names + value).strip(), f"{_sentence(action.help or '')}.")


EVERYWHERE = frozenset({"-h", "--help", "--json", "--socket", "--version"})


def _usage(parser: argparse.ArgumentParser) -> str:
    words = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    for word in ("[-h] ", "[--json] ", "[--socket PATH] ", "[-h]", "[--json]", "[--socket PATH]"):
        words = words.replace(word, "")
    return " ".join(words.split())


def command_page(date: str) -> str:
    """ecluse(1)."""
    parser = build_parser()
    shown = [
        roff.subsection(
            roff.escaped(_usage(inner)),
            roff.prose(f"{_sentence(text)}."),
            *map(_option, options(inner, EVERYWHERE)),
        )
        for text, inner in verbs(parser).values()
    ]
    codes = re.findall(r"^ +(\d+)  (.*)$", exit_codes.CODES, re.MULTILINE)
    named = re.findall(r"\b(?:ECLUSE_\w+|NO_COLOR)\b", parser.epilog or "")
    if set(named) != set(_ENVIRONMENT):
        raise ValueError("the variables of the environment are others than the page says")
    return "".join(
        [
            roff.head(
                "ecluse", 1, date, __version__, "cut the internet and keep the vital services"
            ),
            roff.section(
                "SYNOPSIS",
                (
                    "\\fBecluse\\fR [\\fB\\-\\-json\\fR] [\\fB\\-\\-socket\\fR \\fIPATH\\fR] "
                    "\\fIVERB\\fR [\\fIoption\\fR ...]\n"
                ),
            ),
            roff.section(
                "DESCRIPTION",
                roff.prose(
                    f"{parser.description} It asks the daemon, eclused(8), over its socket; "
                    "`check`, `audit` and `--no-daemon` need no daemon. `cut` and `isolate` "
                    "never ask. What is cut stays cut with the daemon dead.\n"
                    "\n"
                    "The words: a `level` is how far the gate is shut. `open` passes everything, "
                    "`cut` keeps the services that are vital, `isolate` keeps the lifeline "
                    "alone; a site may define more between. A `zone` is a named part of the "
                    "inside; `gateway` is the machine itself. A `generation` is a numbered "
                    "record of an applied state."
                ),
            ),
            roff.section("OPTIONS", *map(_option, options(parser))),
            roff.section("VERBS", *shown),
            roff.section(
                "EXAMPLES",
                roff.code(
                    [
                        (
                            'ecluse cut --reason "ransomware seen in guests" --authorised-by "Dr '
                            'Example"'
                        ),
                        "ecluse cut --zone guests",
                        "ecluse refused",
                        "ecluse level reduced --zone administration",
                        "ecluse rollback",
                    ]
                ),
            ),
            roff.section(
                "EXIT STATUS", *(roff.item(roff.bold(number), f"{text}.") for number, text in codes)
            ),
            roff.section(
                "ENVIRONMENT", *(roff.item(roff.bold(name), _ENVIRONMENT[name]) for name in named)
            ),
            _files(_FILES),
            _see_also("ecluse"),
        ]
    )


def _files(files: Mapping[str, str]) -> str:
    return roff.section("FILES", *_file_items(files))


def _file_items(files: Mapping[str, str]) -> Iterator[str]:
    return (roff.item(f"\\fI{roff.escaped(name)}\\fR", text) for name, text in files.items())


def daemon_page(date: str) -> str:
    """eclused(8)."""
    parser = daemon_parser()
    state = next(
        rows
        for rows in _tables(
            _between(_doc("operations.md"), "^## When the daemon does not answer", "^## The audit")
        )
        if "`boot.nft`" in rows[0]
    )
    flags = {action.dest for action in options(parser)} - {"help", "version"}
    if flags != set(Settings.model_fields):
        raise ValueError("the flags of eclused are not its settings")
    return "".join(
        [
            roff.head(
                "eclused",
                8,
                date,
                __version__,
                "hold the gate: apply, verify in the kernel, record, answer",
            ),
            roff.section(
                "SYNOPSIS",
                (
                    "\\fBeclused\\fR [\\fIoption\\fR ...]\n.PP\n"
                    "\\fBeclused dns\\-gate\\fR [\\fIoption\\fR ...]\n"
                ),
            ),
            roff.section(
                "DESCRIPTION",
                roff.prose(
                    "Keeps one table of nftables, `inet ecluse`, as the site's files and the "
                    "recorded level say, and answers ecluse(1) on a socket. It runs in the "
                    "foreground, under systemd as `ecluse.service`. The kernel holds the gate "
                    "without it: it may stop, crash and restart at any time.\n"
                    "\n"
                    "At its start it brings up the recorded state, or whatever is more closed; on "
                    "a first installation everything is open. `ecluse-boot.service` loads the "
                    "recorded state before the network."
                ),
            ),
            roff.section(
                "OPTIONS", *map(_option, options(parser)), roff.prose(parser.epilog or "")
            ),
            roff.section(
                "SIGNALS",
                roff.item(roff.bold("SIGTERM"), "Stop. The gate stays as it stands."),
                roff.item(
                    roff.bold("SIGHUP"),
                    "Apply the site's files without showing or asking; prefer `ecluse reload`.",
                ),
            ),
            roff.section(
                "EXIT STATUS", *_exit_status("The settings or the site's files are wrong.")
            ),
            _dns_gate_section(),
            _files(
                _FILES
                | {
                    f"/var/lib/ecluse/{name.replace('`', '')}": f"{_sentence(text)}."
                    for name, text, *_ in state
                }
            ),
            _see_also("eclused"),
        ]
    )


def _exit_status(wrong: str) -> Iterator[str]:
    told = ("Stopped as asked.", "It could not run; standard error says why.", wrong)
    return (roff.item(roff.bold(str(code)), text) for code, text in enumerate(told))


def _dns_gate_section() -> str:
    parser = dns_gate.parser()
    return roff.section(
        "THE DNS GATE",
        roff.prose(
            "`eclused dns-gate` is a process of its own, which systemd runs as "
            "`ecluse-dns.service`, as user `ecluse-dns` and with CAP_NET_ADMIN alone. It is not "
            "for typing: at a site without a gate it waits for a configuration.\n"
            "\n"
            f"{parser.description} The kernel sends it the zones' questions, by UDP and TCP, "
            "whatever server was asked, wherever a level keeps only some services. Its engine, "
            "`dnsmasq`, refuses at once what no order names. What is kept it asks the site's "
            "resolvers itself, puts the addresses into the kernel's sets of that service, and "
            "then answers. `dns_gate` in ecluse-site(5) is its part of the site's files.\n"
            "\n"
            "It may stop, crash and restart at any time: without it no name is answered, nothing "
            "opens, and connections to addresses that it has learned go on. It replaces an "
            "engine that ended or is silent. `ecluse status` says whether it works, and its own "
            "messages are those of `journalctl -u ecluse-dns`."
        ),
        roff.subsection("Options of dns\\-gate", *map(_option, options(parser, EVERYWHERE))),
        roff.subsection(
            "Signals of dns\\-gate",
            roff.item(
                f"{roff.bold('SIGTERM')}, {roff.bold('SIGINT')}",
                "Save what was learned, end the engine, stop.",
            ),
        ),
        roff.subsection("Exit status of dns\\-gate", *_exit_status("The arguments are wrong.")),
        roff.subsection("Files of dns\\-gate", *_file_items(_GATE_FILES)),
    )


_PAGES = {"ecluse": 1, "eclused": 8, "ecluse-site": 5, "ecluse-allowlist": 5}


def _see_also(but: str) -> str:
    others = ", ".join(
        f"\\fB{roff.escaped(name)}\\fR({number})" for name, number in _PAGES.items() if name != but
    )
    return roff.section(
        "SEE ALSO",
        f"{others}, \\fBnft\\fR(8)\n",
        roff.prose("`/usr/share/doc/ecluse/docs` has the rest."),
    )


def pages(date: str) -> dict[str, str]:
    """Give every page by its file name; date: the day of the commit."""
    made = {
        "ecluse": command_page(date),
        "eclused": daemon_page(date),
        "ecluse-site": site_page(date),
        "ecluse-allowlist": allowlist_page(date),
    }
    return {f"{name}.{_PAGES[name]}": text for name, text in made.items()}
