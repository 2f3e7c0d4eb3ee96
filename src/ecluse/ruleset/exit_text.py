"""The second lock as text for nft(8).

A restatement is one transaction. Counters, learned addresses and what was recorded stay; a set of
ends has a name of its contents and is never changed, so that no packet meets old rules and a new
set (the kernel changes rules and elements at two instants). Base chains are made again each time:
one whose device was renamed hangs nowhere, and the kernel lists it as before. Their policy is
accept, for a chain that goes loses its rules before its hook; the last rule drops.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from ecluse.policy import LinkProtocol, Preset
from ecluse.ruleset import program as p
from ecluse.ruleset.exit_values import NOTHING, WHOLE, Answer, Ends, ExitDevice, ExitLock, Standing
from ecluse.ruleset.lifeline import OSPF
from ecluse.ruleset.program_text import interval_text

TABLE = "netdev ecluse_exit"
REMOVAL = f"add table {TABLE}\ndelete table {TABLE}\n"
"""Works where no such table is, too."""
COUNTERS = KEPT4, KEPT6, LINK, LOST = ("kept4", "kept6", "link", "lost")
DROPPED4, DROPPED6, DROPPED_FRAMES = DROPPED = ("dropped4", "dropped6", "droppedx")
LEARNED = ("learned4", "learned6")
MOST_DROPPED = 1024
_WITH_PORTS = "{ 6, 17, 33, 132, 136 }"
_LISTENERS = "130, 131, 132, 143"
_IP, _IP6, _ARP, _PPP_DISCOVERY, _PPP_SESSION = 0x0800, 0x86DD, 0x0806, 0x8863, 0x8864
_STP_GROUP, _LLC_STP = 0x0180C2000000, 0x4242
_ETHERTYPES = {LinkProtocol.LACP: 0x8809, LinkProtocol.LLDP: 0x88CC, LinkProtocol.EAPOL: 0x888E}
_VIRTUAL_ROUTERS = (0x00005E0001, 0x00005E0002)
"""The first 40 bits of a virtual router's address (RFC 5798, 7.3), IPv4 and IPv6."""


def on_chain(device: ExitDevice) -> str:
    """Name the base chain of a device."""
    return f"on.{device.key}"


def counter(kind: str, device: ExitDevice) -> str:
    """Name a counter of a device."""
    return f"{kind}.{device.key}"


@lru_cache(maxsize=4)
def end_sets(ends: Ends, digit: str) -> dict[str, tuple[str, str, list[str]]]:
    """Give the sets of one family that are never changed: name to type, flags and elements.

    A set that would be empty is not made.
    """
    kind = f"ipv{digit}_addr"
    singles = [interval_text(kind, (one, one)) for one in _in_order(ends.singles)]
    ranges = [interval_text(kind, each) for each in ends.ranges]
    answers = [_answer_text(one) for one in ends.answers if one[1:] != WHOLE]
    room = max(1024, 1 << (2 * len(singles)).bit_length())
    wanted = (
        ("to", kind, f"size {room};", singles),
        ("nets", kind, "flags interval;", ranges),
        ("answers", "inet_proto . inet_service", "flags interval;", answers),
    )
    return {
        f"{stem}{digit}_{_digest(elements, ends.series)}": (of, flags, elements)
        for stem, of, flags, elements in wanted
        if elements
    }


def _in_order(numbers: Iterable[int]) -> Iterator[int]:
    """Give numbers in an order of their own, in pieces: one sort of 100,000 would hold the loop."""
    pieces: dict[int, list[int]] = {}
    for one in numbers:
        pieces.setdefault(one & 0xFF, []).append(one)
    for low in sorted(pieces):
        yield from sorted(pieces[low])


def _answer_text(one: Answer) -> str:
    return f"{one[0]} . {one[1]}" if one[1] == one[2] else f"{one[0]} . {one[1]}-{one[2]}"


def _digest(elements: Iterable[str], series: int) -> str:
    whole = hashlib.sha256(b"%d\n" % series)
    for one in elements:
        whole.update(one.encode() + b"\n")
    return whole.hexdigest()[:12]


def names(lock: ExitLock) -> Standing:
    """Name everything that the lock's table holds."""
    learned = LEARNED if lock.learns else ()
    sets = {*end_sets(lock.ends4, "4"), *end_sets(lock.ends6, "6"), *learned, *DROPPED}
    each = [device_names(one) for one in lock.devices]
    chains = frozenset(name for one in each for name in one.chains)
    counters = frozenset(name for one in each for name in one.counters)
    return Standing(chains, frozenset(sets), counters)


