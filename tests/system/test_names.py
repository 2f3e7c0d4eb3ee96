"""Services that are known by name alone, while their name server fails in every way.

Packets before and after.

The whole way is real: two name servers on the internet side that do as they are told
(tests/lab/names.py), the daemon with a clock that can be set (hasty_names.py), the kernel, and
machines inside that connect.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.hosts import ROOT
from tests.lab.names import FIRST, SECOND, Resolvers

pytestmark = pytest.mark.system
MINUTE, DAY = 60, 86_400


@pytest.fixture
def resolvers(hospital: Hospital) -> Iterator[Resolvers]:
    with Resolvers(hospital) as told:
        yield told


# A connection that ended counts as use until the kernel forgets it: after a second here, not after
# two minutes.
_FORGETFUL = "".join(
    f"echo 1 > /proc/sys/net/netfilter/nf_conntrack_{name}\n"
    for name in ("tcp_timeout_time_wait", "tcp_timeout_close", "udp_timeout", "udp_timeout_stream")
)


class Site:
    """A daemon whose services are names, each with a service of its own; and its clock."""

    def __init__(self, hospital: Hospital, resolvers: Resolvers) -> None:
        self.hospital, self.resolvers = hospital, resolvers
        self.daemon: Daemon
        self._ahead = 0.0

    def files(self, names: list[str], **more: Any) -> dict[str, list[dict]]:
        services = [
            policy.service(
                name.partition(".")[0],
                "vital",
                ["care"],
                [{"to": [name], "ports": ["tcp/443", "udp/5000"], **more}],
            )
            for name in names
        ]
        return {"10-names.yaml": services}

    def start(self, names: list[str], *flags: str, **more: Any) -> Daemon:
        self.daemon = self.hospital.daemon(
            argv=("-m", "tests.system.hasty_names"),
            flags=("--dns-minimum-ttl", "1", "--dns-timeout", "0.5", *flags),
            site=policy.site(resolvers=[FIRST, SECOND]),
            allowlist=self.files(names, **more),
        )
        self.hospital.shell("gw", _FORGETFUL)
        self.daemon.start()
        return self.daemon

    def forward(self, seconds: float) -> None:
        """Set the daemon's clock on."""
        self._ahead += seconds
        new = self.daemon.directory / "ahead.new"
        new.write_text(str(self._ahead))
        new.rename(self.daemon.directory / "ahead")

    def names(self) -> dict[str, dict]:
        return {n["name"]: n for s in self.services() for n in s["names"]}

    def services(self) -> list[dict]:
        return self.daemon.api("GET", "/v1/services").body["services"]

    def addresses(self, name: str) -> dict[str, dict]:
        return {
            a["address"]: a for s in self.services() for a in s["addresses"] if a["name"] == name
        }

    def outcomes(self, name: str) -> set[str]:
        return {word for by in self.names()[name]["outcomes"].values() for word in by}

    def passes(self, *addresses: str) -> list[str]:
        """Give those of the addresses that a machine of care connects to."""
        passing: list[str] = []
        for start in range(0, len(addresses), 50):
            some = addresses[start : start + 50]
            tries = [self.hospital.care.begin_ping("tcp", a, 443, 3.0) for a in some]
            passing += [a for a, one in zip(some, tries, strict=True) if one.result(30)]
        return passing

    def refuses(self, *addresses: str) -> list[str]:
        passing = set(self.passes(*addresses))
        return [a for a in addresses if a not in passing]


@pytest.fixture
def site(hospital: Hospital, resolvers: Resolvers) -> Iterator[Site]:
    made = Site(hospital, resolvers)
    yield made
    made.daemon.stop()


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


