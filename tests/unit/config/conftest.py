"""A small site that is right in every way; each test changes one thing of it."""

from datetime import date
from pathlib import Path

import pytest

from ecluse.config import lint, load_policy, read_directory, warnings_of
from ecluse.errors import ConfigError

SITE = """\
site: chu-example
title: CHU d'Example
zones:
  - name: care
    title: Care
    interfaces: [lan0, "vlan1*"]
    subnets: [10.10.0.0/16, "2001:db8:10::/48"]
  - name: offices
    interfaces: [lan1]
    subnets: [10.20.0.0/16]
lifeline:
  management: {networks: [10.90.0.0/24], ports: [tcp/22]}
  presets: [dhcp, nd, vrrp]
resolvers: [192.0.2.53]
levels:
  - {name: reduced, title: Vital and important, keeps: [vital, important]}
"""

LABS = """\
services:
  - name: laboratory
    title: Outside laboratory
    owner: Biology
    contact: "+33 5 55 55 01 00"
    criticality: vital
    zones: [care]
    destinations:
      - to: [results.lab.example, 203.0.113.10]
        ports: [tcp/443]
    review: 2027-01-31
"""

DNS = """\
services:
  - name: dns
    title: DNS of the provider
    owner: x
    contact: "x"
    criticality: vital
    zones: [gateway]
    destinations:
      - to: 192.0.2.53
        ports: [udp/53, tcp/53]
    review: 2031-01-31
"""


class Files:
    """A configuration directory under test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "allowlist.d").mkdir(parents=True)
        self.write("site.yaml", SITE)
        self.write("allowlist.d/10-labs.yaml", LABS)

    def write(self, name: str, text: str | bytes) -> Path:
        target = self.path / name
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
        return target

    def site(self, old: str, new: str) -> None:
        assert SITE.count(old) == 1, f"{old!r} must stand in the sample once"
        self.write("site.yaml", SITE.replace(old, new))

    def dns(self, criticality: str = "vital") -> None:
        """Keep a DNS server for the gateway, which all may ask: without it the sample's name is
        warned about.
        """
        self.write("allowlist.d/90-dns.yaml", DNS.replace("vital", criticality))

    def labs(self, old: str, new: str) -> None:
        assert LABS.count(old) == 1, f"{old!r} must stand in the sample once"
        self.write("allowlist.d/10-labs.yaml", LABS.replace(old, new))

    def dns_gate(self, text: str) -> None:
        """Append these lines of `dns_gate` to the sample."""
        self.write("site.yaml", f"{SITE}dns_gate:\n{text}")

    def faults(self) -> list[str]:
        """Load; return each fault as `file:line:column: text`, without the directory."""
        with pytest.raises(ConfigError) as caught:
            load_policy(self.path)
        return [str(fault).replace(f"{self.path}/", "") for fault in caught.value.faults]

    def warnings(self, day: date = date(2026, 11, 1), dns: str = "vital") -> list[str]:
        """Load beside a kept DNS server (unless dns is empty); return the warnings of that day."""
        if dns:
            self.dns(dns)
        found = warnings_of(read_directory(self.path), day)
        return [str(fault).replace(f"{self.path}/", "") for fault in found]

    def site_fault(self, old: str, new: str, said: str, *, alone: bool = True) -> None:
        """Change the site's sample; expect this fault, and (alone) no other."""
        self.site(old, new)
        found = self.faults()
        assert f"site.yaml:{said}" in found
        assert len(found) == 1 or not alone, found

    def labs_fault(self, old: str, new: str, said: str, *, alone: bool = True) -> None:
        """Change the allowlist's sample; expect this fault, and (alone) no other."""
        self.labs(old, new)
        found = self.faults()
        assert f"allowlist.d/10-labs.yaml:{said}" in found
        assert len(found) == 1 or not alone, found


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "conf")


@pytest.fixture(autouse=True)
def documentation_addresses_count_as_real(request, monkeypatch):
    """All samples are written in them; the warning about that has tests of its own (`examples`)."""
    if "examples" not in request.keywords:
        monkeypatch.setattr(lint, "find_examples", lambda *_: ())
