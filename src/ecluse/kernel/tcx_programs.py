"""Counts BPF programs at an interface's tcx hooks (Linux 6.6), by bpf(2).

No dump of rtnetlink shows them. It needs CAP_NET_ADMIN, and a seccomp filter that lets bpf(2) pass.
Sources: BPF_PROG_QUERY and union bpf_attr in linux/bpf.h, `bpf_mprog_query` in kernel/bpf/mprog.c.
"""

import ctypes
import errno
import os
import struct

SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
"""Number of bpf(2) by machine."""

BPF_PROG_QUERY = 16
SIDES = {"ingress": 46, "egress": 47}  # BPF_TCX_INGRESS, BPF_TCX_EGRESS

# interface, attach type, flags of the question and of the answer, ids, count, and the addresses of
# buffers for more of each program
_QUERY = struct.Struct("=IIIIQIxxxxQQQQ")


def count_programs(index: int, side: str) -> int:
    """Count the programs at one side of an interface.

    Args:
        index: the interface's number.
        side: a key of SIDES.

    Raises:
        OSError: EPERM where it may not be asked.
    """
    number = SYSCALLS.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    asked = ctypes.create_string_buffer(
        _QUERY.pack(index, SIDES[side], 0, 0, 0, 0, 0, 0, 0, 0), _QUERY.size
    )
    if ctypes.CDLL(None, use_errno=True).syscall(number, BPF_PROG_QUERY, asked, _QUERY.size) < 0:
        code = ctypes.get_errno()
        # A kernel without tcx, no program there, an interface that is gone.
        if code in {errno.EINVAL, errno.ENOENT, errno.ENODEV}:
            return 0
        raise OSError(code, os.strerror(code))
    return int(_QUERY.unpack(asked.raw)[5])
