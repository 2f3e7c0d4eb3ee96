"""The inside's own DNS servers behind the DNS gate.

Debian's unbound and BIND, forwarding, caching, validating.
"""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.dnsgate import DnsGate
from tests.lab.hospital import Hospital
from tests.lab.real_dns import RESOLVER, RealDns, Server, need

pytestmark = pytest.mark.system

LONG = f"{'bucket-of-the-partner-with-a-rather-long-name-production'}.partner.example"
NODE, EDGE, DEEP, STORE = ("203.0.113.100", "203.0.113.101", "203.0.113.102", "203.0.113.103")
ZONES = {
    ".": [],
    "example.": [
        f"ns.example. IN A {RESOLVER}",
        f"results.lab.example. 2 IN A {places.LABORATORY.v4}",
        "pay.treasury.example. 600 IN CNAME front.cdn.example.",
        f"{LONG}. IN A {STORE}",
        f"www.web.example. IN A {places.WEB.v4}",
        f"new.lab.example. IN A {STORE}",
    ],
    "operator.example.": [
        f"node.operator.example. 2 IN A {NODE}",
        "alias.operator.example. 2 IN CNAME edge.cdn.example.",
        "*.tunnel.operator.example. IN CNAME front.cdn.example.",
    ],
    "deep.operator.example.": [f"host.deep.operator.example. IN A {DEEP}"],
    "cdn.example.": [
        f"front.cdn.example. 2 IN A {places.TREASURY.v4}",
        f"edge.cdn.example. 2 IN A {EDGE}",
    ],
}
KEPT = {
    "results.lab.example": places.LABORATORY.v4,
    "pay.treasury.example": places.TREASURY.v4,
    LONG: STORE,
    "node.operator.example": NODE,
    "alias.operator.example": EDGE,
    "host.deep.operator.example": DEEP,
}
SERVICES = [
    policy.service(
        "partners",
        "vital",
        ["care"],
        [
            {"to": ["results.lab.example", "pay.treasury.example", LONG], "ports": ["tcp/443"]},
            {"to": "*.operator.example", "ports": ["tcp/443"]},
        ],
    )
]
FORWARDERS = ("10.10.4.21", "10.10.4.22", "10.10.4.23", "10.10.4.24")
SITE = {
    "resolvers": [RESOLVER],
    "dns_gate": {
        "limits": {"client_queries": 500, "wildcard_names": 100},
        "internal": [{"names": ["hospital.example"], "servers": list(FORWARDERS)}],
    },
}
TARGETS = {"front.cdn.example", "edge.cdn.example"}
# What may be asked for keys: names of the site's files, what lies above them, and above what those
# led to.
PROVEN = {".", "example", "lab.example", "results.lab.example", "treasury.example"}
PROVEN |= {"pay.treasury.example", "partner.example", LONG, "operator.example", "cdn.example"}
PROVEN |= {"deep.operator.example", *(n for n in KEPT if n.endswith("operator.example")), *TARGETS}


@pytest.fixture
def real(hospital: Hospital) -> Iterator[RealDns]:
    need()
    with RealDns(hospital, ZONES, unsigned=["cdn.example."]) as made:
        yield made


@pytest.fixture
def gated(hospital: Hospital, real: RealDns) -> Iterator[tuple[Daemon, DnsGate]]:
    daemon = hospital.daemon(site=policy.site(**SITE), allowlist={"40-partners.yaml": SERVICES})
    gate = hospital.dns_gate(daemon).start()
    daemon.start()
    gate.wait_until_well()
    yield daemon, gate
    daemon.stop()
    assert gate.stop() == 0


def all_four(real: RealDns) -> list[Server]:
    """Start one of each, with nothing in its cache."""
    ways = [
        (make, validating) for validating in (False, True) for make in (real.unbound, real.bind)
    ]
    return [
        make(address, validating=validating)
        for address, (make, validating) in zip(FORWARDERS, ways, strict=True)
    ]


def wait_until(true: Callable[[], object], patience: float = 15.0) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def resolved(hospital: Hospital, server: Server, names: dict[str, str] = KEPT) -> dict[str, str]:
    """Ask an inside server for names; say what was wrong, by name."""
    wrong = {}
    for name, address in names.items():
        found = hospital.care.resolve(server.address, name, timeout=8.0, edns=True)
        if found.more["addresses"] != [address]:
            said = server.log.read_text().splitlines()
            about = [line for line in said if name in line][-2:]
            wrong[name] = f"{server.label}: {found.more['rcode']} {found.error} {about}"
    return wrong


