"""Which networks contain a network."""

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from ecluse.policy.network_index import NetworkIndex

networks = st.builds(
    lambda bits, length: ip_network((bits << 24, length), strict=False),
    st.integers(0, 255),
    st.integers(0, 12),
)


@given(st.lists(networks, max_size=12), networks)
def test_it_finds_what_comparing_with_each_finds_the_widest_first(inside, asked):
    index = NetworkIndex()
    for number, network in enumerate(inside):
        index.add(network, number)
    found = list(index.containing(asked))
    wanted = [(net, n) for n, net in enumerate(inside) if asked.subnet_of(net)]
    assert sorted(found, key=str) == sorted(wanted, key=str)
    assert [net.prefixlen for net, _ in found] == sorted(net.prefixlen for net, _ in found)


def test_the_families_are_apart():
    index = NetworkIndex()
    index.add(ip_network("0.0.0.0/0"), "four")
    index.add(ip_network("::/0"), "six")
    assert [item for _, item in index.containing(ip_network("::1/128"))] == ["six"]