FAILURES: dict[str, list[Any]] = {
    "nxdomain": ["rcode", "NXDOMAIN"],
    "servfail": ["rcode", "SERVFAIL"],
    "refused": ["rcode", "REFUSED"],
    "timeout": ["silence"],
    "malformed": ["garbage"],
    "empty": ["records"],
    "loop": ["records", ["loop.example", 1, "loop2.example"], ["loop2.example", 1, "loop.example"]],
    "refused-address": [
        "records",
        *(
            ["refused-address.example", 1, address]
            for address in (
                *("127.0.0.1", "10.66.6.6", "0.0.0.0"),
                *("::", "::ffff:10.66.6.6", "64:ff9b::a42:606"),
            )
        ),
    ],
}
"""What came of it, in the word that is counted -> how the name server does it."""


def test_each_failure_takes_nothing_away_is_counted_and_heals(site: Site):
    names = [f"{word}.example" for word in FAILURES]
    old = {n: (f"203.0.113.{100 + i}", f"2001:db8:ffff:1::{i}") for i, n in enumerate(names)}
    new = {n: f"203.0.113.{150 + i}" for i, n in enumerate(names)}
    every = [address for both in old.values() for address in both]
    for name, both in old.items():
        site.resolvers.put(name, *both)
    daemon = site.start(names)
    daemon.level("cut")
    until(lambda: all(len(site.addresses(name)) == 2 for name in names))
    assert site.passes(*every) == every, "before"
    assert site.refuses(*new.values(), "203.0.113.99") == [*new.values(), "203.0.113.99"]

    for word, way in FAILURES.items():
        site.resolvers.tell(f"{word}.example", *way)
    until(lambda: all(word in site.outcomes(f"{word}.example") for word in FAILURES))
    until(lambda: all(site.names()[name]["failure"] for name in names))
    assert site.passes(*every) == every, "while it fails"
    metrics = daemon.api("GET", "/metrics").body
    for word in FAILURES:
        counted = f'{{name="{word}.example",outcome="{word}",resolver="{FIRST}"}}'
        assert f"ecluse_name_answers_total{counted}" in metrics
        assert f'ecluse_name_failing{{name="{word}.example"}} 1.0' in metrics
    told = daemon.cli("services").stdout
    assert "last known addresses are kept until" in told
    assert "127.0.0.1 (a loopback address)" in " ".join(told.split())

    for days in (
        14,
        15,
    ):  # of the 30 that last known good addresses have; the first may still find connections
        site.forward(days * DAY)
        time.sleep(1.5)
    assert site.passes(*every) == every, "weeks later"

    for name in names:
        site.resolvers.put(name, new[name])
    until(lambda: all(new[name] in site.addresses(name) for name in names))
    until(lambda: not any(site.names()[name]["failure"] for name in names))
    assert site.passes(*new.values()) == [*new.values()], "after"


