"""Errors as problem documents (RFC 9457).

Each says what failed and what to do next; none carries a traceback.
"""

from http import HTTPStatus

from ecluse.api.wire import FaultAt, Problem, to_json
from ecluse.errors import (
    ConfigError,
    EcluseError,
    ForbiddenError,
    GivenUpError,
    NotFoundError,
    RequestError,
    StaleError,
)

MEDIA = "application/problem+json"

_TYPE = "tag:ecluse.example,2026:problem:"  # a name (RFC 4151), not a place to fetch

_STATUS: tuple[tuple[type[EcluseError], int], ...] = (
    (ForbiddenError, 403),
    (GivenUpError, 408),
    (NotFoundError, 404),
    (StaleError, 409),
    (RequestError, 422),
    (ConfigError, 422),
)

_TITLES = {
    "failed": "The command failed",
    "config": "The site's files have faults",
    "request": "The request asks for what the site does not have",
    "not-found": "There is no such thing",
    "stale": "Something changed since it was shown or sent",
    "given-up": "Nobody waited any more",
    "forbidden": "You may not do this",
    "kernel": "The kernel refused",
    "ruleset-rejected": "The kernel would not take the ruleset",
    "not-verified": "The kernel does not show what was applied",
    "state": "The state directory could not be read or written",
    "corrupt": "A state file is damaged",
    "internal": "Something unexpected failed inside the daemon",
    "busy": "Too much at once",
}


class HttpRefusalError(Exception):
    """A request that HTTP itself refuses: for its path, method, size, type or time.

    Args:
        status: of HTTP.
        detail: what is wrong.
        hint: what to do.
        kind: a key of the titles.
        allow: methods for the header `Allow`.
        close: end the connection after the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        hint: str = "",
        kind: str = "http",
        allow: str = "",
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.kind = kind
        self.allow = allow
        self.close = close


def problem_of(error: Exception, instance: str) -> Problem:
    """Give the problem document of an error. instance: the path that was asked for."""
    if isinstance(error, HttpRefusalError):
        title = _TITLES.get(error.kind) or HTTPStatus(error.status).phrase
        return Problem(
            _TYPE + error.kind,
            title,
            error.status,
            error.detail,
            instance,
            error.kind,
            retry=error.status in {408, 503},
            hint=error.hint,
        )
    if isinstance(error, EcluseError):
        status = next(
            (code for kind, code in _STATUS if isinstance(error, kind)), 503 if error.retry else 500
        )
        faults = error.faults if isinstance(error, ConfigError) else ()
        return Problem(
            _TYPE + error.kind,
            _TITLES.get(error.kind, _TITLES["failed"]),
            status,
            error.message,
            instance,
            error.kind,
            retry=error.retry,
            hint=error.hint,
            faults=tuple(FaultAt(f.file, f.line, f.column, f.wrong, f.expected) for f in faults),
        )
    return Problem(
        _TYPE + "internal",
        _TITLES["internal"],
        500,
        "the daemon met an error of its own; "
        "if this was a command, it is not known whether it was carried out",
        instance,
        "internal",
        hint="run 'ecluse status' to see where things stand; the daemon's log has the details",
    )


def raw_response(problem: Problem) -> bytes:
    """Write a whole HTTP answer, for a connection without a request that aiohttp could answer."""
    body = to_json(problem, Problem)
    head = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
        f"Content-Type: {MEDIA}\r\nX-Content-Type-Options: nosniff\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