def table_text(
    lock: ExitLock, standing: Standing = NOTHING, sound: Collection[ExitDevice] = ()
) -> str:
    """Write the transaction that makes the table, or restates the one that stands.

    sound: devices of the lock whose chains and counters stand as they should; not touched.
    """
    return "".join(_table_lines(lock, standing, frozenset(sound)))


def device_names(device: ExitDevice) -> Standing:
    """Name what is one device's own."""
    return Standing(
        frozenset((on_chain(device), *_inner_chains(device))),
        counters=frozenset(counter(kind, device) for kind in COUNTERS),
    )


def boot_text(lock: ExitLock) -> str:
    """Write a text that makes the table again, whatever stands."""
    return REMOVAL + table_text(lock)


def _table_lines(lock: ExitLock, standing: Standing, sound: frozenset[ExitDevice]) -> Iterator[str]:
    meant = names(lock)
    kept = {name for one in sound for name in device_names(one).chains}
    devices = [one for one in lock.devices if one not in sound]
    based = sorted(one for one in standing.chains - kept if one.startswith("on."))
    yield from (f"delete chain {TABLE} {chain}\n" for chain in based)
    yield f"table {TABLE} {{\n"
    yield from (f"\tcounter {one} {{\n\t}}\n" for one in sorted(meant.counters - standing.counters))
    yield from _sets(lock, standing)
    for one in devices:
        yield from (f"\tchain {name} {{\n\t}}\n" for name in _inner_chains(one))
        yield f"\tchain {on_chain(one)} {{\n\t\ttype filter hook egress device "
        yield f'"{one.name}" priority 0; policy accept;\n\t}}\n'
    yield "}\n"
    inner = standing.chains - kept - set(based)
    yield from (f"flush chain {TABLE} {chain}\n" for chain in sorted(inner))
    yield f"table {TABLE} {{\n"
    for one in devices:
        for name, rules in chains(lock, one).items():
            yield f"\tchain {name} {{\n"
            yield from (f"\t\t{rule}\n" for rule in rules)
            yield "\t}\n"
    yield "}\n"
    yield from (f"delete chain {TABLE} {chain}\n" for chain in sorted(inner - meant.chains))
    for name in sorted(standing.sets - meant.sets):
        yield f"delete set {TABLE} {name}\n"
    for name in sorted(standing.counters - meant.counters):
        yield f"delete counter {TABLE} {name}\n"


def _sets(lock: ExitLock, standing: Standing) -> Iterator[str]:
    for digit in ("4", "6"):
        ends = lock.ends(int(digit))
        kind = f"ipv{digit}_addr"
        for name, (of, flags, elements) in end_sets(ends, digit).items():
            if name not in standing.sets:
                yield f"\tset {name} {{\n\t\ttype {of}; {flags}\n\t\telements = {{ "
                yield ",\n\t\t\t".join(elements) + " }\n\t}\n"
        if lock.learns:
            there = ", ".join(interval_text(kind, (one, one)) for one in sorted(ends.learned))
            filled = f"\t\telements = {{ {there} }}\n" if there else ""
            yield f"\tset learned{digit} {{\n\t\ttype {kind};\n{filled}\t}}\n"
        row = f"{kind} . {kind} . inet_proto . inet_service"
        yield f"\tset dropped{digit} {{\n\t\ttype {row}; {_BOUNDED}\n\t}}\n"
    yield f"\tset {DROPPED_FRAMES} {{\n\t\ttype ether_addr . ether_type; {_BOUNDED}\n\t}}\n"


_BOUNDED = f"size {MOST_DROPPED}; flags dynamic,timeout; timeout 1d;"


def _inner_chains(device: ExitDevice) -> list[str]:
    tagged = [f"tagged.{device.key}"] if device.outside_tags else []
    return [f"lost.{device.key}", f"rest.{device.key}", *tagged]


def chains(lock: ExitLock, device: ExitDevice) -> dict[str, list[str]]:
    """Give a device's chains and their rules."""
    key = device.key
    if not device.ethernet:
        return {
            f"lost.{key}": _lost(device),
            f"rest.{key}": [*_to_ends(lock, device), *_housekeeping(lock, device)],
            on_chain(device): [*_no_routes(device), f"jump rest.{key}", f"goto lost.{key}"],
        }
    rest = [
        *_to_ends(lock, device, 96),
        *_housekeeping(lock, device, 96),
        *_beside_ip(lock, device),
        f"goto lost.{key}",
    ]
    tagged = [*_to_ends(lock, device, 128), *_housekeeping(lock, device, 128), f"goto lost.{key}"]
    found = {f"lost.{key}": _lost(device), f"rest.{key}": rest}
    if device.outside_tags:
        found[f"tagged.{key}"] = tagged
    found[on_chain(device)] = _entry(lock, device)
    return found


