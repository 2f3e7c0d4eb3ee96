"""Protocols by number, multicast groups of the link, and OSPF: kept where the site says so.

Tunnels of the gateway (6in4, IPIP) are played by raw sockets: a kernel may lack the devices.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.lab import places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital

pytestmark = pytest.mark.system

FAMILIES = (4, 6)
LAB, STRANGER, CARE, WAN = places.LABORATORY, places.STRANGER, places.CARE_HOST, places.GATEWAY_WAN
ROUTER = places.INTERNET_ROUTER
MARK = 9999
IPIP, SIX_IN_4, EIGRP, OSPF, OTHER, L2TP = 4, 41, 88, 89, 94, 115
GROUPS = {4: ("224.0.0.5", "224.0.0.6", "224.0.0.10"), 6: ("ff02::5", "ff02::6", "ff02::a")}

_HEAR = """
import json, select, socket, struct, sys
interface, *protocols = sys.argv[1:]
index = socket.if_nametoindex(interface)
groups = json.loads(protocols.pop())
socks = {}
for protocol in (17, *map(int, protocols)):
    for family in (socket.AF_INET, socket.AF_INET6):
        s = socket.socket(family, socket.SOCK_RAW, protocol)
        s.setblocking(False)
        for one in groups["6" if family == socket.AF_INET6 else "4"]:
            packed = socket.inet_pton(family, one)
            if family == socket.AF_INET:
                option = struct.pack("=4s4si", packed, bytes(4), index)
                s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, option)
            else:
                option = packed + struct.pack("=I", index)
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, option)
        socks[s] = protocol
def drain():
    marks = 0
    for s, protocol in socks.items():
        while True:
            try:
                data, (source, *_) = s.recvfrom(2000)
            except BlockingIOError:
                break
            if s.family == socket.AF_INET:
                data = data[(data[0] & 15) * 4 :]
            if protocol == 17:
                marks += data[8:].startswith(b"mark")
            else:
                source = source.partition("%")[0]
                print(protocol, source, data.decode("ascii", "replace"), flush=True)
    return marks
print("ready", flush=True)
while True:
    select.select(list(socks), [], [])
    if drain():
        drain()
        print("mark", flush=True)
"""
_SAY = r"""
import contextlib, json, socket, sys
interface, packets = sys.argv[1], json.loads(sys.argv[2])
for protocol, source, to, limit, options, text in packets:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    kind = (socket.SOCK_DGRAM, 0) if protocol == 17 else (socket.SOCK_RAW, protocol)
    s = socket.socket(family, *kind)
    near = to.startswith(("224.", "ff02:", "fe80:"))
    if near:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    port = 0
    if protocol == 17:
        to, port = to.split("#")
        port = int(port)
    if family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, limit)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, limit)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        where = (to, port)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, limit)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, limit)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        if options:  # a header of destination options, empty (RFC 8200, 4.6)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes((0, 0, 1, 4, 0, 0, 0, 0)))
        where = (to, port, 0, socket.if_nametoindex(interface) if near else 0)
    if source:
        s.bind((source, 0) if family == socket.AF_INET else (source, 0, 0, where[3]))
    with contextlib.suppress(PermissionError, ConnectionRefusedError):
        # As long as a question for the root: the lab's DNS server reads the mark, too.
        s.sendto(text.encode().ljust(24 if protocol == 17 else 0, b"\0"), where)
"""

EAR_OF = {"inet": "uplink", "gw": "wan0", "care": "eth0"}


def both(place: places.Place) -> list[str]:
    return [place.v4, place.v6]


ALLOWLIST = {
    "10-all.yaml": [
        policy.service(
            "tunnel",
            "vital",
            ["care", "gateway"],
            [
                {way: both(LAB), "ports": [f"proto/{n}" for n in (IPIP, SIX_IN_4, L2TP)]}
                for way in ("to", "from")
            ],
        ),
        policy.service(
            "routes",
            "vital",
            ["gateway"],
            [{"to": ["224.0.0.10", "ff02::a"], "ports": [f"proto/{EIGRP}"]}],
        ),
    ]
}


def site(*presets: str) -> dict:
    """Give the lab's site; a neighbour outside may reach the gateway at every level, to mark."""
    management = {"networks": both(ROUTER), "ports": [f"udp/{MARK}"]}
    return policy.site(
        lifeline={"management": management, "presets": ["nd", *presets]},
        resolvers=both(places.DNS_SERVER),
    )


