"""Recognises requests of web pages: a socket forwarded to a port is open to every page.

A page may send anything to `localhost`, or to a name of its own that leads there (DNS rebinding).
It can't leave out what the browser adds: the port in `Host`, `Sec-Fetch-*` (Fetch Metadata, W3C)
and `Origin` (RFC 6454). Nor can it send `Content-Type: application/json` to another site without
asking first (CORS), which nothing answers here.
"""

from collections.abc import Iterable

HOST = "localhost"
HINT = (
    "ask by 'curl --unix-socket /run/ecluse/ecluse.sock http://localhost/v1/status'; "
    "from elsewhere by 'ssh -L ./ecluse.sock:/run/ecluse/ecluse.sock', "
    "then the same with ./ecluse.sock"
)


def browser_sign(headers: Iterable[tuple[str, str]]) -> str:
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
