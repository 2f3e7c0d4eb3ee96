"""`python -m make_deb`: build the packages, or pin the newest libraries."""

import argparse
import sys
from pathlib import Path

from make_deb import package, suites, wheels


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="make_deb")
    parser.add_argument("what", choices=("build", "lock"))
    parser.add_argument("--suite", action="append", choices=[suite.name for suite in suites.SUITES])
    parser.add_argument(
        "--version", default="", help="instead of the one of pyproject.toml and git"
    )
    parser.add_argument("--out", type=Path, default=suites.ROOT / "build/deb")
    args = parser.parse_args()
    wanted = [suite for suite in suites.SUITES if not args.suite or suite.name in args.suite]
    if args.what == "lock":
        for suite in wanted:
            wheels.lock(suite)
        return 0
    stamp = suites.stamp(args.version)
    for suite in wanted:
        print(package.build(suite, stamp, args.out, suites.ROOT / "build/wheels"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
