"""What a shape is, and what is expected of it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .place import KEPT, SUBNETS, Place
from .traffic import Way

CLEAN, LEAKS, DIES = "clean", "leaks", "dies"
"""At cut: what is kept goes on whole and nothing else leaves; something leaves; nothing passes."""


def nothing(_place: Place) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Shape:
    """One shape of gateway.

    build: makes it. at_cut, at_isolate: CLEAN, LEAKS or DIES. named: what `check --host` or
    `status` has to say of it; unsaid: what neither may say. during: what happens while cut, with
    the kept streams going. loses: packets that a stream may lose by it. links, presets, site: of
    site.yaml. gateway_keeps: ports that the gateway itself keeps to and from the partner.
    care_keeps: destinations of the inside beside the usual one. calls: ways in place of the usual
    ones; asks_too: beside them. settles: seconds for what is on its way when the cut is answered
    (netem). purged: packets count from the end of the purge, a moment after the answer.
    """

    name: str
    build: Callable[[Place], None]
    families: tuple[int, ...] = (4, 6)
    at_cut: str = CLEAN
    at_isolate: str = CLEAN
    named: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    during: Callable[[Place], None] = nothing
    loses: int = 0
    links: tuple[str, ...] = ("lan0",)
    presets: tuple[str, ...] = ("nd",)
    site: dict[str, Any] = field(default_factory=dict)
    gateway_keeps: tuple[str, ...] = ()
    care_keeps: tuple[dict[str, Any], ...] = ()
    partner: str = "192.0.2.1"
    calls: tuple[Way, ...] = ()
    asks_too: tuple[Way, ...] = ()
    settles: float = 0.0
    purged: bool = False
    stranger: bool = True

    def policy(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give site.yaml and the allowlist's file: JSON is YAML."""
        site: dict[str, Any] = {
            "site": "shape",
            "title": self.name,
            "zones": [
                {
                    "name": "care",
                    "title": "Care",
                    "interfaces": list(self.links),
                    "subnets": list(SUBNETS),
                }
            ],
            "lifeline": {
                "management": {"networks": ["10.90.0.0/24"], "ports": ["tcp/22"]},
                "presets": list(self.presets),
            },
        }
        site |= copy.deepcopy(self.site)
        services = [service("laboratory", ["care"], [KEPT[f] for f in self.families])]
        services[0]["destinations"] += copy.deepcopy(self.care_keeps)
        if self.gateway_keeps:
            ports = list(self.gateway_keeps)
            ends = [{end: [self.partner], "ports": ports} for end in ("to", "from")]
            own = service("of-the-gateway", ["gateway"], [])
            services.append(own | {"destinations": ends})
        return site, {"services": services}


def service(name: str, zones: list[str], to: list[str]) -> dict[str, Any]:
    """Give a vital service, as the allowlist's files write it."""
    return {
        "name": name,
        "title": name.capitalize(),
        "owner": "Biology",
        "contact": "+33 5 55 55 01 00",
        "criticality": "vital",
        "zones": zones,
        "destinations": [{"to": to, "ports": ["tcp/5001", "udp/5001", "icmp"]}],
        "review": "2031-01-31",
    }
