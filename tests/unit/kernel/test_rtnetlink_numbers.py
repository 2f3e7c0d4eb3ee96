"""Our numbers of rtnetlink are the kernel's."""

import re

from ecluse.kernel import rtnetlink_numbers as numbers
from tests.unit.kernel.headers import INCLUDE, constants, differing

HEADERS = (
    *(
        "rtnetlink.h",
        "if_link.h",
        "if_addr.h",
        "neighbour.h",
        "net_namespace.h",
        "if.h",
        "if_arp.h",
    ),
    *("pkt_sched.h", "pkt_cls.h", "tc_act/tc_mirred.h"),
)


def test_the_numbers_are_those_of_the_headers():
    assert differing(numbers, constants(*HEADERS)) == {}


def test_the_headers_of_messages_are_as_long_as_the_kernels():
    text = (INCLUDE / "rtnetlink.h").read_text(encoding="utf-8")
    sizes = {"unsigned char": 1, "unsigned short": 2, "unsigned": 4, "int": 4, "__u32": 4}
    for name, ours in (
        ("ifinfomsg", numbers.IFINFOMSG),
        ("rtmsg", numbers.RTMSG),
        ("tcmsg", numbers.TCMSG),
    ):
        body = re.search(rf"struct {name} \{{(.*?)\}};", text, re.DOTALL)
        assert body, name
        fields = re.findall(r"^\s*((?:unsigned )?\w+)\s+\w+;", body[1], re.MULTILINE)
        assert sum(sizes[kind] for kind in fields) == ours.size, name
