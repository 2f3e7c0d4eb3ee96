"""Who opened a connection.

No machine opens one in the name of an address that does not live where it is.
"""

import pytest

from tests.lab import forge, places, policy
from tests.lab.daemon import Daemon
from tests.lab.hospital import Hospital
from tests.lab.sniffer import Sniffer
from tests.system.test_dns_gate import wait_for_purge
from tests.system.test_names import until

pytestmark = pytest.mark.system

FAMILIES = (4, 6)
WHEN = ("before the cut", "at the cut")
SIP, PHONE = 5060, 5061
"""What the partner may open at the care server; what the care machine may open at the partner."""
PARTNER, STRANGER, LAB = places.PARTNER, places.STRANGER, places.LABORATORY
HERE, SERVER = places.CARE_HOST, places.CARE_SERVER


def both(place: places.Place) -> list[str]:
    return [place.v4, place.v6]


ALLOWLIST = {
    "10-all.yaml": [
        policy.service(
            "telephony",
            "vital",
            ["care", "gateway"],
            [{"from": both(PARTNER), "ports": [f"udp/{SIP}", "tcp/2575"]}],
        ),
        policy.service(
            "published",
            "vital",
            ["care"],
            [{"from": ["0.0.0.0/0", "::/0"], "ports": ["udp/6000"], "unbounded": True}],
        ),
        policy.service(
            "laboratory",
            "vital",
            ["care", "gateway"],
            [{"to": both(LAB), "ports": ["udp/5060", "udp/500", "tcp/2575", "esp"]}],
        ),
        policy.service(
            "time",
            "vital",
            ["care"],
            [{"to": ["0.0.0.0/0", "::/0"], "ports": ["udp/123"], "unbounded": True}],
        ),
    ]
}
FORWARDS = f"""
table ip forwards {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    iifname "wan0" udp dport {{ {SIP}, 6000 }} dnat to {SERVER.v4}
  }}
}}
"""


@pytest.fixture
def daemon(hospital: Hospital):
    hospital.nft(FORWARDS)
    started = hospital.daemon(allowlist=ALLOWLIST).start()
    yield started
    started.stop()


@pytest.fixture
def outside(hospital: Hospital):
    with hospital.sniff() as sniffer:
        yield sniffer


def leaves(
    hospital: Hospital, outside: Sniffer, port: int, to: str, there: int, family: int
) -> bool:
    """Whether a datagram of the care server's, from one of its ports, is seen outside."""
    before = outside.count(destination=to, port=there, from_gateway=True)
    forge.send(hospital, "care", forge.packet("udp", SERVER.address(family), port, to, there))
    # What follows on the same links was behind it.
    assert hospital.care.udp(LAB.address(family), 5060)
    return outside.count(destination=to, port=there, from_gateway=True) > before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize(
    ("who", "port", "to", "there"),
    [("care", SIP, PARTNER, 22), ("guests", 6000, STRANGER, 7777)],
    ids=["the partner's other ports", "anybody at all"],
)
def test_nobody_gets_out_through_a_connection_opened_in_an_outside_name(
    hospital: Hospital,
    daemon: Daemon,
    outside: Sniffer,
    family: int,
    when: str,
    who: str,
    port,
    to,
    there,
):
    one, inside = to.address(family), SERVER.address(family)
    # A connection that has been there before the cut is another one than what is forged at the cut.
    early = there if when == "before the cut" else there + 1
    forge.send(hospital, who, forge.packet("udp", one, early, inside, port))
    assert leaves(hospital, outside, port, one, early, family), (
        "positive control: all passes while open"
    )
    daemon.level("cut")
    forged = forge.packet("udp", one, there, inside, port)
    for _ in range(2):
        assert not leaves(hospital, outside, port, one, there, family)
        forge.send(hospital, who, forged)
        assert not leaves(hospital, outside, port, one, there, family)
        wait_for_purge(daemon)
    # Positive control: who does open it from outside is answered.
    gate = places.GATEWAY_WAN.v4 if family == 4 else inside
    forge.send(hospital, "inet", forge.packet("udp", one, 30000, gate, port))
    assert leaves(hospital, outside, port, one, 30000, family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["udp", "tcp", "esp", "ike"])