def test_answers_that_are_odd_are_used(site: Site):
    many = [f"203.0.113.{n}" for n in range(100, 200)] + [
        f"198.51.100.{n}" for n in range(100, 200)
    ]
    chain = ["chain.example", *(f"alias{n}.example" for n in range(15))]
    rows = [[one, 1, two] for one, two in itertools.pairwise(chain)]
    site.resolvers.tell("long.example", "long", *(["long.example", 1, a] for a in many))
    site.resolvers.tell("chain.example", "records", *rows, [chain[-1], 1, "203.0.113.21"])
    site.resolvers.tell("hops.example", "records", ["hops.example", 1, "there.example"])
    site.resolvers.put("there.example", "203.0.113.22", "2001:db8:ffff::22")
    site.resolvers.put("zero.example", "203.0.113.23", ttl=0)
    site.resolvers.put("one-dead.example", "203.0.113.24")
    site.resolvers.tell("one-dead.example", "silence", server=FIRST)
    site.resolvers.put("united.example", "203.0.113.25")
    site.resolvers.tell(
        "united.example", "records", ["united.example", 1, "203.0.113.26"], server=SECOND
    )
    site.resolvers.tell(
        "rotates.example",
        "rotate",
        "rotates.example",
        1,
        4,
        *(f"203.0.113.{n}" for n in range(200, 240)),
    )
    pool = [f"2001:db8:ffff:2::{n:x}" for n in range(1, 201)]
    site.resolvers.tell("turns-200.example", "rotate", "turns-200.example", 1, 16, *pool)
    names = ["long", "chain", "hops", "zero", "one-dead", "united", "rotates", "turns-200"]
    site.start([f"{name}.example" for name in names]).level("cut")
    until(lambda: all(site.addresses(f"{name}.example") for name in names))
    # Only until the whole pool is known: then no machine can be given an address that is not.
    until(
        lambda: any("nearly every answer" in w for w in site.names()["rotates.example"]["warnings"])
    )
    until(lambda: len(site.addresses("rotates.example")) == 40, 40)
    until(lambda: len(site.addresses("turns-200.example")) == 200, 40)
    assert any(
        "IPv6 addresses only" in warning
        for warning in site.names()["turns-200.example"]["warnings"]
    )
    passing = [*many, *pool, "203.0.113.21", "203.0.113.22", "2001:db8:ffff::22"]
    passing += [f"203.0.113.{n}" for n in (23, 24, 25, 26, *range(200, 240))]
    assert site.refuses(*passing) == []
    assert site.passes("203.0.113.90", "2001:db8:ffff::21") == [], "positive control"
    found = site.names()
    assert "truncated" in site.outcomes("long.example")
    assert "ttl-0" in site.outcomes("zero.example")
    assert found["chain.example"]["alias"] == "alias14.example"
    assert found["hops.example"]["alias"] == "there.example"
    assert "timeout" in found["one-dead.example"]["outcomes"][FIRST]
    until(lambda: not site.names()["one-dead.example"]["failure"])
    assert site.addresses("united.example")["203.0.113.25"]["resolvers"] == [FIRST]
    until(lambda: site.names()["united.example"]["warnings"])
    assert "rotates faster than its TTL" in site.names()["united.example"]["warnings"][0]
    # What one resolver alone gave has not left while that one is silent, whatever the other says.
    site.resolvers.tell("united.example", "silence", server=SECOND)
    until(lambda: "timeout" in site.names()["united.example"]["outcomes"][SECOND])
    time.sleep(2.0)  # the connections of before are forgotten
    for _ in range(2):
        site.forward(31 * MINUTE)
        time.sleep(1.5)
    assert site.passes("203.0.113.26")
    site.resolvers.tell(
        "united.example", "records", ["united.example", 1, "203.0.113.25"], server=SECOND
    )
    until(lambda: forget(site) and "203.0.113.26" not in site.addresses("united.example"))
    assert not site.passes("203.0.113.26")


def test_a_client_that_holds_an_address_for_25_minutes_still_connects(site: Site):
    site.resolvers.put("lab.example", "203.0.113.101", "2001:db8:ffff::101")
    site.start(["lab.example"]).level("cut")
    until(lambda: len(site.addresses("lab.example")) == 2)
    site.resolvers.put("lab.example", "203.0.113.102", "2001:db8:ffff::102")
    until(lambda: site.addresses("lab.example")["203.0.113.101"]["left"])
    both, fresh = ["203.0.113.101", "2001:db8:ffff::101"], ["203.0.113.102", "2001:db8:ffff::102"]
    site.forward(25 * MINUTE)
    time.sleep(1.0)
    assert site.passes(*both, *fresh) == [*both, *fresh]
    # Those connections counted as use: half an hour from now.
    until(lambda: forget(site) and not set(both) & set(site.addresses("lab.example")))
    assert site.passes(*both, *fresh) == fresh
    assert site.names()["lab.example"]["left"] == 0


def test_a_clock_that_jumps_a_year_ahead_and_back_ends_nothing_and_keeps_nothing(site: Site):
    first, second, third = "203.0.113.101", "203.0.113.102", "203.0.113.103"
    site.resolvers.put("lab.example", first)
    site.start(["lab.example"]).level("cut")
    until(lambda: site.addresses("lab.example"))
    site.forward(365 * DAY)
    until(lambda: site.addresses("lab.example")[first]["age"] < MINUTE)
    site.resolvers.put("lab.example", second)
    until(lambda: site.addresses("lab.example").get(first, {}).get("left"))
    assert site.passes(first, second, "203.0.113.99") == [first, second], "a year ahead"
    site.forward(-365 * DAY)
    site.resolvers.put("lab.example", third)
    until(lambda: site.addresses("lab.example").get(second, {}).get("left"))
    assert site.passes(first, second, third) == [first, second, third], "and back"
    time.sleep(1.5)  # the connections of just now are forgotten
    until(lambda: forget(site) and set(site.addresses("lab.example")) == {third})
    assert site.passes(first, second, third) == [third], "not until next year"


