"""A flowtable for kept flows, in a table of its own beside table `inet ecluse`.

The kernel forwards packets of a flow in it before any chain of the forward hook sees them
(nf_flow_table_ip.c). The chain that puts flows in comes last at forward: what arrives there was let
through by our chains and by the site's own.

A table of its own can be taken away in any transaction by two messages that never fail for its
absence, on a kernel without flowtables too: add it, delete it. With it go all its flows: their next
packets are judged by the chains.
"""

from collections.abc import Iterable

from ecluse.policy import FastPath, Levels, Policy, level_named

TABLE = "inet ecluse_flows"
NAME = "kept"
PRIORITY = 1000
"""After the site's own chains at forward, and at ingress after those of its tables `netdev`."""
MOST_DEVICES = 256
"""The kernel takes no more of them (NFT_NETDEVICE_MAX)."""

REMOVAL = f"table {TABLE} {{\n}}\ndelete table {TABLE}\n"
"""Ends it, whether it stands or not."""


def is_wanted(policy: Policy, levels: Levels) -> bool:
    """Say whether a flowtable is to stand: the site asks for one, and some zone is not open."""
    return policy.site.fast_path is FastPath.FLOWTABLE and not all(
        level_named(policy.site, levels[zone]).passes_all for zone in policy.zone_names()
    )


def flowtable_text(devices: Iterable[str]) -> str:
    """Write the transaction that puts a new flowtable, without flows, in the place of any other.

    Only flows that both ends took part in get in. IPsec, fragments, IP options, expired TTLs and
    packets above the MTU go by the chains all the same: the kernel sees to that.

    devices: interfaces; the kernel refuses the whole where one does not exist.
    """
    listed = ", ".join(f'"{name}"' for name in devices)
    return (
        f"{REMOVAL}table {TABLE} {{\n"
        f"\tflowtable {NAME} {{\n"
        f"\t\thook ingress priority {PRIORITY}\n"
        f"\t\tdevices = {{ {listed} }}\n"
        "\t\tcounter\n"
        "\t}\n"
        "\tchain forward {\n"
        f"\t\ttype filter hook forward priority {PRIORITY}; policy accept;\n"
        f"\t\tmeta l4proto {{ 6, 17 }} ct state established flow add @{NAME}\n"
        "\t}\n"
        "}\n"
    )
