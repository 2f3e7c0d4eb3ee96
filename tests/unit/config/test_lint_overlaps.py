"""Warnings about services that share packets."""

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ecluse.config import (
    lint_overlaps,
    read_directory,
    warnings_of,
)
from tests.unit.config.samples import DAY, HERE, SECOND


@pytest.mark.parametrize(
    ("file", "inside", "way", "target", "ports", "shared"),
    [
        ("20", "zones: [care]", "to", "203.0.113.10", "tcp/443", "203.0.113.10"),
        ("20", "zones: [care]", "to", "203.0.113.0/28", "tcp/1-1000", "203.0.113.10"),
        ("05", "zones: [care]", "to", "203.0.113.0/28", "tcp/443", "203.0.113.10"),
        ("20", "zones: [care]", "to", "results.lab.example", "tcp/443", "results.lab.example"),
        ("20", "hosts: [10.10.4.7]", "to", "203.0.113.10", "tcp/443", "203.0.113.10"),
        ("20", "zones: [offices]", "to", "203.0.113.10", "tcp/443", None),
        ("20", "hosts: [10.20.4.7]", "to", "203.0.113.10", "tcp/443", None),
        ("20", "zones: [care]", "to", "203.0.113.10", "tcp/444, udp/443, icmp", None),
        ("20", "zones: [care]", "to", "203.0.113.11", "tcp/443", None),
        ("20", "zones: [care]", "from", "203.0.113.10", "tcp/443", None),
    ],
)
def test_overlaps(files, file, inside, way, target, ports, shared):
    files.write(
        f"allowlist.d/{file}-second.yaml",
        SECOND.format(inside=inside, way=way, target=target, ports=ports),
    )
    found = [line.partition(": ")[2] for line in files.warnings() if "share" in line]
    first, later = ("laboratory", "second") if file == "20" else ("second", "laboratory")
    said = (
        f"'{later}' and '{first}' share '{shared}' on the same port: packets are counted for"
        f" '{first}', which comes first"
    )
    assert found == ([said] if shared else [])


def test_a_service_does_not_overlap_itself(files):
    files.labs(
        "ports: [tcp/443]", "ports: [tcp/443]\n      - to: 203.0.113.10\n        ports: [tcp/443]"
    )
    assert files.warnings() == []


def test_services_that_share_many_targets_are_told_once_for_each_two(files):
    more = ", ".join(f"203.0.113.{n}" for n in range(10, 60))
    files.labs("203.0.113.10", more)
    text = (files.path / HERE).read_text()
    for n in range(3):
        files.write(f"allowlist.d/2{n}.yaml", text.replace("name: laboratory", f"name: other-{n}"))
    said = [w.wrong for w in warnings_of(read_directory(files.path), DAY) if "share" in w.wrong]
    assert len(said) == 3
    assert said[0].startswith(
        "'other-0' and 'laboratory' share 'results.lab.example' and 50 more on the same port"
    )


def test_thousands_of_oddities_of_one_kind_are_few_lines(files):
    # 200 services in pairs that each share a prefix; and one with a thousand addresses of a family
    # nobody has
    services = "".join(
        f"  - name: s{n}\n    title: x\n    owner: x\n    contact: x\n    criticality:"
        " vital\n    zones: [offices]\n"
        f"    review: 2031-03-31\n    destinations:\n      - to: 203.0.{n // 2}.0/24\n   "
        "     ports: [tcp/443]\n"
        for n in range(200)
    )
    files.write("allowlist.d/20.yaml", "services:\n" + services)
    files.labs("zones: [care]", "zones: [offices]")
    files.write(
        HERE,
        (files.path / HERE)
        .read_text()
        .replace("203.0.113.10", ", ".join(f'"2001:db8:99::{n:x}"' for n in range(1, 1001))),
    )
    said = [w.wrong for w in warnings_of(read_directory(files.path), DAY)]
    assert len([w for w in said if " share " in w and "packets are" in w]) == 50
    assert (
        "50 more pairs of services share packets: each is counted for the first of its two" in said
    )
    assert [w for w in said if "is of no use" in w] == [
        (
            "'2001:db8:99::1' is of no use: the inside of 'laboratory' has no IPv6 subnet"
            " (and 999 more of this destination alike)"
        )
    ]
    assert len(said) <= 53


TARGETS = [
    "198.18.0.1",
    "198.18.0.2",
    "198.18.0.3",
    "198.18.0.0/30",
    "198.18.0.0/24",
    "198.18.0.4/30",
    "2001:db8::1",
    "2001:db8::/64",
    "2001:db8::/32",
    "lab.example",
    "any",
]


SERVICES = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["to", "from"]),
            st.lists(st.sampled_from(TARGETS), min_size=1, max_size=4, unique=True),
            st.sampled_from(["tcp/443", "tcp/1-500", "udp/53", "esp"]),
        ),
        min_size=1,
        max_size=2,
    ),
    min_size=1,
    max_size=4,
)


def every_end(services):
    """Every target: `_may_meet` leaves out most of them."""
    return [
        lint_overlaps._End(0, 0, position, index, item, value)
        for position, placed in enumerate(services)
        for index in range(len(placed.targets))
        for item, value in placed.each_target(index)
    ]


@given(SERVICES)
@example(
    [[("to", ["198.18.0.0/24"], "tcp/443")], [("to", ["198.18.0.1", "198.18.0.2"], "tcp/443")]]
)
@example([[("to", ["any"], "esp")], [("to", ["any", "2001:db8::1"], "esp")]])
def test_leaving_out_what_meets_nothing_changes_no_remark(tmp_path_factory, services):
    directory = tmp_path_factory.mktemp("conf")
    (directory / "allowlist.d").mkdir()
    zone = {"name": "care", "interfaces": ["lan0"], "subnets": ["10.10.0.0/16", "2001:db8:10::/48"]}
    (directory / "site.yaml").write_text(yaml.safe_dump({"site": "chu-example", "zones": [zone]}))
    written = [
        {
            "name": f"s{number}",
            "title": "S",
            "criticality": "vital",
            "zones": ["care"],
            "destinations": [
                {w: to, "ports": [ports], "unbounded": True} for w, to, ports in destinations
            ],
        }
        for number, destinations in enumerate(services)
    ]
    (directory / "allowlist.d/1.yaml").write_text(yaml.safe_dump({"services": written}))
    loaded = read_directory(directory)
    found = warnings_of(loaded, DAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lint_overlaps, "_may_meet", every_end)
        assert warnings_of(loaded, DAY) == found