def test_no_frame_in_a_partners_name_ends_a_kept_flow(
    hospital: Hospital, daemon: Daemon, family: int, kind: str
):
    lab, gateway = LAB.address(family), places.GATEWAY_WAN.address(family)
    inside = HERE.address(family)
    daemon.level("cut")
    wait_for_purge(daemon)
    tries = {
        "udp": lambda: forge.talk(hospital, "care", inside, SIP, lab, SIP),
        "tcp": lambda: forge.talk(hospital, "care", inside, 40000, lab, 2575, kind="tcp"),
        "esp": lambda: hospital.care.raw(50, lab),
        "ike": lambda: forge.talk(hospital, "gw", gateway, 500, lab, 500),
    }
    frames = {
        "udp": forge.packet("udp", lab, SIP, inside, SIP),
        "tcp": forge.packet("syn", lab, 2575, inside, 40000),
        "esp": forge.packet("esp", lab, 0, inside, 0),
        "ike": forge.packet("udp", lab, 500, gateway, 500),
    }
    # The victim says nothing to what it did not ask for, so that the entry stays as the frame made
    # it.
    hospital.nft(
        "table inet deaf {\n chain in {\n type filter hook input priority filter\n"
        "tcp flags & (syn | ack) == syn drop\n}\n}\n",
        role="care",
    )
    forge.send(hospital, "guests", frames[kind])
    assert tries[kind](), "refused, by one frame of a guest"


def test_a_frame_before_the_cut_ends_no_kept_flow_for_longer_than_the_purge_takes(
    hospital: Hospital, daemon: Daemon
):
    """Without translation the flow goes on in the connection that the frame opened.

    It is made again, and kept.
    """
    forge.send(hospital, "guests", forge.packet("udp", LAB.v6, SIP, HERE.v6, SIP))
    assert forge.talk(hospital, "care", HERE.v6, SIP, LAB.v6, SIP)
    daemon.level("cut")
    wait_for_purge(daemon)
    assert forge.talk(hospital, "care", HERE.v6, SIP, LAB.v6, SIP)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("when", WHEN)
def test_nobody_gets_in_through_a_connection_opened_in_an_inside_name(
    hospital: Hospital, daemon: Daemon, family: int, when: str
):
    """A service to anybody's clock is none from anybody.

    Not for who writes an inside source on a packet from outside.
    """
    inside, stranger = HERE.address(family), STRANGER.address(family)
    forged = {
        "another machine's question": forge.packet(
            "udp", SERVER.address(family), 4000, inside, 123
        ),
        "its own answer": forge.packet("udp", stranger, 123, inside, 4001),
    }
    opened = forge.packet("udp", inside, 4001, stranger, 123)
    with hospital.sniff("care", "eth0") as witness:

        def comes_in() -> list[str]:
            before = {
                name: witness.count(destination=inside, port=port) for name, port in ports.items()
            }
            for packet in forged.values():
                forge.send(hospital, "inet", packet)
            assert hospital.care.udp(LAB.address(family), 5060)
            return [
                name
                for name, port in ports.items()
                if witness.count(destination=inside, port=port) > before[name]
            ]

        ports = {"another machine's question": 123, "its own answer": 4001}
        if when == "before the cut":
            forge.send(hospital, "inet", opened)
            assert comes_in() == list(ports), "positive control: all passes while open"
        daemon.level("cut")
        forge.send(hospital, "inet", opened)
        assert not comes_in()
        wait_for_purge(daemon)
        assert not comes_in()


