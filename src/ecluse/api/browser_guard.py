"""Tells a web page from a person: a socket that somebody forwards to a port is within reach of
every page in his browser.

A page may send anything to `localhost`, or to a name of its own that leads there (DNS rebinding).
What it can't do is leave out what the browser adds: the port in `Host`, `Sec-Fetch-*` (Fetch
Metadata, W3C) and `Origin` (RFC 6454); nor send `Content-Type: application/json` elsewhere without
asking first (CORS), which nobody answers here.
"""

from collections.abc import Iterable

HOST = "localhost"
HINT = (
    "ask by 'curl --unix-socket /run/ecluse/ecluse.sock http://localhost/v1/status'; "
    "from elsewhere by 'ssh -L ./ecluse.sock:/run/ecluse/ecluse.sock', then the same with ./ecluse.sock"
)


def mark_of(headers: Iterable[tuple[str, str]]) -> str:
    """Say what shows that a request may come from a web page; empty when nothing does.

    headers: every one, in order.
    """
    hosts = []
    for name, value in headers:
        lower = name.lower()
        if lower == "origin" or lower.startswith("sec-fetch-"):
            return f"it has the header {name}"
        if lower == "host":
            hosts.append(value.lower())
    return "" if hosts == [HOST] else f"its Host is not a bare '{HOST}'"