def _entry(lock: ExitLock, device: ExitDevice) -> list[str]:
    """Let the most frequent pass by one look-up and one compare; sort the others by who sends."""
    key = device.key
    rules = [
        f"@ll,48,48 {_number(mac, 48)} counter name {counter(LINK, device)} accept"
        for mac in device.zone_macs
    ]
    rules += [
        f"@ll,96,16 {_number(kind, 16)} @ll,116,12 {vid} "
        f"counter name {counter(LINK, device)} accept"
        for kind, vid in device.zone_tags
    ]
    rules += _no_routes(device)
    if len(device.macs) == 1:
        for digit, kind in (("4", _IP), ("6", _IP6)):
            whole = _number((device.macs[0] << 16) | kind, 64)
            for name in end_sets(lock.ends(int(digit)), digit):
                if name.startswith("to"):
                    rules.append(
                        f"{_ip(digit)} daddr @{name} @ll,48,64 {whole} "
                        f"counter name {counter(f'kept{digit}', device)} accept"
                    )
    if device.macs:
        rules.append(f"@ll,48,48 {_one_of([_number(m, 48) for m in device.macs])} goto rest.{key}")
    if Preset.VRRP in lock.presets:
        rules += [f"@ll,48,40 {_number(one, 40)} goto rest.{key}" for one in _VIRTUAL_ROUTERS]
    return [*rules, f"goto lost.{key}"]


def _no_routes(device: ExitDevice) -> list[str]:
    """Refuse source routes, by which a kept address is only the next hop.

    IPv4: every option, for `ip option` does not match at this hook.
    """
    return [
        f"meta protocol ip @nh,0,8 != 0x45 goto lost.{device.key}",
        f"meta protocol ip6 exthdr rt exists goto lost.{device.key}",
    ]


def _number(value: int, bits: int) -> str:
    return f"{value:#0{bits // 4 + 2}x}"


def _one_of(values: Iterable[object]) -> str:
    found = [str(one) for one in values]
    return found[0] if len(found) == 1 else "{ " + ", ".join(found) + " }"


def _ip(digit: str) -> str:
    return "ip" if digit == "4" else "ip6"


def _frame(digit: str, at: int) -> str:
    """Match a family by what the frame has, and by what its sender says that it is."""
    kind = _IP if digit == "4" else _IP6
    says = f"meta protocol {_ip(digit)}"
    return f"{says} @ll,{at},16 {_number(kind, 16)}" if at else says


def _to_ends(lock: ExitLock, device: ExitDevice, at: int = 0) -> list[str]:
    rules = []
    for digit in ("4", "6"):
        ends, frame = lock.ends(int(digit)), _frame(digit, at)
        passes = f"counter name {counter(f'kept{digit}', device)} accept"
        made = end_sets(ends, digit)
        rules += [
            f"{frame} {_ip(digit)} daddr @{name} {passes}"
            for name in (
                *(one for one in made if one.startswith("to")),
                *([f"learned{digit}"] if lock.learns else []),
                *(one for one in made if one.startswith("nets")),
            )
        ]
        if ends.answers:
            rules += [f"{frame} {one} {passes}" for one in _answer_matches(ends, digit, made)]
    return rules


def _answer_matches(ends: Ends, digit: str, made: Iterable[str]) -> Iterator[str]:
    """Match what answers a stranger, by its source port; never what opens a TCP connection.

    A later fragment has no port: it passes by its protocol. ICMP errors go back to the stranger.
    """
    whole = [one[0] for one in ends.answers if one[1:] == WHOLE]
    if others := [one for one in whole if one != p.TCP]:
        yield f"meta l4proto {_one_of(others)}"
    opens = "tcp flags & (syn | ack) != syn"
    if p.TCP in whole:
        yield f"meta l4proto 6 {opens}"
    for name in made:
        if name.startswith("answers"):
            yield f"meta l4proto != 6 meta l4proto . th sport @{name}"
            yield f"meta l4proto 6 {opens} meta l4proto . th sport @{name}"
    protocols = _one_of(sorted({one[0] for one in ends.answers}))
    if digit == "4":
        yield f"ip frag-off & 0x1fff != 0 meta l4proto {protocols}"
        yield f"icmp type {{ 3, 11, 12 }} {_rate(100)}"
    else:
        yield f"exthdr frag exists frag frag-off != 0 meta l4proto {protocols}"
        yield f"icmpv6 type {{ 1, 2, 3, 4 }} {_rate(100)}"