@pytest.fixture
def daemon(hospital: Hospital) -> Iterator[Daemon]:
    started = hospital.daemon(site=site("ospf"), allowlist=ALLOWLIST).start()
    yield started
    started.stop()


class Ear:
    """A program that hears raw packets of some protocols in a namespace."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def until(self, line: str) -> set[str]:
        """Give what was heard before a line: `PROTOCOL SOURCE TEXT` each."""
        found = set()
        while said := self._process.stdout.readline().strip():
            if said == line:
                return found
            found.add(said)
        raise AssertionError(f"no {line}, but {found}")


@contextmanager
def listening(hospital: Hospital, role: str, *protocols: int) -> Iterator[Ear]:
    words = [*map(str, protocols), json.dumps({str(v): GROUPS[v] for v in FAMILIES})]
    command = ["ip", "netns", "exec", hospital.namespace(role), sys.executable, "-c", _HEAR]
    with subprocess.Popen(
        [*command, EAR_OF[role], *words], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            ear = Ear(process)
            ear.until("ready")
            yield ear
        finally:
            process.kill()


class Line:
    """What is said in namespaces, and what of it is heard on the other side of the gateway."""

    def __init__(self, hospital: Hospital, ears: dict[str, Ear]) -> None:
        self.hospital, self.ears = hospital, ears

    def say(self, role: str, *packets: tuple) -> None:
        """Send packets: protocol, source (empty: any), destination, hop limit, options, text."""
        argv = [sys.executable, "-c", _SAY, EAR_OF[role], json.dumps(packets)]
        done = self.hospital.run(role, argv)
        assert done.returncode == 0, done.stderr

    def outside(self) -> set[str]:
        """Give what came out since the last time; a look-up of the daemon's user marks the end."""
        self.say("gw", (17, "", f"{places.DNS_SERVER.v4}#53", 64, 0, "mark"))
        return self.ears["inet"].until("mark")

    def gateway(self) -> set[str]:
        """Give what the gateway's programs heard since the last time, by the management network."""
        self.say("inet", (17, ROUTER.v4, f"{WAN.v4}#{MARK}", 64, 0, "mark"))
        return self.ears["gw"].until("mark")


@contextmanager
def lines(hospital: Hospital, *protocols: int) -> Iterator[Line]:
    with ExitStack() as stack:
        ears = {role: stack.enter_context(listening(hospital, role, *protocols)) for role in EAR_OF}
        yield Line(hospital, ears)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_protocol_by_number_is_kept_for_a_zone_and_answered(
    hospital: Hospital, daemon: Daemon, family: int
):
    lab, care = LAB.address(family), CARE.address(family)
    seen_as = WAN.v4 if family == 4 else care
    with lines(hospital, L2TP, OTHER) as line:
        all_of_it = [
            (L2TP, care, lab, 64, 0, "kept"),
            (OTHER, care, lab, 64, 0, "other"),
            (L2TP, care, STRANGER.address(family), 64, 0, "elsewhere"),
        ]
        if family == 6:  # the protocol stands behind the extension headers
            all_of_it += [
                (L2TP, care, lab, 64, 1, "behind"),
                (OTHER, care, lab, 64, 1, "other-behind"),
            ]
        line.say("care", *all_of_it)
        heard = {text.split()[-1] for text in line.outside()}
        assert heard == {packet[-1] for packet in all_of_it}, "positive control"
        daemon.level("cut")
        line.say("care", *all_of_it)
        kept = {f"{L2TP} {seen_as} kept"} | ({f"{L2TP} {care} behind"} if family == 6 else set())
        assert line.outside() == kept
        line.say("inet", (L2TP, lab, seen_as, 64, 0, "answer"))
        line.ears["care"].until(f"{L2TP} {lab} answer")
        daemon.level("isolate")
        line.say("care", *all_of_it)
        assert line.outside() == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_tunnels_of_the_gateway_are_kept_both_ways(hospital: Hospital, daemon: Daemon, family: int):
    lab, stranger, own = LAB.address(family), STRANGER.address(family), WAN.address(family)
    out = [
        (number, "", to, 64, 0, f"to-{name}")
        for number in (IPIP, SIX_IN_4, OTHER)
        for name, to in (("lab", lab), ("stranger", stranger))
    ]
    back = [
        (number, source, own, 64, 0, "hello")
        for number in (IPIP, SIX_IN_4, OTHER)
        for source in (lab, stranger)
    ]
    all_in = {f"{n} {source} hello" for n, source, *_ in back}
    all_out = {f"{n} {own} {text}" for n, *_, text in out}
    kept_out = {f"{n} {own} to-lab" for n in (IPIP, SIX_IN_4)}
    kept_in = {f"{n} {lab} hello" for n in (IPIP, SIX_IN_4)}
    with lines(hospital, IPIP, SIX_IN_4, OTHER) as line:
        # The peer speaks first: its packets are a connection of its own.
        for level, wanted_in, wanted_out in (
            ("open", all_in, all_out),
            ("cut", kept_in, kept_out),
            ("isolate", set(), set()),
        ):
            if level != "open":
                daemon.level(level)
            line.say("inet", *back)
            assert line.gateway() == wanted_in, level
            line.say("gw", *out)
            assert line.outside() == wanted_out, level