def test_a_stream_outlives_its_address_leaving_the_dns(site: Site):
    address = "203.0.113.101"
    site.resolvers.put("lab.example", address)
    site.start(["lab.example"]).level("cut")
    until(lambda: site.addresses("lab.example"))
    stream = site.hospital.care.stream(address, 5000, "udp", 500)
    site.resolvers.put("lab.example", "203.0.113.102")
    until(lambda: site.addresses("lab.example")[address]["left"])
    for _ in range(4):
        site.forward(29 * MINUTE)
        time.sleep(0.7)
    assert site.addresses("lab.example")[address]["used"], "the daemon has seen that it is in use"
    site.forward(31 * MINUTE)
    time.sleep(1.0)
    assert address in site.addresses("lab.example")
    assert site.passes(address) == [address]
    report = stream.stop()
    assert report.whole, report
    # Positive control: with the connections gone and their half hour over, it goes.
    until(lambda: forget(site) and address not in site.addresses("lab.example"))
    assert site.passes(address) == []


def forget(site: Site) -> bool:
    """Another half hour without a word from anybody."""
    site.forward(31 * MINUTE)
    time.sleep(1.0)
    return True


def test_last_known_good_has_an_upper_bound_that_is_told(site: Site):
    site.resolvers.put("lab.example", "203.0.113.101")
    daemon = site.start(["lab.example"], "--dns-keep-days", "2")
    daemon.level("cut")
    until(lambda: site.addresses("lab.example"))
    site.resolvers.tell("lab.example", "silence")
    until(lambda: site.names()["lab.example"]["kept_until"])
    assert any("kept until" in warning for warning in daemon.status()["warnings"])
    site.forward(2 * DAY - 10 * MINUTE)
    time.sleep(1.5)
    assert site.passes("203.0.113.101")
    until(lambda: forget(site) and not site.addresses("lab.example"))
    assert not site.passes("203.0.113.101")
    assert any(
        "lab.example has no address yet" in warning for warning in daemon.status()["warnings"]
    )


def test_private_answers_lead_out_only_where_the_service_says_so(site: Site):
    inside_tunnel = "10.200.0.9"
    site.resolvers.put("lab.example", inside_tunnel, "203.0.113.101")
    daemon = site.start(["lab.example"])
    daemon.level("cut")
    until(lambda: site.addresses("lab.example"))
    with site.hospital.sniff() as outside:
        since = time.time_ns()
        site.hospital.care.tcp(inside_tunnel, timeout=0.3)
        assert outside.count(since, destination=inside_tunnel) == 0
        told = " ".join(site.services()[0]["warnings"])
        assert f"refused {inside_tunnel} (a private address); if it is meant" in told
        daemon.write_config(
            policy.site(resolvers=[FIRST, SECOND]), site.files(["lab.example"], private=True)
        )
        assert daemon.api("POST", "/v1/reload", {"reason": "it is behind the tunnel"}).status == 200
        until(lambda: inside_tunnel in site.addresses("lab.example"))
        since = time.time_ns()
        site.hospital.care.tcp(inside_tunnel, timeout=0.3)
        assert outside.count(since, destination=inside_tunnel) > 0
        assert site.services()[0]["warnings"] == []


