"""The lab's site and allowlist, as the YAML files of a configuration directory."""

import copy
from pathlib import Path
from typing import Any

import yaml

from tests.lab import places

SITE: dict[str, Any] = {
    "site": "chu-example",
    "title": "CHU d'Example",
    "zones": [
        {
            "name": zone.name,
            "title": zone.name.capitalize(),
            "interfaces": [zone.interface],
            "subnets": list(zone.subnets),
        }
        for zone in places.ZONES
    ],
    "lifeline": {
        "management": {"networks": ["10.20.9.0/24", "2001:db8:20::9:0/112"], "ports": ["tcp/22"]},
        "presets": ["nd"],
    },
    "resolvers": [places.DNS_SERVER.v4],
    "levels": [
        {"name": "reduced", "title": "Vital and important", "keeps": ["vital", "important"]}
    ],
}


def service(
    name: str, criticality: str, zones: list[str], destinations: list[dict], **more: Any
) -> dict:
    """Give one service of an allowlist file; owner, contact and title are filled in."""
    return {
        "name": name,
        "title": name.replace("-", " ").capitalize(),
        "owner": "Biology",
        "contact": "+33 5 55 55 01 00",
        "criticality": criticality,
        "zones": zones,
        "destinations": destinations,
        "review": "2031-01-31",
    } | more


def _both(place: places.Place, *names: str) -> list[str]:
    return [*names, place.v4, place.v6]


LABS = [
    service(
        "laboratory",
        "vital",
        ["care"],
        [
            {
                "to": _both(places.LABORATORY, "results.lab.example"),
                "ports": ["tcp/443", "tcp/22", "udp/5000-5001", "icmp"],
            }
        ],
    ),
    service(
        "health-data",
        "vital",
        ["care", "gateway"],
        [
            {
                "to": _both(places.HEALTH_DATA),
                "ports": ["udp/500", "udp/4500", "esp", "gre", "sctp/2905"],
            }
        ],
    ),
    service(
        "partner-results",
        "vital",
        ["care"],
        [
            {
                "from": ["203.0.113.64/28", "2001:db8:ffff:64::/64"],
                "ports": [f"tcp/{places.FORWARDED_PORT}"],
            }
        ],
    ),
]
FINANCE = [
    service(
        "treasury",
        "vital",
        ["administration"],
        [{"to": _both(places.TREASURY, "pay.treasury.example"), "ports": ["tcp/443"]}],
    ),
]
GENERAL = [
    service(
        "dns",
        "vital",
        ["gateway"],
        [{"to": _both(places.DNS_SERVER), "ports": ["udp/53", "tcp/53"]}],
    ),
    service(
        "mail-relay",
        "important",
        ["administration", "gateway"],
        [{"to": _both(places.MAIL_RELAY, "relay.mail.example"), "ports": ["tcp/25"]}],
    ),
    service(
        "remote-maintenance",
        "deferrable",
        ["care"],
        [{"to": _both(places.MAINTENANCE), "ports": ["tcp/443"]}],
    ),
]

ALLOWLIST: dict[str, list[dict]] = {
    "10-labs.yaml": LABS,
    "20-finance.yaml": FINANCE,
    "30-general.yaml": GENERAL,
}
"""File name -> its services."""


def site(**changes: Any) -> dict[str, Any]:
    """Give a copy of the lab's site with some keys replaced."""
    return copy.deepcopy(SITE) | changes


def write(
    directory: Path, site: dict | None = None, allowlist: dict[str, list[dict]] | None = None
) -> None:
    """Write a whole configuration directory; files of `allowlist.d` not given are removed."""
    folder = directory / "allowlist.d"
    folder.mkdir(parents=True, exist_ok=True)
    files = ALLOWLIST if allowlist is None else allowlist
    for old in folder.glob("*.yaml"):
        if old.name not in files:
            old.unlink()
    _dump(directory / "site.yaml", SITE if site is None else site)
    for name, services in files.items():
        _dump(folder / name, {"services": services})


def _dump(path: Path, value: dict) -> None:
    text = yaml.safe_dump(copy.deepcopy(value), sort_keys=False, allow_unicode=True)
    path.write_text(text.replace("'2031-01-31'", "2031-01-31"), encoding="utf-8")
