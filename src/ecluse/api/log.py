"""The little that the server asks of a logger; structlog's bound loggers are one."""

from typing import Any, Protocol


class Log(Protocol):
    """Words and named values."""

    def info(self, event: str, **values: Any) -> Any:
        """Say what is normal and worth a line."""

    def warning(self, event: str, **values: Any) -> Any:
        """Say what somebody should look at."""

    def error(self, event: str, **values: Any) -> Any:
        """Say what failed."""