def _link_local(hospital: Hospital, role: str) -> str:
    """Give the link-local address of the outside link's end."""
    found = hospital.shell(role, f"ip -j -6 addr show dev {EAR_OF[role]} scope link")
    return next(one["local"] for link in json.loads(found) for one in link["addr_info"] if one)


def ospf(family: int, ours: str, theirs: str) -> list[tuple]:
    """Give what a router says: hellos to both groups, and to its neighbour alone."""
    to = [*GROUPS[family][:2], theirs]
    return [(OSPF, ours, one, 1, 0, f"ospf-{n}") for n, one in enumerate(to)]


@pytest.mark.parametrize("family", FAMILIES)
def test_ospf_goes_on_at_every_level_with_its_preset_and_on_the_link_alone(
    hospital: Hospital, daemon: Daemon, family: int
):
    ours, theirs = WAN.v4, ROUTER.v4
    if family == 6:
        ours, theirs = _link_local(hospital, "gw"), _link_local(hospital, "inet")
    out, back = ospf(family, ours, theirs), ospf(family, theirs, ours)
    far = [(OSPF, "", STRANGER.address(family), 64, 0, "far")]
    heard = [f"{OSPF} {ours} {p[5]}" for p in out], [f"{OSPF} {theirs} {p[5]}" for p in back]
    with lines(hospital, OSPF) as line:
        line.say("gw", *out, *far)
        line.say("inet", *back)
        assert line.outside() >= {*heard[0], f"{OSPF} {WAN.address(family)} far"}
        assert line.gateway() >= {*heard[1]}
        for level in ("cut", "isolate"):
            daemon.level(level)
            line.say("gw", *out, *far)
            line.say("inet", *back)
            assert line.outside() == {*heard[0]}, level
            assert line.gateway() >= {*heard[1]}, level
        daemon.write_config(site(), ALLOWLIST)
        daemon.api("POST", "/v1/reload", {"reason": "test"})
        for level in ("isolate", "cut"):
            daemon.level(level)
            line.say("gw", *out)
            line.say("inet", *back)
            assert line.outside() == set(), "without the preset"
            assert not line.gateway() & {*heard[1]}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_group_that_a_service_names_is_spoken_to_and_heard(
    hospital: Hospital, daemon: Daemon, family: int
):
    ours, theirs = WAN.v4, ROUTER.v4
    if family == 6:
        ours, theirs = _link_local(hospital, "gw"), _link_local(hospital, "inet")
    kept, other = GROUPS[family][2], GROUPS[family][0]
    out = [(EIGRP, ours, to, 1, 0, "hello") for to in (kept, other)]
    out[1] = (*out[1][:5], "other-group")
    back = [(p[0], theirs, *p[2:]) for p in out]
    alone = [(EIGRP, theirs, ours, 1, 0, "alone")]
    with lines(hospital, EIGRP) as line:
        line.say("gw", *out)
        line.say("inet", *back, *alone)
        assert line.outside() >= {f"{EIGRP} {ours} hello", f"{EIGRP} {ours} other-group"}
        assert line.gateway() >= {
            f"{EIGRP} {theirs} {text}" for text in ("hello", "other-group", "alone")
        }
        daemon.level("cut")
        line.say("gw", *out)
        line.say("inet", *back, *alone)
        assert line.outside() == {f"{EIGRP} {ours} hello"}
        heard = line.gateway()
        assert f"{EIGRP} {theirs} hello" in heard
        assert not heard & {f"{EIGRP} {theirs} other-group", f"{EIGRP} {theirs} alone"}
        daemon.level("isolate")
        line.say("gw", *out)
        line.say("inet", *back)
        assert line.outside() == set()
        assert f"{EIGRP} {theirs} hello" not in line.gateway()
