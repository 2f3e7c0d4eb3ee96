"""A fault in the site's files, with its place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong in one file.

    Line and column count from 1; both are 0 when the fault has no place in the file.
    """

    file: str
    line: int
    column: int
    wrong: str
    expected: str = ""

    def here(self, wrong: str, expected: str = "") -> "Fault":
        """Give another fault at the same place."""
        return Fault(self.file, self.line, self.column, wrong, expected)

    def __str__(self) -> str:
        """Give `file:line:column: what is wrong, what was expected`."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.wrong}" + (f", expected {self.expected}" if self.expected else "")
