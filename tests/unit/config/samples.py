"""Values that the tests of this package share."""

from datetime import date
from ipaddress import ip_network
from pathlib import Path

DAY = date(2026, 11, 1)


L = "allowlist.d/10-labs.yaml:"


TO = "to: [results.lab.example, 203.0.113.10]"


SECOND = """\
services:
  - name: second
    title: Second
    owner: x
    contact: "x"
    criticality: important
    {inside}
    destinations:
      - {way}: [{target}]
        ports: [{ports}]
    review: 2027-01-31
"""


def nets(*texts):
    return tuple(map(ip_network, texts))


HERE = "allowlist.d/10-labs.yaml"


UNBOUNDED = "'unbounded: true' beside it"


ADDRESS = "an address or a prefix such as 10.10.4.7, 10.10.0.0/16 or 2001:db8:10::/48"


NAME = "1 to 48 of a-z, 0-9 and '-', a letter first (a title may say more)"


HOST = "a full host name such as results.lab.example"


UNICAST = "addresses of single hosts (unicast)"


SITE_KEYS = "site, title, zones, lifeline, resolvers, levels, dns_gate, fast_path or second_lock"


IFACE = "at most 15 of letters, digits and _.+-, '*' only at the end"


PORTS = "ports: [tcp/443]"


LAST = "  - {name: reduced, title: Vital and important, keeps: [vital, important]}\n"


EXAMPLE = Path(__file__).parents[3] / "config"