def test_learned_addresses_are_back_at_boot_without_network_daemon_or_dns(site: Site):
    first, second = ["203.0.113.101", "2001:db8:ffff::101"], ["203.0.113.102", "2001:db8:ffff::102"]
    site.resolvers.put("lab.example", *first)
    daemon = site.start(["lab.example"])
    daemon.level("cut")
    until(lambda: len(site.addresses("lab.example")) == 2)
    site.resolvers.put("lab.example", *second)
    until(lambda: len(site.addresses("lab.example")) == 4)
    boot = daemon.state / "boot.nft"
    until(lambda: all(is_on_disk(boot, address) for address in second))
    daemon.kill9()
    site.resolvers.tell("lab.example", "silence")
    site.hospital.shell("gw", "nft delete table inet ecluse")
    assert site.passes("203.0.113.99"), "positive control: nothing of us is left"
    site.hospital.shell("gw", f"nft -f {boot}")
    every = [*first, *second]
    assert site.passes(*every, "203.0.113.99") == every, "by the boot ruleset alone"
    began = time.monotonic()
    daemon.start()
    assert time.monotonic() - began < 5
    assert site.passes(*every, "203.0.113.99") == every, (
        "and by the daemon, whose resolvers are away"
    )
    assert set(site.addresses("lab.example")) == set(every)
    left = [a for a, one in site.addresses("lab.example").items() if one["left"]]
    assert set(left) == set(first), "it remembers which of them have left"


def test_damaged_records_of_names_cut_nothing_off_while_the_resolvers_are_away(site: Site):
    site.resolvers.put("lab.example", "203.0.113.101")
    daemon = site.start(["lab.example"])
    daemon.level("cut")
    until(lambda: site.addresses("lab.example"))
    daemon.stop()  # saves
    daemon.start()  # copies
    site.resolvers.tell("lab.example", "silence")
    daemon.kill9()
    saved = daemon.state / "names.json"
    saved.write_bytes(saved.read_bytes().replace(b"203.0.113.101", b"203.0.113.109"))
    daemon.start()
    assert site.passes("203.0.113.101", "203.0.113.109") == ["203.0.113.101"]
    assert daemon.api("GET", "/v1/services").status == 200


def is_on_disk(boot: Path, address: str) -> bool:
    program = boot.read_text().partition('include "')[2].partition('"')[0]
    return address in Path(program).read_text()


def test_check_online_asks_the_sites_resolvers_and_says_what_to_do(site: Site):
    site.resolvers.put("lab.example", "203.0.113.101", ttl=300)
    site.resolvers.tell(
        "turns.example",
        "rotate",
        "turns.example",
        600,
        1,
        *(f"203.0.113.{n}" for n in range(100, 200)),
    )
    site.resolvers.tell(
        "shared.example",
        "records",
        ["shared.example", 60, "x.b-cdn.net"],
        ["x.b-cdn.net", 60, "203.0.113.60"],
    )
    site.resolvers.put("six.example", "2001:db8:ffff::6", ttl=60)
    site.resolvers.put("private.example", "10.1.2.3", ttl=60)
    site.resolvers.put("neighbour.example2", "203.0.113.101", ttl=60)
    good = ["lab.example", "turns.example", "shared.example", "six.example", "neighbour.example2"]
    config = site.start([*good, "private.example"]).config

    def check(*arguments: str) -> tuple[int, str]:
        python = ["env", f"PYTHONPATH={ROOT}/src:{ROOT}", sys.executable, "-m", "ecluse.cli"]
        done = site.hospital.run("gw", [*python, "check", "--online", str(config), *arguments])
        return done.returncode, " ".join(done.stdout.split())

    code, told = check()
    assert code == 1, "a name has no address that could be kept"
    for words in (
        f"203.0.113.101 0 s old, TTL 300 s by {FIRST}, {SECOND}",
        "turns.example gives other addresses with nearly every answer",
        "shared.example is served by a shared content network (b-cdn.net)",
        "six.example has IPv6 addresses only",
        "private.example has no address yet (refused 10.1.2.3 (a private address); if it is meant",
        "lab.example shares an address with neighbour.example2",
    ):
        assert words in told, (words, told)
    site.daemon.write_config(policy.site(resolvers=[FIRST]), site.files(good))
    code, told = check("--json")
    assert code == 0
    assert '"name": "turns.example"' in told
