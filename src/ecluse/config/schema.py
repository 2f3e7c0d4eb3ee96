"""Reads a located YAML tree into values: all faults at once, each with its line and column.

A schema is a table: which keys a mapping has, and how each is read. pydantic could check the same,
but knows no places: its errors had to be traced back through the tree, from a copy without places.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, Protocol

from ecluse.config.address_parsers import written as written_network
from ecluse.config.messages import InvalidValueError, did_you_mean, listed, shown
from ecluse.config.parsers import written_traffic
from ecluse.config.yaml_scalars import Broken, Unclear
from ecluse.config.yaml_tree import Entry, Items, Node
from ecluse.faults import Fault
from ecluse.policy import Traffic

MAX_FAULTS = 1000
"""So many are listed; files and lists are read no further where there are more."""

INVALID: Final[Any] = object()
"""Stands for a value that is at fault; its faults are already added."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one file, added to a list that all files share."""

    file: str
    found: list[Fault]

    def add(self, place: Node | Entry, wrong: str, expected: str = "") -> None:
        """Add a fault at a value or a key."""
        self.found.append(Fault(self.file, place.line, place.column, wrong, expected))

    def too_many(self) -> bool:
        """Say whether nobody would be shown one more."""
        return len(self.found) > MAX_FAULTS


class Schema(Protocol):
    """How one value of a file is read."""

    def value_at(self, node: Node, faults: Faults) -> Any:
        """Return the value, or INVALID after its faults were added."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value that is no list and no mapping.

    Attributes:
        parse: the value as written -> the policy's value; raises InvalidValueError.
        expected: how to say what stands there, where something else does.
        kinds: what YAML may take the value for.
    """

    parse: Callable[[Any], Any]
    expected: str
    kinds: tuple[type, ...] = (str,)

    def value_at(self, node: Node, faults: Faults) -> Any:
        """Return the value, or INVALID after its faults were added."""
        content = node.content
        if type(content) not in self.kinds:
            return _not_the_kind(node, faults, self.expected + _quotes(content, self.expected))
        try:
            return self.parse(content)
        except InvalidValueError as error:
            faults.add(node, error.wrong, error.expected)
            return INVALID


@dataclass(frozen=True, slots=True)
class Unread:
    """A value that is left as a node, for the caller to read."""

    def value_at(self, node: Node, faults: Faults) -> Node:
        """Return the node itself."""
        del faults
        return node


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; scalars in it stand there once each.

    Attributes:
        item: how each is read.
        empty: whether there may be none.
        bare: whether one value may stand without brackets.
    """

    item: Schema
    empty: bool = False
    bare: bool = False

    def value_at(self, node: Node, faults: Faults) -> Any:
        """Return a tuple, or INVALID after its faults were added."""
        items = node.content
        if self.bare and not isinstance(items, Items) and items is not None:
            items = Items.of(node)
        if not isinstance(items, Items):
            expected = "a list, such as [ ... ] or lines that begin with '- '"
            return _not_the_kind(node, faults, expected)
        if not self.empty and not len(items):
            faults.add(node, "an empty list", "at least one")
            return INVALID
        values, whole = [], True
        for index in range(len(items)):
            value = self.item.value_at(items[index], faults)
            values.append(value)
            if value is INVALID:
                whole = False
                if faults.too_many():
                    break
        if whole and isinstance(self.item, Scalar):
            whole = not _repeated(items, values, faults)
        return tuple(values) if whole else INVALID


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a mapping. null: nothing after the colon is the same as no key."""

    schema: Schema
    required: bool = False
    null: bool = False


Rule = Callable[[Node, Mapping[str, Entry], Faults], bool]


@dataclass(frozen=True, slots=True)
class Form:
    """A mapping.

    Attributes:
        make: called with the values of the keys that stand in the file, by name.
        keys: every key that it may have.
        rule: a check of which keys stand together; it returns False after it added a fault.
    """

    make: Callable[..., Any]
    keys: Mapping[str, Key]
    rule: Rule | None = None

    def value_at(self, node: Node, faults: Faults) -> Any:
        """Return the value, or INVALID after its faults were added."""
        values, whole = self.values_at(node, faults)
        return self.make(**values) if whole else INVALID

    def values_at(self, node: Node, faults: Faults) -> tuple[dict[str, Any], bool]:
        """Return the values that are right, by key, and whether that is all of them."""
        entries = node.content
        if not isinstance(entries, dict):
            _not_the_kind(node, faults, f"a mapping with the keys {', '.join(self.keys)}")
            return {}, False
        values: dict[str, Any] = {}
        whole = self.rule is None or self.rule(node, entries, faults)
        for name in entries.keys() - self.keys.keys():
            wrong = f"the key {shown(name)} is unknown{did_you_mean(name, self.keys)}"
            faults.add(entries[name], wrong, listed(self.keys))
            whole = False
            if faults.too_many():
                break
        for name, key in self.keys.items():
            entry = entries.get(name)
            if entry is None and key.required:
                among = f"it among {', '.join(self.keys)}" if len(self.keys) > 1 else ""
                faults.add(node, f"the key '{name}' is missing", among)
                whole = False
            if entry is None or (key.null and entry.node.content is None):
                continue
            value = key.schema.value_at(entry.node, faults)
            if value is INVALID:
                whole = False
            else:
                values[name] = value
        return values, whole


def form(make: Callable[..., Any], rule: Rule | None = None, /, **keys: Key) -> Form:
    """Return the form of a mapping with these keys."""
    return Form(make, keys, rule)


def _not_the_kind(node: Node, faults: Faults, expected: str) -> Any:
    if not isinstance(node.content, Broken):  # that has its fault
        faults.add(node, node.described(), expected)
    return INVALID


def _quotes(value: object, expected: str) -> str:
    """Return the advice to write quotes, where YAML takes a text for another kind of value."""
    if expected not in {"a text", "a name"}:
        return ""
    match value:
        case Unclear():
            text = value.text
        case bool():
            text = str(value).lower()
        case int() | date():
            text = str(value)
        case _:
            return ""
    return f": write it in quotes, {shown(text).replace(chr(39), chr(34))}"


def _repeated(items: Items, values: list[Hashable], faults: Faults) -> bool:
    """Add a fault for each value that stands in the list before."""
    if len(set(values)) == len(values):
        return False
    seen: set[Hashable] = set()
    for index, value in enumerate(values):
        if value in seen and not faults.too_many():
            faults.add(
                items[index], f"{shown(_written(value))} stands twice in this list", "each once"
            )
        seen.add(value)
    return True


def _written(value: object) -> str:
    """Return a parsed value as a person writes it."""
    match value:
        case Traffic():
            return written_traffic(value)
        case IPv4Network() | IPv6Network():
            return written_network(value)
        case tuple():
            return " and ".join(map(_written, value))
        case _:
            return str(value)
