"""A YAML file as a tree of plain values, each with its line and column.

What YAML readers disagree about (`no`, `010`, `22:22`) is kept apart as `Unclear`, so that a field
can ask for quotes. Anchors, aliases, merge keys, tags, directives and a second document are
refused. The tree is built from the parser's events and not by `yaml.compose`, which recurses in C
and has no bound: deeply nested input ends the process there, and one fault here.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import yaml

from ecluse.config.messages import shown
from ecluse.config.yaml_scalars import Broken, describe, read_bare
from ecluse.config.yaml_syntax import decode, syntax_fault
from ecluse.faults import Fault

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 16
MAX_NODES = 200_000

Loc = Sequence[str | int]
"""The way to a value: keys and list positions, from the top of the file."""


@dataclass(slots=True)
class Node:
    """A value and its place. content: a dict of Entry, Items, or the bare value itself."""

    line: int
    column: int
    content: object

    def described(self) -> str:
        """Say what kind of value stands there, for a person who meant something else."""
        return "a list" if isinstance(self.content, Items) else describe(self.content)


@dataclass(slots=True)
class Entry:
    """A key's place and the value that it names."""

    line: int
    column: int
    node: Node


@dataclass(slots=True)
class Items:
    """The values of a list.

    A bare one is kept without a Node of its own: there may be a hundred thousand.
    """

    _values: list[object] = field(default_factory=list)
    _lines: "array[int]" = field(default_factory=lambda: array("I"))
    _columns: "array[int]" = field(default_factory=lambda: array("I"))

    @classmethod
    def of(cls, node: Node) -> "Items":
        """Return a list of this one value."""
        items = cls()
        items.append(node)
        return items

    def append(self, node: Node) -> None:
        """Add a value at the end."""
        bare = not isinstance(node.content, dict | Items)
        self._values.append(node.content if bare else node)
        self._lines.append(node.line)
        self._columns.append(node.column)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> Node:
        value = self._values[index]
        return (
            value
            if isinstance(value, Node)
            else Node(self._lines[index], self._columns[index], value)
        )


@dataclass(slots=True)
class Document:
    """One file's values. `root` is there even for a broken file, as far as it could be read."""

    file: str
    root: Node

    def at(self, loc: Loc) -> Node | None:
        """Return the value at that place, None when there is none."""
        node, rest = self._follow(loc)
        return None if rest else node

    def fault(self, loc: Loc, wrong: str, expected: str = "", *, key: bool = False) -> Fault:
        """Return a fault at that value, or at the nearest value around it.

        Args:
            loc: the way to the value.
            wrong: what is wrong.
            expected: what would be right.
            key: put it at the key that names the value.
        """
        node, rest = self._follow(loc)
        place: Node | Entry = node
        if key and not rest and loc:
            above = self._follow(loc[:-1])[0]
            if isinstance(above.content, dict):
                place = above.content[loc[-1]]
        return Fault(self.file, place.line, place.column, wrong, expected)

    def _follow(self, loc: Loc) -> tuple[Node, Loc]:
        node = self.root
        for depth, step in enumerate(loc):
            content = node.content
            if isinstance(content, dict) and step in content:
                node = content[step].node
            elif isinstance(content, Items) and isinstance(step, int) and 0 <= step < len(content):
                node = content[step]
            else:
                return node, loc[depth:]
        return node, ()


