"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, text: str, mode: int = 0o644, *, lasting: bool = True) -> None:
    """Replace a file as one: whoever reads it finds the old one or the new one.

    OSError when that is not possible.

    lasting: it is to be there after a power cut too.
    """
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), mode)
        if lasting:
            os.fsync(file.fileno())
    temporary.replace(path)
