"""Networks from text and as numbers: as `ipaddress` has them, only faster."""

from ipaddress import ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.policy import network_interval, parse_network
from ecluse.policy.networks import network_text

pieces = st.sampled_from(["10.0.0.0", "10.1.2.3", "::", "2001:db8::1", "/8", "/32", "/128", "/0"])
texts = st.lists(pieces, max_size=3).map("".join) | st.text(max_size=8)


@given(texts)
@example("10.0.0.0/08")
@example("10.0.0.1/8")
@example("fe80::1%lo")
@example("10.0.0.0\0")
@example("\ud800")
def test_it_takes_no_text_that_ipaddress_refuses_and_reads_it_alike(text):
    found = parse_network(text)
    if found is not None:
        assert found == ip_network(text)


@pytest.mark.parametrize("text", ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1", "0.0.0.0/0"])
def test_what_sites_write_is_read(text):
    network = parse_network(text)
    assert network == ip_network(text)
    first, last = network_interval(network)
    assert (first, last) == (int(network.network_address), int(network.broadcast_address))


def test_a_network_is_written_as_str_does():
    for text in ("10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0"):
        assert network_text(ip_network(text)) == text
