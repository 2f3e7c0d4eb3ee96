"""The one service for one zone that the ruleset's tests have."""

from tests.unit.ruleset.conftest import policy

__all__ = ["policy"]
