"""A real server on a real socket, and ways to talk to it: properly, badly, and as somebody else."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from ecluse.accounts import Accounts
from ecluse.api.server import serve
from tests.unit.api.fake_controller import FakeController

READERS, OPERATORS = 61001, 61002  # gids that no machine of ours uses


SYSTEM_PYTHON = "/usr/bin/python3"  # another uid may not read our virtual environment


class ListLog:
    def __init__(self):
        self.lines = []

    def info(self, event, **values):
        self.lines.append(("info", event, values))

    def warning(self, event, **values):
        self.lines.append(("warning", event, values))

    def error(self, event, **values):
        self.lines.append(("error", event, values))


@contextlib.contextmanager
def open_folder():
    """A folder that every uid may enter; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="ecluse-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def running(commands=None, **settings):
    """A server; gives (commands, socket path, server, log)."""
    commands = commands or FakeController()
    log = ListLog()
    with open_folder() as folder:
        path = settings.pop("socket_path", folder / "e.sock")
        (folder / "passwd").write_text(
            "root:x:0:0::/root:/bin/sh\nreader:x:61011:61011::/:/bin/sh\n"
        )
        (folder / "group").write_text(f"ecluse:x:{READERS}:\necluse-operators:x:{OPERATORS}:\n")
        settings.setdefault("readers", "ecluse")
        settings.setdefault("operators", "ecluse-operators")
        settings.setdefault("mode", 0o666)
        accounts = Accounts(folder / "passwd", folder / "group")
        server = await serve(commands, socket_path=path, log=log, accounts=accounts, **settings)
        try:
            yield commands, path, server, log
        finally:
            await server.close()


class ServerThread:
    """The same in a thread of its own, for clients that block."""

    def __init__(self, commands=None, **settings):
        self.commands = commands or FakeController()
        self._settings = settings
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self):
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with running(self.commands, **self._settings) as (
            _,
            self.path,
            self.server,
            self.log,
        ):
            self._ready.set()
            await self._stop.wait()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


def request_bytes(method, path, body=None, headers=(), *, close=True):
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        *(["Connection: close"] if close else []),
        *headers,
    ]
    if body is not None or method == "POST":
        if not any(line.lower().startswith("content-type") for line in headers):
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(body or b'')}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def parse(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body


async def raw(path, data, *, timeout=15):
    """Send bytes, give all that comes back until the server closes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        got = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await asyncio.wait_for(reader.read(65536), timeout):
                got += chunk
        return got
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(path, method, where, body=None, headers=()):
    """One request; gives (status, headers, JSON or bytes)."""
    data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
    status, found, answer = parse(await raw(path, request_bytes(method, where, data, headers)))
    return status, found, json.loads(answer) if "json" in found["content-type"] else answer


_ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1])
s.sendall(sys.stdin.buffer.read())
while data := s.recv(65536):
    sys.stdout.buffer.write(data)
"""


async def ask_as(uid, groups, path, method, where, body=None):
    """One request from a process with another uid and groups, as the kernel sees it."""
    data = json.dumps(body).encode() if body is not None else None
    process = await asyncio.create_subprocess_exec(
        SYSTEM_PYTHON,
        "-I",
        "-c",
        _ASK,
        str(path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=uid,
        group=uid,
        extra_groups=groups,
        cwd="/",
    )
    answer, _ = await process.communicate(request_bytes(method, where, data))
    status, headers, content = parse(answer)
    return status, headers, json.loads(content)


def hold(path, data=b""):
    """A connection that is opened and left lying."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(path))
    if data:
        sock.sendall(data)
    return sock


GET = request_bytes("GET", "/v1/status")


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def read_until_closed(sock, within):
    """Read until the other side closes; give what came and after how long."""
    sock.setblocking(False)
    loop, begin, got = asyncio.get_running_loop(), time.monotonic(), b""
    with contextlib.suppress(ConnectionError):
        while chunk := await asyncio.wait_for(loop.sock_recv(sock, 65536), within):
            got += chunk
    return got, time.monotonic() - begin


async def is_fast(path, seconds=1.0):
    begin = time.monotonic()
    assert (await ask(path, "GET", "/v1/status"))[0] == 200
    assert time.monotonic() - begin < seconds


LEVEL = {"level": "cut", "reason": "ransomware", "authorised_by": "Dr Martin", "zones": ["care"]}