def test_what_the_site_forgot_to_list_has_its_translation_and_goes_from_inside_to_inside(
    hospital: Hospital, daemon: Daemon
):
    """At `open`, and while another zone is cut.

    What is translated from inside to inside stays so at a cut.
    """
    hospital.shell("care", "ip addr add 10.77.0.5/32 dev eth0")
    hospital.shell("gw", "ip route add 10.77.0.0/24 dev care0")
    hospital.nft(
        "table ip more {\n chain pre {\n type nat hook prerouting priority dstnat\n"
        f'iifname "care0" ip daddr 10.99.0.1 dnat to {places.GUEST_HOST.v4}\n}}\n}}\n'
    )
    hospital.guest.listen("udp", 5000)

    def out() -> bool:
        return forge.talk(hospital, "care", "10.77.0.5", 4000, places.WEB.v4, 5000)

    def across() -> bool:
        return forge.talk(hospital, "care", "10.77.0.5", 4001, "10.99.0.1", 5000)

    assert out()
    assert across()
    daemon.level("cut", zones=["guests"])
    wait_for_purge(daemon)
    assert across()
    daemon.level("open", zones=["guests"])
    assert out()
    daemon.level("cut")
    wait_for_purge(daemon)
    assert across()
    assert not out()


@pytest.mark.parametrize("family", FAMILIES)
def test_in_an_outside_name_from_inside_to_inside_passes_at_every_level(
    hospital: Hospital, daemon: Daemon, family: int
):
    frame_to = places.GUEST_HOST.address(family)
    frame = forge.packet("udp", STRANGER.address(family), 4000, frame_to, 4001)
    with hospital.sniff("guests", "eth0") as witness:
        for number, level in enumerate(("open", "cut", "isolate"), 1):
            daemon.level(level)
            forge.send(hospital, "care", frame)
            until(lambda n=number: witness.count(destination=frame_to, port=4001) == n)


def test_a_machine_without_an_address_is_heard_by_a_stateful_firewall(
    hospital: Hospital, daemon: Daemon
):
    """DHCP: the site takes the question by `ct state new`."""
    hospital.nft(
        "table inet dhcp {\n counter heard {\n }\n chain in {\n"
        " type filter hook input priority filter\n"
        "ct state new udp dport { 67, 547 } counter name heard\n}\n}\n"
    )
    daemon.level("cut")
    forge.send(hospital, "care", forge.packet("udp", "0.0.0.0", 68, "255.255.255.255", 67))
    forge.send(hospital, "care", forge.packet("udp", "fe80::7", 546, places.CARE.gateway.v6, 547))
    until(lambda: "packets 2 " in hospital.shell("gw", "nft list counter inet dhcp heard"))


@pytest.mark.parametrize("level", ["cut", "isolate"])
def test_the_purge_ends_nothing_that_goes_from_inside_to_inside(
    hospital: Hospital, daemon: Daemon, level: str
):
    """A source in no zone's subnets, and what the site translates to such a machine.

    Both are routed to the inside.
    """
    hospital.shell(
        "care",
        "ip addr add 10.77.0.5/32 dev eth0\nip -6 addr add 2001:db8:77::5/128 dev eth0 nodad",
    )
    hospital.shell(
        "gw", "ip route add 10.77.0.0/24 dev care0\nip -6 route add 2001:db8:77::/64 dev care0"
    )
    hospital.nft(
        "table ip more {\n chain pre {\n type nat hook prerouting priority dstnat\n"
        'iifname "guest0" ip daddr 203.0.113.99 dnat to 10.77.0.5\n}\n}\n'
    )
    guest = places.GUEST_HOST
    hospital.guest.listen("udp", 5000)
    hospital.care.listen("udp", 5000)
    ways = {
        "10.77.0.5": ("care", "10.77.0.5", guest.v4),
        "2001:db8:77::5": ("care", "2001:db8:77::5", guest.v6),
        "dst=203.0.113.99": ("guests", guest.v4, "203.0.113.99"),
        places.WEB.v4: ("guests", guest.v4, places.WEB.v4),
    }
    for number, (role, source, to) in enumerate(ways.values(), 4100):
        assert forge.talk(hospital, role, source, number, to, 5000), to

    def there() -> list[str]:
        with_port = hospital.shell("gw", "cat /proc/net/nf_conntrack").splitlines()
        lines = [
            line.replace(":0db8:0077:0000:0000:0000:0000:0005", ":db8:77::5") for line in with_port
        ]
        return [what for what in ways if any(what in line for line in lines)]

    assert there() == list(ways)
    daemon.level(level)
    wait_for_purge(daemon)
    assert there() == [what for what in ways if what != places.WEB.v4], (
        "positive control: the last one is ended"
    )
