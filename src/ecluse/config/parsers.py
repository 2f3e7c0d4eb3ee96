"""One written value -> one value of the policy. Pure: no files, no clock, no look-ups."""

import re
from collections.abc import Collection
from datetime import date
from ipaddress import IPv4Network, IPv6Network

from ecluse.config.address_parsers import is_link_group, not_mapped, prefix, unicast
from ecluse.config.messages import InvalidValueError, did_you_mean, listed, shown
from ecluse.policy import IPNetwork, Traffic, parse_network
from ecluse.safe_text import is_safe

NAME = re.compile(r"[a-z][a-z0-9-]{0,47}")


def name(text: str) -> str:
    """Check a name that will stand in identifiers of nftables: `[a-z][a-z0-9-]{0,47}`."""
    if not NAME.fullmatch(text):
        raise InvalidValueError(
            f"{shown(text)} is no name",
            "1 to 48 of a-z, 0-9 and '-', a letter first (a title may say more)",
        )
    return text


def one_of(text: str, words: Collection[str]) -> str:
    """Check that a word is one of those known."""
    if text not in words:
        raise InvalidValueError(
            f"{shown(text)} is unknown{did_you_mean(text, words)}", listed(words)
        )
    return text


def line(text: str, limit: int) -> str:
    """Check text for people: one line of at most `limit` characters, all of them printable."""
    if not text.strip():
        raise InvalidValueError("an empty text", "words for a person")
    if len(text) > limit:
        raise InvalidValueError(f"a text of {len(text)} characters", f"at most {limit}")
    if not text.isprintable() and (bad := next((c for c in text if not is_safe(c)), None)):
        raise InvalidValueError(
            f"the character U+{ord(bad):04X} in a text", "one line of text that can be seen"
        )
    return text.strip()


def paragraph(text: str, limit: int) -> str:
    """Check text that may run over several lines; it becomes one line."""
    folded = " ".join(text.split())
    return line(folded, limit) if folded else ""


DAY_FORM = "a date such as 2027-01-31"


def day(value: date | str) -> date:
    """Parse a date, bare or in quotes (YAML gives either)."""
    if isinstance(value, date):
        return value
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            return date.fromisoformat(value)
    except ValueError:
        raise InvalidValueError(
            f"{shown(str(value))} is a date that does not exist", "a day of the calendar"
        ) from None
    raise InvalidValueError(f"the text {shown(str(value))}", DAY_FORM)


# IFNAMSIZ is 16 with the NUL (linux/if.h); dev_valid_name() refuses '/', ':' and blanks, and "."
# and "..". The rest is what may stand in nft's double quotes with no escape; not '@', which no name
# has but in `ip link`'s words.
_INTERFACE = re.compile(r"[A-Za-z0-9_.+-]{1,15}|[A-Za-z0-9_.+-]{1,14}\*")


def interface(text: str) -> str:
    """Check an interface name or a pattern with one trailing `*`."""
    if text == "*":
        raise InvalidValueError(
            "'*' alone would make every interface an inside one",
            "a name, or a pattern such as 'vlan1*'",
        )
    name, at, below = text.partition("@")
    if at and _INTERFACE.fullmatch(name):
        wrong = f"{shown(text)} is what 'ip link' shows of {name}, which stands on {shown(below)}"
        raise InvalidValueError(wrong, f"the name alone: {name}")
    if not _INTERFACE.fullmatch(text) or text in {".", ".."}:
        raise InvalidValueError(
            f"{shown(text)} is no interface name",
            "at most 15 of letters, digits and _.+-, '*' only at the end",
        )
    if text == "lo" or (text.endswith("*") and "lo".startswith(text[:-1])):
        raise InvalidValueError(
            f"{shown(text)} covers lo, the machine itself", "interfaces towards the inside"
        )
    return text


