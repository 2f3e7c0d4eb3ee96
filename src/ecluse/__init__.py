"""Écluse: one command that cuts a hospital off the internet and keeps its vital services."""

__version__ = "0.2.0"
