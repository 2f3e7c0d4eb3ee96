"""Reads which features of a network card are on, by ethtool's ioctl (linux/ethtool.h).

It needs no privilege.
"""

import ctypes
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946
GSTRINGS, GSSET_INFO, GFEATURES = 0x1B, 0x37, 0x3A
SS_FEATURES = 4
STRING, BLOCK = 32, 16  # bytes of a name, and of struct ethtool_get_features_block
TC_OFFLOAD = "hw-tc-offload"


def active_features(interface: str) -> frozenset[str]:
    """Name the features of an interface that are on. OSError where it has none to tell of."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:

        def ask(request: bytes) -> bytes:
            buffer = ctypes.create_string_buffer(request, len(request))
            name = interface.encode().ljust(16, b"\0")
            ifreq = struct.pack("=16sQ16x", name, ctypes.addressof(buffer))
            fcntl.ioctl(asked, SIOCETHTOOL, ifreq)
            return buffer.raw

        count = struct.unpack_from(
            "=I", ask(struct.pack("=IIQI", GSSET_INFO, 0, 1 << SS_FEATURES, 0)), 16
        )[0]
        names = ask(struct.pack("=III", GSTRINGS, SS_FEATURES, count) + bytes(count * STRING))[12:]
        blocks = (count + 31) // 32
        told = ask(struct.pack("=II", GFEATURES, blocks) + bytes(blocks * BLOCK))[8:]
    on = [struct.unpack_from("=I", told, number * BLOCK + 8)[0] for number in range(blocks)]
    return frozenset(
        names[number * STRING : (number + 1) * STRING].split(b"\0")[0].decode(errors="replace")
        for number in range(count)
        if on[number // 32] >> (number % 32) & 1
    )