def compose(
    file: str, data: bytes, *, comments: bool = False
) -> tuple[Document | None, list[Fault]]:
    """Read one YAML document of at most 4 MiB; never raise, whatever the bytes are.

    Args:
        file: the name to put into faults.
        data: the file's bytes.
        comments: a file of comments alone is no fault, and no document.

    Returns:
        The document (None when the file as a whole can't be read), and the faults.
    """
    if len(data) > MAX_BYTES:
        return None, [Fault(file, 0, 0, f"{len(data)} bytes", f"at most {MAX_BYTES}")]
    text, faults = decode(file, data)
    if faults:
        return None, faults
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.take(event)
    except _StopReadingError:
        pass
    except yaml.MarkedYAMLError as error:
        builder.faults.append(syntax_fault(file, text, error))
        return None, builder.faults
    except yaml.YAMLError as error:
        builder.faults.append(Fault(file, 0, 0, f"not YAML: {shown(str(error))}"))
        return None, builder.faults
    if builder.root is None:
        written = [line for line in text.split("\n") if line.strip()]
        all_comments = bool(written) and all(line.lstrip().startswith("#") for line in written)
        if not builder.faults and not (comments and all_comments):
            what = "has nothing but comments" if all_comments else "is empty"
            meant = (
                "services, or a comment that says why there are none" if comments else "a mapping"
            )
            builder.faults.append(Fault(file, 1, 1, f"the file {what}", meant))
        return None, builder.faults
    return Document(file, builder.root), builder.faults


class _StopReadingError(Exception):
    """The rest of the file is not worth reading; the faults say why."""


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is not closed yet; in a mapping, `key` waits for its value."""

    node: Node
    key: Node | None = None


@dataclass(slots=True)
class _Builder:
    file: str
    root: Node | None = None
    faults: list[Fault] = field(default_factory=list)
    _stack: list[_Frame] = field(default_factory=list)
    _nodes: int = 0
    _documents: int = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._refuse_markup(event)
                bare = not event.implicit[1] and event.implicit[0]
                self._add(self._node(event, read_bare(event.value) if bare else event.value))
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._refuse_markup(event)
                content: object = Items() if isinstance(event, yaml.SequenceStartEvent) else {}
                self._stack.append(_Frame(self._node(event, content)))
                if len(self._stack) > MAX_DEPTH:
                    self._stop(event, f"lists and mappings nested {MAX_DEPTH} deep", "far fewer")
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._add(self._stack.pop().node)
            case yaml.AliasEvent():
                self._fault(
                    event, f"the alias {shown('*' + str(event.anchor))}", "the value itself"
                )
                self._add(self._node(event, Broken()))
            case yaml.DocumentStartEvent():
                self._begin(event)

    def _begin(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            self._stop(event, "a second document begins here", "one document in a file")
        if event.version or event.tags:
            self._fault(event, "a YAML directive above this line", "none")

    def _refuse_markup(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor:
            self._fault(event, f"the anchor {shown('&' + str(event.anchor))}", "the value alone")
        if event.tag:
            self._fault(event, f"the YAML tag {shown(str(event.tag))}", "the value alone")

    def _node(self, event: yaml.Event, content: object) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(
                event, f"more than {MAX_NODES} values in one file", "several files in allowlist.d"
            )
        return Node(*_place(event), content)

    def _add(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        content = frame.node.content
        if isinstance(content, Items):
            content.append(node)
        elif frame.key is None:
            frame.key = node
        elif isinstance(content, dict):
            key, frame.key = frame.key, None
            if self._good_key(key, content):
                content[key.content] = Entry(key.line, key.column, node)

    def _good_key(self, key: Node, content: dict[object, Entry]) -> bool:
        name = key.content
        if isinstance(name, Broken):
            return False
        if name == "<<":
            self._fault_at(key, "a merge key '<<'", "the keys themselves")
        elif not isinstance(name, str):
            self._fault_at(key, f"{key.described()} as a key", "a word")
        elif name in content:
            first = content[name]
            wrong = f"the key {shown(name)} a second time, first at {first.line}:{first.column}"
            self._fault_at(key, wrong, "each key once")
        else:
            return True
        return False

    def _fault_at(self, node: Node, wrong: str, expected: str) -> None:
        self.faults.append(Fault(self.file, node.line, node.column, wrong, expected))

    def _fault(self, event: yaml.Event, wrong: str, expected: str) -> None:
        self.faults.append(Fault(self.file, *_place(event), wrong, expected))

    def _stop(self, event: yaml.Event, wrong: str, expected: str) -> NoReturn:
        self._fault(event, wrong, expected)
        raise _StopReadingError


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
