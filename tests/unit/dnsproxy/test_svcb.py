"""Service bindings (HTTPS, SVCB): what stays of a record, and that no address, name or port that is
not kept ever does.
"""

from ipaddress import ip_address, ip_network

import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecluse.dnsproxy import message_filter
from ecluse.dnsproxy.message_filter import DnsQuestion
from tests.unit.dnsproxy.messages import (
    CONFIG,
    answered,
    at,
)

NAME = "x.operator.example"
REDUCED = at("reduced")


def bound(*records: str, kind: str = "HTTPS", private: bool = False):
    """Strain an answer of these records; give what stays as text, and the rest of what is said of
    it.
    """
    found = answered(
        "\n".join(f"{NAME}. 60 IN {kind} {one}" for one in records), NAME, kind, private
    )
    texts = [data.to_text().replace('"', "") for one in found.reply.answer for data in one]
    return texts, [str(one) for one in found.addresses], found.taken_out, found.dropped


def test_what_is_kept_stays_and_every_hint_is_learned():
    record = "1 . alpn=h2,http/1.1 ipv4hint=203.0.113.9,203.0.113.10 ipv6hint=2001:db8:ffff::9"
    for kind in ("HTTPS", "SVCB"):
        assert bound(record, kind=kind) == (
            [record],
            ["203.0.113.9", "203.0.113.10", "2001:db8:ffff::9"],
            0,
            0,
        )


@pytest.mark.parametrize(
    ("record", "stays", "taken_out"),
    [
        # Addresses as in an answer of addresses: nothing of the inside, nothing private, nothing
        # reserved.
        ("1 . ipv4hint=10.30.0.7,203.0.113.9", "1 . ipv4hint=203.0.113.9", 1),
        ("1 . ipv4hint=192.168.0.1,127.0.0.1", "1 .", 2),
        (
            "1 . ipv4hint=203.0.113.9 ipv6hint=::1,fe80::1,2001:db8:30::9",
            "1 . ipv4hint=203.0.113.9",
            3,
        ),
        # What a client must understand, and would miss: the whole record.
        ("1 . mandatory=ipv4hint ipv4hint=10.30.0.7", None, 1),
        (
            "1 . mandatory=ipv4hint ipv4hint=10.30.0.7,203.0.113.9",
            "1 . mandatory=ipv4hint ipv4hint=203.0.113.9",
            1,
        ),
        ("1 . mandatory=ech ech=AAQAAAAA", None, 0),
        # Nothing that is not known.
        ("1 . alpn=h2 ech=AAQAAAAA dohpath=/q key65280=carried", "1 . alpn=h2", 0),
        ("1 . alpn=h2,carried-in", "1 . alpn=h2", 0),
        ("1 . alpn=carried-in no-default-alpn", None, 0),
        # Ports: 500 to 510 of UDP are kept, and 443 of TCP.
        ("1 . port=443", "1 . port=443", 0),
        ("1 . port=8443 alpn=h2", None, 0),
        ("1 . port=505 alpn=h3 no-default-alpn", "1 . alpn=h3 no-default-alpn port=505", 0),
        ("1 . port=505 alpn=h2 no-default-alpn", None, 0),
        ("1 . port=505 alpn=h2", None, 0),
        # UDP 443 is not: who tried it would be refused, and told of.
        ("1 . alpn=h2,h3", "1 . alpn=h2", 0),
        ("1 . alpn=h3", "1 .", 0),
        ("1 . alpn=h3 no-default-alpn", None, 0),
        # Other names: kept ones.
        ("1 x.operator.example. alpn=h2", "1 x.operator.example. alpn=h2", 0),
        ("1 X.Operator.example. alpn=h2", "1 X.Operator.example. alpn=h2", 0),
        (
            "1 results.lab.example. ipv4hint=203.0.113.9",
            "1 results.lab.example. ipv4hint=203.0.113.9",
            0,
        ),
        ("1 node.cdn.example. ipv4hint=203.0.113.9", None, 0),
        ("0 results.lab.example.", "0 results.lab.example.", 0),
        ("0 node.cdn.example.", None, 0),
        ("0 .", "0 .", 0),
    ],
)  # fmt: skip
def test_a_record_stays_as_far_as_it_leads_to_what_is_kept(record, stays, taken_out):
    texts, addresses, out, dropped = bound(record)
    assert (texts, out, dropped) == ([stays] if stays else [], taken_out, 0 if stays else 1)
    assert all(one in str(stays) for one in addresses)


def test_a_name_of_another_service_is_no_way_for_this_one():
    """The console is kept at `reduced`, for other machines: whoever asks for the mail is not led
    there.
    """
    query = dns.message.make_query(NAME, "HTTPS")
    reply = dns.message.make_response(query)
    reply.answer.append(
        dns.rrset.from_text(f"{NAME}.", 60, "IN", "HTTPS", "1 a.console.example. alpn=h2")
    )
    question = message_filter.judge(NAME, dns.rdatatype.HTTPS, REDUCED)
    assert REDUCED.policy_for("a.console.example")
    assert message_filter.filter_answer(query, reply, question, REDUCED).dropped == 1


def test_private_hints_stay_where_the_destination_says_so():
    assert bound("1 . ipv4hint=10.200.0.7", private=True)[1] == ["10.200.0.7"]


