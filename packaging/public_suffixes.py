"""Write the bundled list of public suffixes: `make public-suffixes`.

LIST=FILE takes another list than Debian's.

The list: https://publicsuffix.org, in Debian's package `publicsuffix`. Rules alone, names as DNS
has them (A-labels), sorted.
"""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

DEBIAN = Path("/usr/share/publicsuffix/public_suffix_list.dat")
OURS = Path(__file__).parents[1] / "src/ecluse/config/public_suffixes.txt"
HEAD = """\
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.
# The public suffix list (https://publicsuffix.org), both parts, no comments.
# `make public-suffixes` writes it.
# of: {date}
"""


def compact(text: str, date: str) -> str:
    """Give the rules of a list. date: of the list, for one that does not say it itself."""
    said = re.search(r"^// VERSION: (\d{4}-\d{2}-\d{2})", text, re.MULTILINE)
    rules = {
        line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("//")
    }
    ascii_rules = sorted(rule.encode("idna").decode() for rule in rules)
    return HEAD.format(date=said[1] if said else date) + "\n".join([*ascii_rules, ""])


def main() -> None:
    """Read the list that is named, or Debian's."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else DEBIAN
    date = datetime.fromtimestamp(source.stat().st_mtime, UTC).date().isoformat()
    OURS.write_text(compact(source.read_text(encoding="utf-8"), date), encoding="ascii")


if __name__ == "__main__":
    main()