EVERYTHING: tuple[IPNetwork, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
Target = str | IPNetwork | tuple[IPNetwork, ...]
"""A written destination: a host name or a wildcard, a network, or EVERYTHING."""
WILDCARD = "*."
"""Begins a destination that stands for every name below a domain, and not for the domain itself."""


_WITH_PORT = re.compile(r"(?P<host>[^:\[\]]+|\[[^\]]+\]):(?P<port>[0-9]{1,5})")
_ADDRESS_RANGE = re.compile(r"[0-9.]+-[0-9.]+")


def target(text: str, *, unbounded: bool) -> Target:
    """Parse a destination: a host name, a wildcard, an address, a prefix or `any`.

    Args:
        text: as written.
        unbounded: whether the whole internet may be meant.

    Raises:
        InvalidValueError: with what was expected.
    """
    network = parse_network(text)
    if network is not None:  # none of the texts below
        return _hosts_or_group(not_mapped(network, text), unbounded=unbounded)
    if text == "any":
        if not unbounded:
            raise InvalidValueError(
                "'any' is the whole internet",
                "the partner's addresses, or 'unbounded: true' beside it",
            )
        return EVERYTHING
    if "://" in text:
        raise InvalidValueError(
            f"{shown(text)} is the address of a page",
            "the host name alone, the port in ports: [tcp/443]",
        )
    if "*" in text:
        return _wildcard(text)
    if with_port := _WITH_PORT.fullmatch(text):
        raise InvalidValueError(
            f"a port in the destination {shown(text)}",
            f"{shown(with_port['host'].strip('[]'))} here and the port in ports:"
            f" [tcp/{with_port['port']}]",
        )
    if _ADDRESS_RANGE.fullmatch(text):
        raise InvalidValueError(
            f"{shown(text)} is a range of addresses", "prefixes, such as 203.0.113.8/29"
        )
    if ":" in text or "/" in text or re.fullmatch(r"[0-9.]+", text):
        return _hosts_or_group(prefix(text), unbounded=unbounded)
    return host_name(text)


def _hosts_or_group(network: IPNetwork, *, unbounded: bool) -> IPNetwork:
    """Check a destination; `group_faults` says which services may have a group."""
    return network if is_link_group(network) else unicast(network, unbounded=unbounded)


_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# IDNA 2003 (all that the standard library has) maps these to other letters; IDNA 2008 keeps them
# apart. A registry may hold either, so the site has to say which.
_DEVIATIONS = re.compile("[\u00df\u1e9e\u03c2\u200c\u200d]")


def host_name(text: str) -> str:
    """Parse a full host name (RFC 1123, 2.1) -> lower case, A-labels (RFC 3490), no last dot."""
    expected = "a full host name such as results.lab.example"
    given = text.removesuffix(".")
    if not given or len(given) > 253:
        raise InvalidValueError(
            f"{shown(text)} is no host name", f"{expected}, of at most 253 characters"
        )
    if "" in given.split("."):
        raise InvalidValueError(
            f"{shown(text)} is no host name: two dots in a row, or one that begins it",
            _meant(given),
        )
    if _DEVIATIONS.search(given):
        raise InvalidValueError(
            f"{shown(text)} can be written in two ways in DNS", "its form that begins with xn--"
        )
    try:
        ascii_name = given if given.isascii() else given.encode("idna").decode("ascii")
    except UnicodeError:
        raise InvalidValueError(f"{shown(text)} is no host name", expected) from None
    labels = ascii_name.lower().split(".")
    bad = next((label for label in labels if not _LABEL.fullmatch(label)), None)
    if bad is not None:
        why = "an underscore" if "_" in bad else f"the part {shown(bad)}"
        raise InvalidValueError(
            f"{shown(text)} is no host name: {why}", f"{expected} (letters, digits and '-')"
        )
    if len(".".join(labels)) > 253 or labels[-1].isdigit():
        raise InvalidValueError(f"{shown(text)} is no host name", expected)
    if len(labels) == 1:
        raise InvalidValueError(f"{shown(text)} is one word", f"{expected}: nothing is added to it")
    return ".".join(labels)


def _meant(given: str) -> str:
    """Return what a dot too many may mean: in other tools `.partner.example` is a wildcard."""
    name = ".".join(filter(None, given.lower().split(".")))
    right = all(map(_LABEL.fullmatch, name.split("."))) and "." in name
    if not right:
        return "a full host name such as results.lab.example"
    return f'"*.{name}" for all names below it, or {name}' if given.startswith(".") else name


def _wildcard(text: str) -> str:
    """Parse `*.operator.example`: the star is the first label, two or more labels follow."""
    domain = text.removeprefix(WILDCARD)
    if domain == text or "*" in domain:
        raise InvalidValueError(
            f"{shown(text)} is no wildcard", "'*.' before a domain, such as *.operator.example"
        )
    if "." not in domain.strip("."):
        raise InvalidValueError(
            f"{shown(text)} is much of the internet", "a domain of the partner's own"
        )
    return WILDCARD + host_name(domain)


def record_type(text: str) -> str:
    """Parse a type of DNS records that may be answered beside addresses."""
    return one_of(text, RECORD_TYPES)


RECORD_TYPES = ("MX", "SRV")
"""Mail, telephony and directories find their servers by these; they carry little other data."""


def domain(text: str) -> str:
    """Parse a domain of the inside (`10.in-addr.arpa`, `hospital.local`, also `intranet`)."""
    if re.fullmatch(r"(?:[a-z0-9]{1,4}\.)+(?:in-addr|ip6)\.arpa", text):
        return text
    if _LABEL.fullmatch(text) and not text.isdigit():
        return text
    return host_name(text)


# IANA protocol numbers. Port ranges for the first, none for the second.
WITH_PORTS = {"tcp": 6, "udp": 17, "sctp": 132}
WITHOUT_PORTS = {"esp": 50, "ah": 51, "gre": 47, "icmp": 1}
_TRAFFIC_FORM = (
    "a protocol and port such as tcp/443 or udp/500-510, or esp, ah, gre, icmp, or proto/89"
)
_ICMPV6 = 58
_NUMBER = re.compile(r"proto/(0|[1-9][0-9]{0,2})")
_PORTS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def traffic(text: str) -> Traffic:
    """Parse `tcp/443`, `udp/500-510`, `esp`, `ah`, `gre`, `icmp` or a protocol by number."""
    protocol, slash, ports = text.partition("/")
    if numbered := _NUMBER.fullmatch(text):
        return _by_number(text, int(numbered[1]))
    if protocol in WITHOUT_PORTS:
        if slash:
            raise InvalidValueError(f"{shown(text)}: {protocol} has no ports", f"{protocol} alone")
        return Traffic(WITHOUT_PORTS[protocol])
    if protocol not in WITH_PORTS:
        raise _no_traffic(text, protocol, ports)
    written = _PORTS.fullmatch(ports)
    if written is None:
        every = f"{protocol}/443, {protocol}/500-510, or {protocol}/1-65535 for every port"
        raise InvalidValueError(f"{shown(text)} names no port", every)
    first, last = int(written[1]), int(written[2] or written[1])
    if last < first:
        raise InvalidValueError(
            f"{shown(text)}: the range is reversed", f"{protocol}/{last}-{first}"
        )
    if first < 1 or last > 65535:
        raise InvalidValueError(
            f"{shown(text)}: there is no port {first if first < 1 else last}", "ports 1 to 65535"
        )
    return Traffic(WITH_PORTS[protocol], first, last)


def management_port(text: str) -> Traffic:
    """Parse `tcp/22` or `udp/500-510`: management is kept by its port."""
    found = traffic(text)
    if found.first is None:
        raise InvalidValueError(
            f"{shown(text)} has no ports, and management is kept by its port",
            "tcp/22 and the like here; the rest as a service with zones: [gateway] and 'from'",
        )
    return found


def written_traffic(value: Traffic) -> str:
    """Return a protocol and its ports as a person writes them."""
    words = {number: word for word, number in (WITH_PORTS | WITHOUT_PORTS).items()}
    if value.first is None:
        return words.get(value.protocol, f"proto/{value.protocol}")
    to_last = f"-{value.last}" if value.last != value.first else ""
    return f"{words[value.protocol]}/{value.first}{to_last}"


def _no_traffic(text: str, protocol: str, ports: str) -> InvalidValueError:
    turned = re.fullmatch(r"([0-9]+)/(tcp|udp|sctp)|(tcp|udp|sctp)[: ]([0-9]+)", text.lower())
    if turned:
        return InvalidValueError(shown(text), f"{turned[2] or turned[3]}/{turned[1] or turned[4]}")
    if re.fullmatch(r"[0-9-]+", text):
        return InvalidValueError(f"{shown(text)} names no protocol", f"tcp/{text} or udp/{text}")
    if protocol.lower() in {"icmpv6", "icmp6", "ipv6-icmp"}:
        return InvalidValueError(shown(text), "icmp (it stands for both families)")
    if protocol.lower() in WITH_PORTS | WITHOUT_PORTS:
        return InvalidValueError(
            f"{shown(text)} in capitals", protocol.lower() + (f"/{ports}" if ports else "")
        )
    return _no_word(text, protocol.lower())


_OTHER_WORDS = {
    "ospf": 89,
    "ospfigp": 89,
    "eigrp": 88,
    "pim": 103,
    "igmp": 2,
    "ipip": 4,
    "ipencap": 4,
    "6in4": 41,
    "sit": 41,
    "l2tp": 115,
    "vrrp": 112,
}
"""Words of /etc/protocols and of `ip tunnel` that people try; by number all of them can be kept."""
_PRESETS = {"ospf": "ospf", "ospfigp": "ospf", "vrrp": "vrrp"}
_HEADERS6 = frozenset({0, 43, 44, 59, 60})
"""Extension headers of IPv6 (RFC 8200, 4; ipv6_ext_hdr): conntrack steps over them."""


def _by_number(text: str, number: int) -> Traffic:
    """Return a protocol by its IANA number, unless it has a word here."""
    if word := next((w for w, n in (WITH_PORTS | WITHOUT_PORTS).items() if n == number), ""):
        raise InvalidValueError(
            shown(text), word if word in WITHOUT_PORTS else f"{word}/443, with its port"
        )
    if number == _ICMPV6:
        raise InvalidValueError(shown(text), "icmp (it stands for both families)")
    if number in _HEADERS6 or number > 254:
        raise InvalidValueError(f"{shown(text)} is no protocol that can be kept", _TRAFFIC_FORM)
    return Traffic(number)


def _no_word(text: str, protocol: str) -> InvalidValueError:
    """Return the fault of a protocol that is written neither by a known word nor by number."""
    number = _OTHER_WORDS.get(protocol)
    if number is None:
        return InvalidValueError(f"{shown(text)} is no protocol that can be kept", _TRAFFIC_FORM)
    preset = _PRESETS.get(protocol)
    between = f", or lifeline: {{presets: [{preset}]}} in site.yaml" if preset else ""
    return InvalidValueError(f"{shown(text)} has no word here", f"proto/{number}{between}")