def _rate(per_second: int) -> str:
    return f"limit rate {per_second}/second burst {2 * per_second} packets"


def _housekeeping(lock: ExitLock, device: ExitDevice, at: int = 0) -> list[str]:
    """Let out what the lifeline's presets let out (`lifeline.py`), at a rate."""
    v4, v6 = _frame("4", at), _frame("6", at)
    rules = []
    if Preset.ND in lock.presets:
        near = f"{v6} ip6 hoplimit 255 icmpv6 type"
        rules += [
            f"{near} {{ 135, 136 }} ip6 length 0-40 {_rate(100)}",
            f"{near} 133 ip6 daddr ff02::/16 {_rate(100)}",
            f"{v6} ip6 hoplimit 1 icmpv6 type {{ {_LISTENERS} }} ip6 daddr ff00::/8 {_rate(10)}",
        ]
    # The gate does not see a DHCP client's packet socket: a lease lives on without the preset, too.
    rules.append(f"{v4} ip daddr 255.255.255.255 udp sport 68 udp dport 67 {_rate(10)}")
    if Preset.DHCP in lock.presets:
        servers = "{ fe80::/10, ff02::1:2 }"
        rules.append(f"{v6} ip6 daddr {servers} udp sport 546 udp dport 547 {_rate(10)}")
    if Preset.VRRP in lock.presets:
        rules += [
            f"{v4} ip daddr 224.0.0.18 ip ttl 255 meta l4proto 112 {_rate(100)}",
            f"{v6} ip6 daddr ff02::12 ip6 hoplimit 255 meta l4proto 112 {_rate(100)}",
        ]
    if Preset.OSPF in lock.presets:
        routers = "{ fe80::/10, ff02::5, ff02::6 }"
        rules += [
            f"{v4} ip ttl 1 meta l4proto {OSPF} {_rate(1000)}",
            f"{v6} ip6 daddr {routers} meta l4proto {OSPF} {_rate(1000)}",
        ]
    passes = f"counter name {counter(LINK, device)} accept"
    if at:
        rules.append(
            f"@ll,{at},16 {_number(_ARP, 16)} arp htype 1 arp ptype 0x0800 arp hlen 6 arp plen 4 "
            f"arp operation {{ 1, 2 }} meta length <= 64 {_rate(100)}"
        )
    return [f"{rule} {passes}" for rule in rules]


def _beside_ip(lock: ExitLock, device: ExitDevice) -> list[str]:
    rules = [
        f"@ll,96,16 {_number(kind, 16)} {_rate(10)}"
        for name, kind in sorted(_ETHERTYPES.items())
        if name in lock.link
    ]
    if LinkProtocol.STP in lock.link:
        rules.append(
            f"@ll,0,48 {_number(_STP_GROUP, 48)} @ll,96,16 <= 1500 "
            f"@ll,112,16 {_number(_LLC_STP, 16)} {_rate(10)}"
        )
    if device.dials or device.carries_ppp:
        rules.append(f"@ll,96,16 {_number(_PPP_DISCOVERY, 16)} {_rate(10)}")
    if device.carries_ppp:
        rules.append(f"@ll,96,16 {_number(_PPP_SESSION, 16)}")
    tags = [
        f"@ll,96,16 {_number(kind, 16)} @ll,116,12 {vid} goto tagged.{device.key}"
        for kind, vid in device.outside_tags
    ]
    passes = f"counter name {counter(LINK, device)} accept"
    return [*tags, *(f"{rule} {passes}" for rule in rules)]


def _lost(device: ExitDevice) -> list[str]:
    """Count, record, drop: each by a rule of its own, for a full set ends its rule."""
    rules = [f"counter name {counter(LOST, device)}"]
    for digit in ("4", "6"):
        ends = f"{_ip(digit)} saddr . {_ip(digit)} daddr . meta l4proto"
        for has, port in (("", "th dport"), ("!= ", "0")):
            rules.append(
                f"meta l4proto {has}{_WITH_PORTS} update @dropped{digit} {{ {ends} . {port} "
                "counter }"
            )
    if device.ethernet:
        rules.append(
            f"meta protocol != {{ ip, ip6 }} update @{DROPPED_FRAMES} "
            "{ ether saddr . ether type counter }"
        )
    return [*rules, "drop"]
