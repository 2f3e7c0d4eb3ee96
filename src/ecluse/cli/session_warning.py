"""Warns, before a command is sent, that it may end the SSH session in which it was typed.

It asks nothing, waits for nothing and needs no daemon. A cut loads it only over SSH, so it imports
only what the interpreter has built in.
"""

import posix
from _socket import AF_INET, AF_INET6, inet_pton

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SSH = b"SSH_CONNECTION"  # sshd(8): client address, client port, server address, server port
_MAX_ANCESTORS = 4  # between sudo and the shell that sshd started
_MAX_BYTES = 1 << 20  # of site.yaml


def warn_session(zones: "Sequence[str]" = ()) -> None:
    """Write the warning to standard error, where a change of these zones may end the session.

    zones: empty for every zone. A change that leaves the zone `gateway` alone ends no session here.
    """
    remote = _SSH in posix.environ or b"SUDO_UID" in posix.environ
    if not remote or (zones and "gateway" not in zones):
        return
    text = session_warning()
    if text:
        try:
            posix.write(2, f"ecluse: {text}\n".encode())
        except OSError:  # standard error is closed
            return


def session_warning() -> str:
    """Give the warning, if the session comes from outside every network of site.yaml; else ''."""
    client = _client_address()
    packed = _pack_address(client)
    if packed is None:
        return ""
    directory = posix.environ.get(b"ECLUSE_CONFIG_DIR", b"/etc/ecluse")
    networks = list(_find_prefixes(_read_file(directory + b"/site.yaml")))
    if any(
        len(network) == len(packed) and _is_inside(packed, network, bits)
        for network, bits in networks
    ):
        return ""
    named = "no network of site.yaml" if networks else "a network that is not known here"
    return (
        f"This session comes from {client}, in {named}: it may end now. "
        "The command goes on without it."
    )


def _client_address() -> str:
    """Find the SSH client's address in the environment of this process or its ancestors.

    sudo(8) removes the variable; the shell that called it still has it. Empty without SSH.
    """
    connection, pid = posix.environ.get(_SSH, b""), posix.getppid()
    for _ in range(_MAX_ANCESTORS):
        if connection or pid <= 1:
            break
        for variable in _read_file(b"/proc/%d/environ" % pid).split(b"\0"):
            if variable.startswith(_SSH + b"="):
                connection = variable.partition(b"=")[2]
        # proc(5): the name in parentheses may hold anything, also spaces and `)`.
        after_name = _read_file(b"/proc/%d/stat" % pid).rpartition(b") ")[2].split()
        pid = int(after_name[1]) if len(after_name) > 1 else 0
    return connection.split(b" ")[0].decode("ascii", "replace")


def _read_file(path: bytes) -> bytes:
    try:
        handle = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return posix.read(handle, _MAX_BYTES)
    except OSError:
        return b""
    finally:
        posix.close(handle)


def _pack_address(text: str) -> "bytes | None":
    for family in (AF_INET, AF_INET6):
        try:
            return inet_pton(family, text)
        except OSError:
            continue
    return None


def _find_prefixes(site: bytes) -> "Iterator[tuple[bytes, int]]":
    """Find every `address/length` in the file, without YAML: the networks of zones and managers."""
    for line in site.split(b"\n"):
        words = line.partition(b"#")[0].decode("utf-8", "replace")
        for word in "".join(c if c not in "[]{},\"'" else " " for c in words).split():
            address, slash, length = word.partition("/")
            packed = _pack_address(address)
            if slash and packed is not None and length.isdigit() and len(length) < 4:
                yield packed, int(length)


def _is_inside(address: bytes, network: bytes, bits: int) -> bool:
    shift = max(8 * len(address) - bits, 0)
    return int.from_bytes(address, "big") >> shift == int.from_bytes(network, "big") >> shift
