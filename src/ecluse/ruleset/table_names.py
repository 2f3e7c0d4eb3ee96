"""Names inside table `inet ecluse`.

A `-` of a site's name becomes `_`; a dot parts words, so that none collide.
"""

BASE_CHAINS = ("forward", "input", "output", "postrouting")
"""The chains that judge; each holds one rule, a goto into the slot that is live."""

SOURCE_CHAINS = RAW, PREROUTING = ("raw", "prerouting")
"""Base chains before those, which ask where a source comes from and refuse nothing
(`ruleset.source_check`).
"""

IDLE_CHAINS = (RAW,)
"""Base chains that have no rule while every zone is open: every packet pays for a rule.

Only one that never refuses can be so: the kernel takes the rules of a transaction before the
policies (nf_tables_commit), so that an emptied chain would drop until its new policy counts.
"""

SPOOFED = 127
"""The connection's label (`ct label`) that says that its opener wrote an address which does not
live where it came from.
"""

OURS = 126
"""The connection's label that says that our own programs asked a resolver by it."""

SERVICE_COUNTER = "svc_"
REFUSED_OUT = "refused_out"
REFUSED_IN = "refused_in"
FLOW_SETS = ("refused4", "refused6")
REFUSED_SETS = (*FLOW_SETS, "refused_hosts4", "refused_hosts6")

DNS = "dns"
"""The base chain of the redirect, at its own hook; there where the site has a DNS gate, and one
goto as the others.
"""
DNS_LIMITED = "dns_limited"
LIMITED_SETS = ("dns_limited_4", "dns_limited_6")
"""Which machines asked the DNS gate more than they may, and how many of their questions were
dropped.
"""
LEARNED = "dns_"
GUARD = "k0_guard"
"""The chain of the smallest table (`Firewall.guard`): slot 0 is nobody else's, so it goes with the
next tidying.
"""

OWN_LINK = "._from"
"""Ends the name of the gate, and of the level's chain, for what came by a zone's own interface.

No name of a site begins with a `_`.
"""

ELSEWHERE = "elsewhere"
"""The gate for interfaces that are in no zone: open only while every zone is open."""


def identifier(name: str) -> str:
    """Make a site's name (`[a-z][a-z0-9-]*`) an nft identifier."""
    return name.replace("-", "_")


def prefix(slot: int) -> str:
    """Give the prefix of all that belongs to one loaded program."""
    return f"k{slot}_"


def slot_of(name: str) -> int | None:
    """Give the slot that a name belongs to, None for a name that belongs to none."""
    head, _, rest = name.partition("_")
    return int(head[1:]) if rest and head.startswith("k") and head[1:].isdigit() else None


def inside_set(slot: int) -> str:
    """Name the set of the zones' interfaces."""
    return prefix(slot) + "inside"


def counter_name(service: str) -> str:
    """Name a service's counter; it is shared by all slots, so that a reload loses no count."""
    return SERVICE_COUNTER + identifier(service)


def service_of(counter_name: str) -> str:
    """Give the service whose counter this is: no name of a site has a `_`."""
    return counter_name.removeprefix(SERVICE_COUNTER).replace("_", "-")


def learned_set(digit: str, service: str = "") -> str:
    """Name a set that the DNS gate fills: for one service, or for all of them.

    It belongs to no slot.
    """
    return f"{LEARNED}svc_{identifier(service)}_{digit}" if service else f"{LEARNED}all_{digit}"


def rate_set(digit: str) -> str:
    """Name the set that bounds the questions of each client."""
    return f"{LEARNED}rate_{digit}"


def is_learned_set(name: str) -> bool:
    """Say whether a set is one that the DNS gate fills."""
    return name.startswith((f"{LEARNED}svc_", f"{LEARNED}all_"))


def is_switched(chain: str) -> bool:
    """Say whether a chain's rules are state of the switch, and not part of the program.

    A switch changes them, and `Firewall.targets` reads them.
    """
    return chain in BASE_CHAINS or chain in SOURCE_CHAINS or chain == DNS or is_gate_chain(chain)


def gate_chain(slot: int, where: str) -> str:
    """Name a gate: a chain of one rule, which goes to the chain of its zone's level.

    where: a zone, or the gateway and a hook.
    """
    return f"{prefix(slot)}gate.{identifier(where)}"


def level_chain(slot: int, level: str, where: str) -> str:
    """Name the chain that judges one zone (or hook of the gateway) at one level."""
    return f"{prefix(slot)}at.{identifier(level)}.{identifier(where)}"


def subnet_set(slot: int, digit: str, zone: str) -> str:
    """Name the set of a zone's subnets of one family (digit 4 or 6)."""
    return f"{prefix(slot)}subnets{digit}.{identifier(zone)}"


def is_gate_chain(name: str) -> bool:
    """Say whether a chain is a gate: its one rule is state of the switch."""
    return slot_of(name) is not None and name.partition("_")[2].startswith("gate.")
