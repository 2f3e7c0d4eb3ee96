"""What `check --host` makes of a connection table: the gateway's own rows, or why there are none.

With a real kernel: tests/kernel/adapters/test_host_flows.py.
"""

import os

from ecluse.cli import host_flows
from ecluse.host_reading import Device, HostReading
from tests.unit.controller.machine import simple
from tests.unit.test_gateway_flows import NTP, OURS, flow

HOST = HostReading(devices=(Device("wan0", index=7),), addresses=(("wan0", f"{OURS}/24"),))


def test_each_row_is_a_warning_and_private_places_go_by_their_route(monkeypatch, tmp_path):
    monkeypatch.setenv("ECLUSE_STATE_DIR", str(tmp_path))
    rows = [flow(OURS, NTP), flow(OURS, "192.168.7.9", port=514), flow(OURS, "192.168.8.9")]
    rows.append(flow(OURS, "224.0.0.5", 41))
    monkeypatch.setattr(host_flows.conntrack, "read_entries", lambda: (rows, 0))
    monkeypatch.setattr(
        host_flows.read_links,
        "read_outputs",
        lambda near: {one: 7 if str(one) == "192.168.7.9" else 1 for one in near},
    )
    found, unseen = host_flows.gateway_flows(simple(), HOST)
    assert unseen == ()
    assert {one.kind for one in found} == {"gateway"}
    assert not any(one.is_bypass for one in found)
    text = "; ".join(one.what for one in found)
    assert "udp/123 to 203.0.113.5" in text
    assert "udp/514 to 192.168.7.9" in text
    assert "41 to 224.0.0.5" in text
    assert "192.168.8.9" not in text


def test_a_group_is_not_told_where_an_address_is_inside_and_outside(monkeypatch):
    inside = simple().site.zones[0].interfaces[0].replace("*", "0")
    shared = "fe80::5054:ff:fe12:3456"  # the VLANs of one trunk have one link-local address
    wan, lan = ("wan0", f"{shared}/64"), (inside, f"{shared}/64")
    entries = [flow(shared, "ff02::fb", port=5353)]
    monkeypatch.setattr(host_flows.conntrack, "read_entries", lambda: (entries, 0))
    monkeypatch.setattr(host_flows.read_links, "read_outputs", lambda _near: {})
    devices = (Device("wan0", index=7), Device(inside, index=8))
    (one,), _ = host_flows.gateway_flows(simple(), HostReading(devices=devices, addresses=(wan,)))
    assert "udp/5353 to ff02::fb" in one.what
    both = HostReading(devices=devices, addresses=(wan, lan))
    assert host_flows.gateway_flows(simple(), both) == ((), ())


def test_a_table_that_cannot_be_read_is_said(monkeypatch):
    def refused():
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(host_flows.conntrack, "read_entries", refused)
    found, (unseen,) = host_flows.gateway_flows(simple(), HOST)
    assert found == ()
    assert unseen.startswith("connections of the gateway itself (")
