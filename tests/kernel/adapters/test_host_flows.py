"""`check --host` names what the gateway itself has open now, from a real connection table."""

import pytest

from ecluse.cli.host_flows import gateway_flows
from ecluse.kernel import bypass_scan
from tests.kernel.adapters.conftest import do, nft, send_udp
from tests.kernel.adapters.test_bypass_scan import policy

pytestmark = pytest.mark.kernel


def test_the_gateways_own_connections_are_named(namespace, monkeypatch, tmp_path):
    monkeypatch.setenv("ECLUSE_STATE_DIR", str(tmp_path))
    do(
        "ip link add wan0 type veth peer name far0",
        "ip link set wan0 up",
        "ip link set far0 up",
        "ip addr add 198.51.100.2/24 dev wan0",
        "ip route add default via 198.51.100.1",
        "ip neigh add 198.51.100.1 lladdr 02:00:00:00:00:01 dev wan0",
        "sysctl -qw net.netfilter.nf_conntrack_acct=1",
    )
    nft("table ip t { chain c { type filter hook output priority 0; ct state new accept; }; }")
    host = bypass_scan.read_everything()
    assert gateway_flows(policy(), host) == ((), ())
    send_udp("198.51.100.2", "203.0.113.5", 123, times=3)
    send_udp("198.51.100.2", "192.168.7.9", 514, times=1)
    found, unseen = gateway_flows(policy(), host)
    assert unseen == ()
    ours = {(one.kind, one.is_bypass) for one in found}
    assert ours == {("gateway", False)}
    text = "; ".join(one.what for one in found)
    assert "udp/123 to 203.0.113.5" in text
    assert "udp/514 to 192.168.7.9" in text, "private, and its route leads outside"
    assert "level 'cut' ends" in text
