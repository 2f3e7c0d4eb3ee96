"""Faults of files that are no text or no YAML, for a person who knows networks."""

import re

import yaml

from ecluse.config.messages import shown
from ecluse.faults import Fault

MAX_CHARACTER_FAULTS = 20

# What neither YAML text nor a terminal should carry: controls (C0, C1, DEL), a bare carriage
# return, the Unicode line ends that YAML 1.1 counts as new lines, and marks that make text look
# other than it is.
_FORBIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)
_COMMENT = re.compile(r"(?:^|\s)#")


def decode(file: str, data: bytes) -> tuple[str, list[Fault]]:
    """Return the text of a UTF-8 file, and a fault for each bad character.

    A leading byte order mark is dropped.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        wrong = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        return "", [Fault(file, line, column, wrong, "a file saved as UTF-8")]
    faults: list[Fault] = []
    if not _FORBIDDEN.search(text):
        return text, faults
    for number, line_text in enumerate(text.split("\n"), start=1):
        comment = _COMMENT.search(line_text)
        for match in _FORBIDDEN.finditer(line_text.removesuffix("\r")):
            in_comment = comment is not None and comment.end() <= match.start()
            if match[0] == "\t" and in_comment:
                continue
            tab = match[0] == "\t"
            wrong = "a tab" if tab else f"the character U+{ord(match[0]):04X}, which can't be seen"
            faults.append(
                Fault(
                    file,
                    number,
                    match.start() + 1,
                    wrong,
                    "spaces" if tab else "text that can be seen",
                )
            )
            if len(faults) == MAX_CHARACTER_FAULTS:
                return text, faults
    return text, faults


# libyaml's words, and what a network engineer needs to hear instead.
_SYNTAX = {
    "mapping values are not allowed in this context": (
        "a second ': ' in one value, or a line too far to the right",
        (
            "text with a colon in quotes, keys of one mapping in one column"
            " (a port stands in ports: [tcp/443])"
        ),
    ),
    "found character that cannot start any token": (
        "a value can't begin with this character",
        "the whole value in quotes",
    ),
    "did not find expected alphabetic or numeric character": (
        "a '*' or '&' at the beginning of a value means an alias in YAML",
        "a wildcard or a pattern in quotes",
    ),
    "did not find expected node content": (
        "no value can begin here",
        "a value, in quotes if it begins with ':' or another sign",
    ),
    "found unexpected ':'": ("a ':' that ends a value inside [ ]", "an IPv6 address in quotes"),
    "did not find expected ',' or ']'": ("a list that began with '[' is not closed", "a ']'"),
    "did not find expected ',' or '}'": ("a mapping that began with '{' is not closed", "a '}'"),
    "could not find expected ':'": ("a line that is no 'key: value'", "a ':' after the key"),
    "did not find expected key": (
        "this line does not stand in the column of the keys above it",
        "keys of one mapping in one column",
    ),
    "did not find expected '-' indicator": (
        "this line does not stand in the column of the list above it",
        "a '- ' in the column of the others",
    ),
    "block sequence entries are not allowed in this context": (
        "a '- ' on the line of its key",
        "the list on the next line",
    ),
    "found unknown escape character": (
        "an unknown '\\' in double quotes",
        "'\\\\', or single quotes",
    ),
}


_UNQUOTED = "did not find expected alphabetic or numeric character"
_STAR = re.compile(r"\*[A-Za-z0-9._-]+")


def _line(text: str, number: int) -> str:
    return text.split("\n")[number - 1] if 0 < number <= text.count("\n") + 1 else ""


def syntax_fault(file: str, text: str, error: yaml.MarkedYAMLError) -> Fault:
    """Return libyaml's error as a fault at its place, in words that help."""
    problem = error.problem or "unknown"
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    if problem == "found unexpected end of stream" and error.context_mark:
        start = error.context_mark
        return Fault(
            file,
            start.line + 1,
            start.column + 1,
            "a quote that is never closed",
            "a closing quote",
        )
    if problem == _UNQUOTED and (
        star := _STAR.match(_line(text, line)[column - 2 :] if column > 1 else "")
    ):
        return Fault(
            file, line, column - 1, f"{shown(star[0])} without quotes", f'"{star[0]}" in quotes'
        )
    wrong, expected = _SYNTAX.get(problem, (f"not YAML ({problem})", "a key, a value or a list"))
    return Fault(file, line, column, wrong, expected)
