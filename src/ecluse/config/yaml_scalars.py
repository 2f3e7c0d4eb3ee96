"""Values of bare YAML words: text, except where every YAML reader agrees on another type."""

import re
from dataclasses import dataclass
from datetime import date

import yaml

from ecluse.config.messages import shown


@dataclass(frozen=True, slots=True)
class Unclear:
    """A bare word that YAML readers may take for something else than the text it is."""

    text: str
    reading: str


@dataclass(frozen=True, slots=True)
class Broken:
    """Stands for a value that already has its fault, so that no other is added."""


_RESOLVER = yaml.resolver.Resolver()
_READINGS = {
    "bool": "yes or no",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
}
_PLAIN_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_PLAIN_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# YAML 1.2 numbers that PyYAML (YAML 1.1) takes for text.
_OTHER_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+")


def read_bare(text: str) -> object:
    """Return the value of a bare word; Unclear where YAML readers disagree."""
    if "/" in text or "::" in text or text.count(".") > 1:
        # addresses, ports, most host names: nothing else that a reader knows has any of these
        return text
    return _resolved(text)


def _resolved(text: str) -> object:
    tag = _tag(text)
    if tag == "null":
        return None
    if text in {"true", "false"}:
        return text == "true"
    if tag == "int" and _PLAIN_INTEGER.fullmatch(text):
        return int(text)
    if tag == "timestamp" and _PLAIN_DATE.fullmatch(text):
        return _date(text)
    reading = _READINGS.get(tag) or _other_reading(text)
    return Unclear(text, reading) if reading else text


def _tag(text: str) -> str:
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag.rpartition(":")[2]


def _date(text: str) -> date | Unclear:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return Unclear(text, "a date that does not exist")


def _other_reading(text: str) -> str:
    """Return what other YAML readers than PyYAML take a word for; empty when all take text."""
    if text in {"y", "n", "Y", "N"}:
        return _READINGS["bool"]
    return "a number" if _OTHER_NUMBER.fullmatch(text) else ""


def describe(value: object) -> str:
    """Say what kind of value stands there, for a person who meant something else."""
    if isinstance(value, Unclear):
        return f"{shown(value.text)} (which YAML takes for {value.reading})"
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (type(None), "nothing"),
        (bool, f"the truth value {str(value).lower()}"),
        (int, f"the number {value}"),
        (date, f"the date {value}"),
        (dict, "a mapping"),
        ((list, tuple), "a list"),
        (str, f"the text {shown(str(value))}"),
    )
    return next((words for kind, words in kinds if isinstance(value, kind)), "something else")
