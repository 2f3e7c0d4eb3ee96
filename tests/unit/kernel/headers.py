"""Reads constants from the kernel's own headers (linux-libc-dev), to hold ours against them."""

import re
from pathlib import Path

import pytest

INCLUDE = Path("/usr/include/linux")


def constants(*names: str) -> dict[str, int]:
    """Give the enumerators and defines of some headers whose values are plain numbers."""
    found: dict[str, int] = {}
    for name in names:
        file = INCLUDE / name
        if not file.exists():
            pytest.skip(f"{file} is not installed (linux-libc-dev)")
        text = re.sub(r"/\*.*?\*/", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        for define, value in re.findall(
            r"^#define\s+(\w+)\s+\(?([-\w]+)\)?\s*$", text, re.MULTILINE
        ):
            known = _number(value, found)
            if known is not None:
                found[define] = known
        text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
        for body in re.findall(r"\benum\b[^{;]*\{(.*?)\}", text, re.DOTALL):
            _read_enum(body, found)
    return found


def _read_enum(body: str, found: dict[str, int]) -> None:
    following: int | None = 0
    for item in body.split(","):
        name, _, expression = (part.strip() for part in item.partition("="))
        if not name:
            continue
        value = following
        if expression:
            shift = re.fullmatch(r"\(?\s*1U?\s*<<\s*(\d+)\s*\)?", expression)
            value = 1 << int(shift[1]) if shift else _number(expression, found)
        if value is not None:
            found[name] = value
        following = None if value is None else value + 1


def _number(text: str, known: dict[str, int]) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return known.get(text)


def differing(module: object, kernel: dict[str, int]) -> dict[str, tuple[int, int | None]]:
    """Give the constants of a module that the headers have otherwise, or do not have."""
    ours = {name: value for name, value in vars(module).items() if isinstance(value, int)}
    assert ours
    return {
        name: (value, kernel.get(name))
        for name, value in ours.items()
        if name.isupper() and kernel.get(name) != value
    }
