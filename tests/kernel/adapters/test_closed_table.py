"""The smallest table that shuts the gate: what the kernel makes of it, and where it is not made."""

import socket
import subprocess

import pytest

from ecluse.kernel.closed_table import closed_table_requests
from ecluse.ruleset.table_names import GUARD
from tests.kernel.adapters.conftest import PROGRAM, do, nft

pytestmark = pytest.mark.kernel


def listed() -> str:
    done = subprocess.run(
        ["nft", "-s", "list", "table", "inet", "ecluse"], capture_output=True, text=True, check=True
    )
    return " ".join(done.stdout.split())


async def test_the_table_drops_all_but_the_inside(firewall):
    assert firewall.apply_closed_table(["care0", "vlan1*"])
    assert await firewall.policies() == dict.fromkeys(
        ("forward", "input", "output", "postrouting"), "drop"
    )
    text = listed()
    assert f'chain {GUARD} {{ oifname "care0" accept oifname "vlan1*" accept }}' in text
    assert f'iifname "care0" jump {GUARD} iifname "vlan1*" jump {GUARD}' in text
    assert 'iifname "lo" accept iifname "care0" accept iifname "vlan1*" accept' in text
    assert 'iif != 0 accept oifname "lo" accept' in text, "what is forwarded was judged before"


async def test_where_a_table_stands_it_is_left_alone(firewall):
    await firewall.apply(PROGRAM)
    before = await firewall.fingerprint()
    assert not firewall.apply_closed_table(["care0"])
    assert await firewall.fingerprint() == before
    nft("delete table inet ecluse")
    assert firewall.apply_closed_table(["care0"]), "positive control"
    assert not firewall.apply_closed_table(["care0"]), "its own, too"


async def test_packets_of_the_gateway_go_inside_and_nowhere_else(firewall, gateway):
    do("ip addr add 10.20.0.1/24 dev care0", "ip addr add 198.51.100.2/24 dev wan0")
    do("ip link set far0 up", "ip link set in0 up")

    def send(address: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (address, 9))

    send("198.51.100.9")  # positive control
    assert firewall.apply_closed_table(["care0"])
    send("10.20.0.9")
    with pytest.raises(PermissionError):  # what the sender hears of a drop at the output hook
        send("198.51.100.9")


def test_a_star_alone_means_every_interface():
    some, every = closed_table_requests(("care*",)), closed_table_requests(("*",))
    assert len(some) == len(every)
    assert sum(len(body) for *_, body in every) < sum(len(body) for *_, body in some)
    assert not any(b"*" in body for *_, body in (*some, *every))
