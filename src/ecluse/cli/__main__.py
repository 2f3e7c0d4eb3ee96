"""`python -m ecluse.cli`: the command line from a checkout."""

from ecluse.cli.hurry import run

run()