def check_all(hospital: Hospital, servers: list[Server], names: dict[str, str] = KEPT) -> None:
    wrong = [one for server in servers for one in resolved(hospital, server, names).items()]
    assert not wrong


def unkept(hospital: Hospital, servers: list[Server]) -> None:
    for server in servers:
        for name in ("www.web.example", "x1.elsewhere.example", "x1.front.cdn.example"):
            assert not hospital.care.resolve(server.address, name, timeout=8.0).more["addresses"]


def test_names_are_answered_through_inside_servers_whose_caches_are_empty(
    hospital: Hospital, real: RealDns, gated
):
    """Aliases (the server asks for the target itself) and keys (one that validates asks for all
    zones above).
    """
    daemon, _ = gated
    servers = all_four(real)
    check_all(hospital, servers)
    asked = {name for name, kind in real.asked() if kind in {"a", "aaaa"}}
    assert asked >= TARGETS, (
        "positive control: at open an inside server asks for the targets of aliases"
    )
    for one in servers:
        one.stop()
    daemon.level("cut")
    servers = all_four(real)
    real.asked()
    check_all(hospital, servers)
    for address in KEPT.values():
        assert hospital.care.tcp(address).error == ""
    unkept(hospital, servers)
    left = real.asked()
    kinds = {"ds", "dnskey"}
    assert {name for name, kind in left if kind not in kinds} <= set(KEPT)
    assert {kind for _, kind in left} <= {"a", "aaaa", *kinds}
    assert {name for name, kind in left if kind in kinds} <= PROVEN
    assert ("example", "ds") in left, "positive control: keys were asked for"
    # Who validates is named, with what to type there.
    wait_until(lambda: daemon.status()["dns"]["validating"])
    wait_until(lambda: list(FORWARDERS[2:]) == daemon.status()["dns"]["validating"])
    shown = daemon.cli("status").stdout
    assert FORWARDERS[2] in shown
    assert "insecure_add" in shown
    # Nothing that they were given stands among what was refused.
    refused = {one["name"] for one in daemon.api("GET", "/v1/refused").body["names"]}
    assert refused.isdisjoint({*KEPT, *TARGETS, *PROVEN})


def test_names_go_on_through_inside_servers_that_were_warm_at_the_cut(
    hospital: Hospital, real: RealDns, gated
):
    """They hold the alias for ten minutes and its address for two seconds.

    Then they ask for the target alone.
    """
    daemon, gate = gated
    servers = all_four(real)
    own = {name: address for name, address in KEPT.items() if "operator" not in name}
    check_all(hospital, servers)
    number = daemon.status()["generation"]
    # The gate asked for the site's own names by itself: it knows what they lead to.
    wait_until(lambda: "front.cdn.example" in (gate.rundir / "servers.conf").read_text())
    said = " ".join(daemon.cli("cut", "--reason", "test").stdout.split())
    assert "unbound-control flush_zone operator.example" in said
    real.asked()
    time.sleep(2.5)  # over in every cache: a TTL is what is tried here
    check_all(hospital, servers, own)
    assert "front.cdn.example" not in {name for name, kind in real.asked() if kind == "a"}
    # Wildcards come back as they expire, and aliases below them.
    wait_until(lambda: not [one for s in servers for one in resolved(hospital, s)], 30.0)
    # Another name by a reload, beside them; then it is taken back.
    site = policy.site(**SITE)
    more = policy.service(
        "more", "vital", ["care"], [{"to": "new.lab.example", "ports": ["tcp/443"]}]
    )
    before = daemon.status()["generation"]
    daemon.write_config(site, {"40-partners.yaml": SERVICES, "50-more.yaml": [more]})
    assert daemon.cli("reload", "--yes", "--reason", "test").returncode == 0
    wait_until(lambda: not resolved(hospital, servers[0], {"new.lab.example": STORE}))
    check_all(hospital, servers, {**KEPT, "new.lab.example": STORE})
    assert daemon.cli("rollback", str(before), "--yes", "--reason", "test").returncode == 0
    time.sleep(2.5)
    check_all(hospital, servers)
    unkept(hospital, servers)
    # The gate's process ends and comes back, and the daemon too.
    gate.kill9()
    gate.start()
    gate.wait_until_well()
    daemon.restart()
    time.sleep(2.5)
    wait_until(lambda: not [one for s in servers for one in resolved(hospital, s, own)], 30.0)
    assert daemon.cli("rollback", str(number), "--yes", "--reason", "test").returncode == 0
    check_all(hospital, servers)
