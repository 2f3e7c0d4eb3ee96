"""What each look at a packet costs in nf_tables itself.

Why a gate that judges every packet cannot be free.
"""

import statistics
from collections import defaultdict

from tests.bench import site
from tests.bench.figures import Section
from tests.bench.gate import Gate
from tests.bench.rows_forward import Course

_SETS = f"""
  counter svc {{ }}
  map kept {{ type ipv4_addr . inet_service . inet_proto : counter
    elements = {{ {site.KEPT.v4} . {site.PORT} . 17 : "svc" }}
  }}
  set inside {{ type ifname; elements = {{ "care0", "guest0", "admin0" }}
  }}
  map from {{ type ifname : verdict
    elements = {{ "care0" : goto gate, "guest0" : goto gate, "admin0" : goto gate }}
  }}
"""
_LOOK_UP = (
    "counter name ct original ip daddr . ct original proto-dst . ct protocol map @kept accept"
)
_PORTED = "meta nfproto ipv4 ct protocol { 6, 17, 33, 132, 136 }"
_GATE = f"""
  chain out4 {{
    {_PORTED} {_LOOK_UP}
  }}
  chain at {{
    meta nfproto ipv4 ct original ip saddr 10.10.0.0/16 jump out4
    drop
  }}
  chain gate {{
    goto at
  }}
"""
NONE = "no table at all"
LOOKS = {
    NONE: "",
    "one chain, one rule: accept": "accept",
    "a rule, three chains deep": "goto first",
    "the interface, in a set": "iifname @inside accept",
    "the source of the connection, in a prefix": "ct original ip saddr 10.10.0.0/16 accept",
    "the protocol of the connection, in a set": f"{_PORTED} accept",
    "the same, and address, port, protocol in a map to a counter": f"{_PORTED} {_LOOK_UP}",
    "all that Écluse looks at in a kept packet": "oifname vmap @from; iifname vmap @from; drop",
    "the mark of the connection (not used: see docs/datapath.md)": "ct mark 0 accept",
}


def _table(rules: str) -> str:
    body = "\n".join(rules.split("; "))
    deep = (
        "chain third {\n accept\n }\n chain second {\n goto third\n }\n chain first {\n"
        " goto second\n }"
    )
    hook = f"chain every {{ type filter hook forward priority -10;\n {body}\n }}"
    return f"table inet looks {{ {_GATE} {_SETS} {deep}\n {hook}\n}}\n"


def looks(section: Section, rounds: int, packets: int) -> None:
    """Send the same packets through each ruleset in turns."""
    took: dict[str, list[float]] = defaultdict(list)
    with Gate() as gate:
        course = Course(gate, packets)
        for _ in range(rounds):
            for name, rules in LOOKS.items():
                gate.shell("nft delete table inet looks 2>/dev/null || true")
                if rules:
                    gate.hospital.nft(_table(rules))
                took[name].append(1e9 / course.packets())
        course.close()
    for name, times in took.items():
        section.add("a packet of 64 bytes, all told", name, "ns", times)
    for name in list(took)[1:]:
        more = [a - b for a, b in zip(took[name], took[NONE], strict=True)]
        section.add("more than without a table", name, "ns", more)
    floor = statistics.median(
        b / a for a, b in zip(took["one chain, one rule: accept"], took[NONE], strict=True)
    )
    section.remarks.append(
        f"A chain that accepts at once passes {floor:.3f} of what passes without a table: "
        "that is the most that any ruleset can reach here."
    )
