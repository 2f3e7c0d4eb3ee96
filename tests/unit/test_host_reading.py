"""One reading of the machine."""

from ecluse.host_reading import Device, HostReading


def test_names_are_those_of_this_namespace():
    """A macvlan that stands in a container has a number there that may be another's here."""
    here = (Device("lo", index=1), Device("wan0", index=2))
    there = Device("eth0", kind="macvlan", parent="wan0", elsewhere=True)
    assert HostReading(devices=(*here, there)).names() == {1: "lo", 2: "wan0"}
