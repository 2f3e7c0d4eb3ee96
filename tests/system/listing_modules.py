"""The real daemon, which writes the names of its modules: `python -m tests.system.listing_modules
FILE flags`, whenever FILE is asked for by an empty FILE.wanted.
"""

import sys
import threading
import time
from pathlib import Path

from ecluse import eclused


def answer(file: Path) -> None:
    wanted = file.with_suffix(".wanted")
    while True:
        time.sleep(0.05)
        if wanted.exists():
            new = file.with_suffix(".new")
            new.write_text("\n".join(sorted(sys.modules)))
            new.rename(file)
            wanted.unlink()


def main() -> int:
    file = Path(sys.argv.pop(1))
    threading.Thread(target=answer, args=(file,), daemon=True).start()
    return eclused.main()


if __name__ == "__main__":
    sys.exit(main())
