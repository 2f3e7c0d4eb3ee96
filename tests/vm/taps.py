"""Starts a program with tap devices of other network namespaces open.

`python -m tests.vm.taps HOME NS:IF ... -- ARGV`.

The devices become file descriptors 3, 4, ... of the program, which runs in namespace HOME. So the
ends of a virtual machine's network cards are interfaces of the lab's namespaces, and the emulator
itself reaches nothing.
"""

import ctypes
import fcntl
import os
import struct
import sys

CLONE_NEWNET = 0x40000000  # sched.h
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
FIRST = 3
_LIBC = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str) -> None:
    """Put this process into a network namespace."""
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _LIBC.setns(handle, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    finally:
        os.close(handle)


def main(arguments: list[str]) -> None:
    at = arguments.index("--")
    home, *taps = arguments[:at]
    held = []
    for tap in taps:
        namespace, _, interface = tap.partition(":")
        enter(namespace)
        # far from the numbers that they get in the end
        handle = fcntl.fcntl(os.open("/dev/net/tun", os.O_RDWR), fcntl.F_DUPFD, 100)
        fcntl.ioctl(
            handle, TUNSETIFF, struct.pack("16sH22x", interface.encode(), IFF_TAP | IFF_NO_PI)
        )
        held.append(handle)
    for number, handle in enumerate(held, FIRST):
        os.dup2(handle, number)
    enter(home)
    os.execv(arguments[at + 1], arguments[at + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
