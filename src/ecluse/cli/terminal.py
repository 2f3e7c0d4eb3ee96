"""Writes lines for a person: safe on any terminal, in 80 columns.

Texts come from files, host names and other users, and none may move the cursor or hide a line. So
every line is escaped here, in the only place that writes. Colour marks whole lines and never
carries a meaning alone.
"""

from __future__ import annotations

import os
import sys

from ecluse.safe_text import escape_unsafe

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

_STYLES = {"bold": "1", "good": "32", "warn": "33", "bad": "1;31", "dim": "2"}
_MARGIN = 2  # spaces between columns


class InterruptedQuestionError(Exception):
    """Ctrl-C was typed at a question, so nothing of the command was sent."""


class Screen:
    """Standard output and error.

    width: columns; at least 40, and 80 when it is no terminal.
    broken: nobody reads standard output any more.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = _tolerant(out if out is not None else sys.stdout)
        self._err = _tolerant(err if err is not None else sys.stderr)
        self.broken = False
        self.width = _width(self._out)

    def line(self, text: object = "", style: str = "") -> None:
        """Write a line to standard output, however long it is."""
        self._write(self._out, text, style)

    def wrapped(self, label: str, text: str, style: str = "") -> None:
        """Write a label, and a text wrapped to the right of it."""
        for line in wrap(text, self.width - len(label)):
            self.line(f"{label}{line}", style)
            label = " " * len(label)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]], indent: int = 0) -> None:
        """Write rows in columns that fit the width; a cell that does not fit ends in `..`."""
        texts = [[escape_unsafe(str(cell)) for cell in row] for row in rows]
        widths = fit([list(head), *texts], self.width - indent)
        self.line(_row(head, widths, indent), "dim")
        for row in texts:
            self.line(_row(row, widths, indent))

    def error_line(self, text: object = "", style: str = "") -> None:
        """Write a line to standard error."""
        self._write(self._err, text, style)

    def wrapped_error(self, text: str, style: str = "") -> None:
        """Write lines to standard error, each wrapped.

        An indented line is a command to type, and stays whole.
        """
        for line in text.splitlines():
            if line.startswith(" "):
                self.error_line(line, style)
            else:
                for part in wrap(line, self.width):
                    self.error_line(part, style)

    def raw(self, text: str) -> None:
        """Write a text that is safe already (ASCII JSON)."""
        self._put(self._out, text + "\n")

    def can_ask(self) -> bool:
        """Say whether a person is there to answer."""
        return bool(sys.stdin and sys.stdin.isatty())

    def ask(self, question: str) -> str | None:
        """Ask on standard error and read a line; None when nobody can answer.

        InterruptedQuestionError: the person typed Ctrl-C.
        """
        if not self.can_ask():
            return None
        self._put(self._err, escape_unsafe(question) + " ")
        self._err.flush()
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            raise InterruptedQuestionError from None
        return answer.strip() if answer else None

    def finish(self) -> None:
        """Flush both streams; a reader that has gone is no error."""
        for stream in (self._out, self._err):
            try:
                stream.flush()
            except OSError:
                self._give_up(stream)

    def _write(self, stream: TextIO, text: object, style: str) -> None:
        text = escape_unsafe(str(text)).rstrip()
        if style and text and _colours(stream):
            text = f"\x1b[{_STYLES[style]}m{text}\x1b[0m"
        self._put(stream, text + "\n")

    def _put(self, stream: TextIO, text: str) -> None:
        if self.broken and stream is self._out:
            return
        try:
            stream.write(text)
            if stream.isatty():
                stream.flush()
        except OSError:
            self._give_up(stream)

    def _give_up(self, stream: TextIO) -> None:
        """Go on without a reader (`ecluse cut | head -1`): the exit code still says how it went."""
        self.broken = self.broken or stream is self._out
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        except (OSError, ValueError):
            return


def _tolerant(stream: TextIO | None) -> TextIO:
    """Make the stream replace characters that its encoding lacks, where it would fail on them."""
    if stream is None:  # started with a closed descriptor
        return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return stream


def _width(stream: TextIO) -> int:
    try:
        columns = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        columns = 0
    if columns <= 0 and stream.isatty():
        try:
            columns = os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
    return max(40, columns or 80)


def _colours(stream: TextIO) -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def wrap(text: str, width: int) -> list[str]:
    """Break text at spaces into lines of at most `width`; a longer word stays whole."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def fit(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Give each column's width so that all fit: the widest shrink first, none below 4."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    room = width - _MARGIN * (len(widths) - 1)
    while sum(widths) > room and max(widths) > 4:
        widths[widths.index(max(widths))] -= 1
    return widths


def _row(cells: Sequence[str], widths: Sequence[int], indent: int) -> str:
    shown = (
        cell.ljust(width) if len(cell) <= width else cell[: width - 2] + ".."
        for cell, width in zip(cells, widths, strict=True)
    )
    return " " * indent + (" " * _MARGIN).join(shown)
