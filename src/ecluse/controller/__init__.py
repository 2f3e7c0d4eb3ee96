"""The controller: every change of the gate goes through it, one at a time."""

from ecluse.controller.controller import Controller

__all__ = ["Controller"]
