"""Which zones an interface is in, by its name. Pure."""

from ecluse.policy import Policy, Zone


class InterfaceZones:
    """Finds the zones of an interface by the patterns of site.yaml (`care0`, `vlan1*`).

    Exact names are looked up; only patterns with a `*` are tried one by one. So thousands of
    interfaces are judged quickly.
    """

    def __init__(self, policy: Policy) -> None:
        self._exact: dict[str, list[Zone]] = {}
        self._prefixes: list[tuple[str, Zone]] = []
        for zone in policy.site.zones:
            for pattern in zone.interfaces:
                if pattern.endswith("*"):
                    self._prefixes.append((pattern.rstrip("*"), zone))
                else:
                    self._exact.setdefault(pattern, []).append(zone)

    def zones_of(self, name: str) -> list[Zone]:
        """Give the zones of an interface; none: it counts as outside."""
        return [
            *self._exact.get(name, ()),
            *(zone for prefix, zone in self._prefixes if name.startswith(prefix)),
        ]


def matching_patterns(zone: Zone, name: str) -> list[str]:
    """Give the patterns of a zone that an interface's name fits."""
    return [
        pattern
        for pattern in zone.interfaces
        if (name.startswith(pattern.rstrip("*")) if pattern.endswith("*") else name == pattern)
    ]
