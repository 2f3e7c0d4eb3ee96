"""The smallest XDP program (it passes every packet), attached to an interface of the namespace that the caller is in.

By bpf(2) and rtnetlink alone: struct bpf_attr and the instructions from linux/bpf.h, IFLA_XDP_* from linux/if_link.h.
"""

import ctypes
import os
import socket
import struct
import sys

from ecluse.kernel.netlink import NLA_F_NESTED, Netlink, attribute

SYS_BPF, BPF_PROG_LOAD, BPF_PROG_TYPE_XDP = 321, 5, 6  # x86_64
XDP_FLAGS_SKB_MODE = 2
RTM_SETLINK, IFLA_XDP, IFLA_XDP_FD, IFLA_XDP_FLAGS = 19, 43, 1, 3
# r0 = XDP_PASS; exit
PASS = struct.pack("=BBhi", 0xB7, 0, 0, 2) + struct.pack("=BBhi", 0x95, 0, 0, 0)


def attach(interface: str) -> None:
    """Attach it; it stays until the interface goes. OSError when this kernel does not allow it."""
    program, licence = ctypes.create_string_buffer(PASS), ctypes.create_string_buffer(b"GPL")
    attr = struct.pack(
        "=IIQQ", BPF_PROG_TYPE_XDP, len(PASS) // 8, ctypes.addressof(program), ctypes.addressof(licence)
    )
    held = ctypes.create_string_buffer(attr + bytes(96))
    handle = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, BPF_PROG_LOAD, held, len(held))
    if handle < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        inner = attribute(IFLA_XDP_FD, struct.pack("=i", handle))
        inner += attribute(IFLA_XDP_FLAGS, struct.pack("=I", XDP_FLAGS_SKB_MODE))
        where = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(interface), 0, 0)
        with Netlink(0) as route:
            route.request(RTM_SETLINK, where + attribute(IFLA_XDP | NLA_F_NESTED, inner))
    finally:
        os.close(handle)


if __name__ == "__main__":
    attach(sys.argv[1])