def test_the_chain_of_aliases_is_followed_and_nothing_stands_beside():
    found = answered(
        f"{NAME}. 86400 IN CNAME y.cdn.example.\n"
        "y.cdn.example. 60 IN HTTPS 1 . ipv4hint=203.0.113.9\n"
        "z.cdn.example. 60 IN HTTPS 1 . ipv4hint=203.0.113.10\ny.cdn.example. 60 IN A 203.0.113.11",
        kind="HTTPS",
    )
    assert found.addresses == (ip_address("203.0.113.9"),)
    assert [(r.name.to_text(), r.ttl) for r in found.reply.answer] == [
        (f"{NAME}.", 300),
        ("y.cdn.example.", 60),
    ]
    assert not found.reply.additional


def test_at_open_a_name_that_nobody_keeps_is_judged_by_its_addresses_alone():
    query = dns.message.make_query("www.web.example", "HTTPS")
    reply = dns.message.make_response(query)
    text = "1 cdn.web.example. alpn=h2,h3 port=8443 ipv4hint=203.0.113.9,10.30.0.7"
    reply.answer.append(dns.rrset.from_text("www.web.example.", 60, "IN", "HTTPS", text))
    question = DnsQuestion("www.web.example", dns.rdatatype.HTTPS, (), "")
    found = message_filter.filter_answer(query, reply, question, CONFIG)
    assert found.reply.answer[0][0].to_text().replace('"', "") == (
        "1 cdn.web.example. alpn=h2,h3 port=8443 ipv4hint=203.0.113.9"
    )


def test_ports_of_all_services_of_a_name_count():
    every = REDUCED.policy_for("a.console.example")
    assert every.keeps(6, 443)
    assert not every.keeps(50, 443), "ESP has no ports"


def packed(version: int):
    """Draw addresses, half of them from where something lies."""
    some = {
        4: [
            "10.10.0.1",
            "10.30.0.7",
            "127.0.0.1",
            "192.168.1.1",
            "203.0.113.9",
            "198.51.100.4",
            "224.0.0.1",
        ],
        6: [
            "::1",
            "fe80::1",
            "2001:db8:30::7",
            "2001:db8:ffff::9",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ],
    }
    return st.one_of(st.sampled_from(some[version]), st.ip_addresses(v=version).map(str))


@st.composite
def records(draw):
    """Draw a record as text, of whatever stands in RFC 9460."""
    target = draw(
        st.sampled_from(
            [".", f"{NAME}.", "results.lab.example.", "y.cdn.example.", "a.console.example."]
        )
    )
    if draw(st.integers(0, 9)) == 0:
        return f"0 {target}"
    params = {
        "alpn": draw(
            st.none() | st.lists(st.sampled_from(["h2", "h3", "http/1.1", "dot", "x"]), min_size=1)
        ),
        "port": draw(st.none() | st.sampled_from([[443], [505], [8443], [0], [53]])),
        "ipv4hint": draw(st.none() | st.lists(packed(4), min_size=1, max_size=5)),
        "ipv6hint": draw(st.none() | st.lists(packed(6), min_size=1, max_size=5)),
        "ech": draw(st.none() | st.just(["AAQAAAAA"])),
        "key65280": draw(st.none() | st.just(["carried"])),
    }
    there = {key: value for key, value in params.items() if value}
    mandatory = draw(st.lists(st.sampled_from(sorted(there)), unique=True)) if there else []
    text = [f"{key}={','.join(map(str, value))}" for key, value in there.items()]
    text += [f"mandatory={','.join(mandatory)}"] if mandatory else []
    text += ["no-default-alpn"] if "alpn" in there and draw(st.booleans()) else []
    return f"{draw(st.integers(1, 3))} {target} {' '.join(text)}"


INSIDE = [
    ip_network(one)
    for one in ("10.0.0.0/8", "192.168.0.0/16", "127.0.0.0/8", "224.0.0.0/3", "2001:db8:30::/48")
]
KNOWN = {0, 1, 2, 3, 4, 6}


@settings(deadline=None)
@given(st.lists(records(), min_size=1, max_size=4), st.sampled_from(["HTTPS", "SVCB"]))
def test_whatever_a_resolver_says_no_more_than_what_is_kept_comes_back(texts, kind):
    query = dns.message.make_query(NAME, kind)
    said = dns.message.make_response(query)
    said.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", kind, *texts))
    question = message_filter.judge(NAME, query.question[0].rdtype, CONFIG)
    found = message_filter.filter_answer(
        query, dns.message.from_wire(said.to_wire()), question, CONFIG
    )
    reply = dns.message.from_wire(found.reply.to_wire())
    stayed = [one for rrset in reply.answer for one in rrset]
    assert len(stayed) + found.dropped >= 1
    hints = [
        ip_address(a)
        for one in stayed
        for key in (4, 6)
        if key in one.params
        for a in one.params[key].addresses
    ]
    assert all(message_filter._may_stand_for(str(a), question, CONFIG) for a in hints)
    assert not any(a in net for a in hints for net in INSIDE if net.version == a.version)
    assert set(hints) == set(found.addresses), "what stays is learned, and nothing else"
    for one in stayed:
        assert set(one.params) <= KNOWN
        assert one.target.to_text(omit_final_dot=True) in {
            "@",
            ".",
            "",
            NAME,
            "results.lab.example",
        }
        protocols = one.params[1].ids if 1 in one.params else ()
        port = one.params[3].port if 3 in one.params else 443
        assert port in {443, *range(500, 511)}
        assert (b"h3" in protocols) <= (port != 443)
        assert set(protocols) <= {b"h2", b"h3", b"http/1.1"}
        assert 0 not in one.params or set(one.params[0].keys) <= set(one.params)
