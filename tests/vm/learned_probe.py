"""Runs on the machine.

Sends to an address without a pause while the product puts it into its set again and again.

In a network namespace of its own. Tells as JSON what became of it.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from ipaddress import ip_address

from ecluse.kernel.netlink import NETLINK_NETFILTER, NetlinkSocket
from ecluse.kernel.proxy_sets import SetElement, add_elements, seconds_left

SET, ADDRESS, OTHER = "dns_svc_probe_4", "127.0.0.9", "127.0.0.10"
TABLE = f"""
table inet ecluse {{
  set {SET} {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1h; }}
  chain output {{
    type filter hook output priority -10; policy drop;
    ip daddr @{SET} update @{SET} {{ ip daddr }} accept
  }}
}}
"""


def send(sock: socket.socket, to: str) -> int:
    """Send one datagram; give 1 when it was refused (the output hook drops it: EPERM)."""
    try:
        sock.sendto(b"x", (to, 9))
    except PermissionError:
        return 1
    return 0


def main(rounds: int, packets: int) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["nft", "-f", "-"], input=TABLE, text=True, check=True)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    told = {
        "kernel": os.uname().release,
        "sent": 0,
        "refused": 0,
        "rounds": 0,
        "left_at_least": 1 << 30,
    }
    told["refused_without_it"] = send(sock, OTHER)
    going = threading.Event()
    going.set()

    def sender() -> None:
        while going.is_set() or told["sent"] < packets:
            told["refused"] += send(sock, ADDRESS)
            told["sent"] += 1

    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        for seconds in (30, 1200, 3000, None):
            add_elements(netlink, [SetElement(SET, ip_address(OTHER), seconds)])
            add_elements(netlink, [SetElement(SET, ip_address(OTHER))])
            told["left_at_least"] = min(
                told["left_at_least"], seconds_left(netlink, SET)[ip_address(OTHER)]
            )
        add_elements(netlink, [SetElement(SET, ip_address(ADDRESS))])
        thread = threading.Thread(target=sender)
        thread.start()
        while told["rounds"] < rounds or told["sent"] < packets:
            add_elements(netlink, [SetElement(SET, ip_address(ADDRESS))])
            told["rounds"] += 1
        going.clear()
        thread.join()
        told["left_in_the_end"] = seconds_left(netlink, SET)[ip_address(ADDRESS)]
    print(json.dumps(told))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
