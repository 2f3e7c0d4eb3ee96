"""Says, before a command is sent, that it may end the very session in which it is typed.

No question, no wait, no daemon.

Loaded on the way of a cut only where it is typed over SSH; so it imports nothing that the
interpreter has not in itself.
"""

import posix
from _socket import AF_INET, AF_INET6, inet_pton

TYPE_CHECKING = False  # as in main
if TYPE_CHECKING:
    from collections.abc import Iterator

SSH = b"SSH_CONNECTION"  # sshd(8): client address, client port, server address, server port
_ANCESTORS = 4  # between sudo and the shell that sshd started
_MOST = 1 << 20  # bytes of site.yaml


def warning() -> str:
    """Give one line for a session from an address that site.yaml names nowhere; empty for every
    other.
    """
    client = _client()
    value = _packed(client)
    if value is None:
        return ""
    networks = list(
        _named(_read(posix.environ.get(b"ECLUSE_CONFIG_DIR", b"/etc/ecluse") + b"/site.yaml"))
    )
    if any(
        len(network) == len(value) and _starts(value, network, bits) for network, bits in networks
    ):
        return ""
    named = "no network of site.yaml" if networks else "a network that is not known here"
    return f"This session comes from {client}, in {named}: it may end now. The command goes on without it."


def tell() -> None:
    """Write that line to standard error, before anything else is done."""
    line = warning()
    if line:
        try:
            posix.write(2, f"ecluse: {line}\n".encode())
        except OSError:  # nobody reads it
            return


def _client() -> str:
    """Give the address from which this session's SSH connection comes; empty where it is none.

    sudo(8) takes it from the environment.
    """
    told, pid = posix.environ.get(SSH, b""), posix.getppid()
    for _ in range(_ANCESTORS):
        if told or pid <= 1:
            break
        for one in _read(b"/proc/%d/environ" % pid).split(b"\0"):
            if one.startswith(SSH + b"="):
                told = one.partition(b"=")[2]
        after_name = _read(b"/proc/%d/stat" % pid).rpartition(b") ")[2].split()
        pid = int(after_name[1]) if len(after_name) > 1 else 0
    return told.split(b" ")[0].decode("ascii", "replace")


def _read(path: bytes) -> bytes:
    try:
        handle = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return posix.read(handle, _MOST)
    except OSError:
        return b""
    finally:
        posix.close(handle)


def _packed(text: str) -> "bytes | None":
    for family in (AF_INET, AF_INET6):
        try:
            return inet_pton(family, text)
        except OSError:
            continue
    return None


def _named(site: bytes) -> "Iterator[tuple[bytes, int]]":
    """Find what is written as a prefix, whatever it is there for: the zones' subnets and who may
    manage the gateway.
    """
    for line in site.split(b"\n"):
        words = line.partition(b"#")[0].decode("utf-8", "replace")
        for word in "".join(c if c not in "[]{},\"'" else " " for c in words).split():
            address, slash, length = word.partition("/")
            packed = _packed(address)
            if slash and packed is not None and length.isdigit() and len(length) < 4:
                yield packed, int(length)


def _starts(value: bytes, network: bytes, bits: int) -> bool:
    shift = max(8 * len(value) - bits, 0)
    return int.from_bytes(value, "big") >> shift == int.from_bytes(network, "big") >> shift
