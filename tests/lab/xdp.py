"""The smallest BPF programs (they pass every packet), attached to an interface of the namespace
that the caller is in.

By bpf(2) and rtnetlink alone: struct bpf_attr and the instructions from linux/bpf.h, IFLA_XDP_*
from linux/if_link.h.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ecluse.kernel.netlink import NLA_F_NESTED, NetlinkSocket, attribute

SYS_BPF, BPF_PROG_LOAD, BPF_PROG_ATTACH = 321, 5, 8  # x86_64
BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_XDP = 3, 6
BPF_TCX = {"ingress": 46, "egress": 47}
XDP_PASS, TCX_NEXT = 2, -1
XDP_FLAGS_SKB_MODE = 2
RTM_SETLINK, IFLA_XDP, IFLA_XDP_FD, IFLA_XDP_FLAGS = 19, 43, 1, 3


def _bpf(command: int, attr: bytes) -> int:
    held = ctypes.create_string_buffer(attr + bytes(128 - len(attr)))
    done = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, command, held, len(held))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(done)


@contextmanager
def _loaded(kind: int, verdict: int) -> Iterator[int]:
    # r0 = verdict; exit
    code = struct.pack("=BBhi", 0xB7, 0, 0, verdict) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    program, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attr = struct.pack(
        "=IIQQ", kind, len(code) // 8, ctypes.addressof(program), ctypes.addressof(licence)
    )
    handle = _bpf(BPF_PROG_LOAD, attr)
    try:
        yield handle
    finally:
        os.close(handle)


def attach(interface: str) -> None:
    """Attach an XDP program; it stays until the interface goes.

    OSError when this kernel does not allow it.
    """
    with _loaded(BPF_PROG_TYPE_XDP, XDP_PASS) as handle, NetlinkSocket(0) as route:
        inner = attribute(IFLA_XDP_FD, struct.pack("=i", handle))
        inner += attribute(IFLA_XDP_FLAGS, struct.pack("=I", XDP_FLAGS_SKB_MODE))
        where = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(interface), 0, 0)
        route.request(RTM_SETLINK, where + attribute(IFLA_XDP | NLA_F_NESTED, inner))


def attach_tcx(interface: str, side: str) -> None:
    """Attach a program to a tcx hook (Linux 6.6); it stays until the interface goes.

    OSError: EINVAL before that.
    """
    with _loaded(BPF_PROG_TYPE_SCHED_CLS, TCX_NEXT) as handle:
        _bpf(
            BPF_PROG_ATTACH,
            struct.pack("=III", socket.if_nametoindex(interface), handle, BPF_TCX[side]),
        )


if __name__ == "__main__":
    attach(sys.argv[1])
