"""`python -m ecluse.cli`: the command line from a checkout."""

from ecluse.cli.fast_path import run

run()
