"""The DNS gate in the site's files: when it is on, what is refused, what is odd."""

import pytest

from ecluse.config import load_policy, read_directory, warnings_of
from ecluse.errors import ConfigError
from ecluse.policy import DnsLimits, DnsMode
from tests.unit.config.test_config_remarks import DAY, TO

LAST = "  - {name: reduced, title: Vital and important, keeps: [vital, important]}\n"


def with_gate(files, text: str) -> None:
    files.site(LAST, f"{LAST}dns_gate:\n{text}")


def faults(files) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_policy(files.path)
    return [str(fault).replace(f"{files.path}/", "") for fault in error.value.faults]


def test_off_unless_a_service_needs_it(files):
    assert load_policy(files.path).site.dns.mode is DnsMode.NEVER
    files.labs(TO, 'to: ["*.Lab.Example", results.lab.example]')
    policy = load_policy(files.path)
    assert policy.site.dns.mode is DnsMode.CUT
    assert policy.services[0].destinations[0].wildcards == ("lab.example",)
    assert policy.services[0].destinations[0].hosts == ("results.lab.example",)


def test_said_whole(files):
    with_gate(
        files,
        "  mode: always\n  port: 5310\n  limits: {client_queries: 20, label: 30}\n"
        "  internal:\n    - {names: [hospital.example, 10.in-addr.arpa, intranet], servers: [10.20.0.53]}\n",
    )
    gate = load_policy(files.path).site.dns
    assert (gate.mode, gate.port) == (DnsMode.ALWAYS, 5310)
    assert gate.limits == DnsLimits(client_queries=20, label=30)
    assert gate.internal[0].names == ("hospital.example", "10.in-addr.arpa", "intranet")


def test_every_fault_at_once(files):
    with_gate(
        files,
        "  mode: sometimes\n  port: 53\n  limits: {client_queries: 0, label: 64}\n  internel: []\n",
    )
    files.labs(TO, 'to: "*.lab.example"')
    said = faults(files)
    assert [f.split(", expected")[0] for f in said] == [
        "site.yaml:18:9: 'sometimes' is unknown",
        "site.yaml:19:9: 53",
        "site.yaml:20:28: 0",
        "site.yaml:20:38: 64",
        "site.yaml:21:3: the key 'internel' is unknown: did you mean 'internal'?",
    ]


def test_a_wildcard_needs_the_gate(files):
    with_gate(files, "  mode: never\n")
    files.labs(TO, 'to: "*.lab.example"')
    assert faults(files) == [
        "allowlist.d/10-labs.yaml:9:13: '*.lab.example' and 'dns_gate: {mode: never}', expected mode: cut, or host names"
    ]


def test_an_inside_server_lies_inside_and_a_domain_has_one_answer(files):
    one = "{names: [hospital.example], servers: [192.0.2.53]}"
    other = "{names: [hospital.example], servers: [10.20.0.53]}"
    with_gate(files, f"  internal:\n    - {one}\n    - {other}\n")
    assert [f.split(", expected")[0] for f in faults(files)] == [
        "site.yaml:19:45: '192.0.2.53' lies in no zone's subnets: names of the inside would be asked outside",
        "site.yaml:20:16: the domain 'hospital.example' a second time",
    ]


ENDS = "a cut ends live connections of 'laboratory' to '*.lab.example'"


@pytest.mark.parametrize(
    ("gate", "labs", "said"),
    [
        ("", {TO: 'to: "*.lab.example"'}, True),
        ("  mode: cut\n", {TO: 'to: "*.lab.example"'}, True),
        # Kept by `reduced`, so not meant to end there either.
        ("", {TO: 'to: "*.lab.example"', "criticality: vital": "criticality: important"}, True),
        ("  mode: always\n", {TO: 'to: "*.lab.example"'}, False),
        ("", {TO: 'to: ["*.lab.example", 203.0.113.10]'}, False),
        ("  mode: cut\n", {}, False),
        ("", {TO: 'to: "*.lab.example"', "criticality: vital": "criticality: deferrable"}, False),
        ("", {TO: 'to: "*.lab.example"', "zones: [care]": "zones: [gateway]"}, False),
    ],
)  # fmt: skip
def test_connections_to_a_wildcard_that_a_cut_ends(files, gate, labs, said):
    if gate:
        with_gate(files, gate)
    text = (files.path / "allowlist.d/10-labs.yaml").read_text()
    for old, new in labs.items():
        assert old in text
        text = text.replace(old, new)
    files.write("allowlist.d/10-labs.yaml", text)
    found = [
        fault
        for fault in warnings_of(read_directory(files.path), DAY)
        if fault.wrong.startswith(ENDS)
    ]
    assert len(found) == said
    if found:
        assert (found[0].line, found[0].column) == (9, 13)
        assert "To keep them: dns_gate: {mode: always} in site.yaml" in found[0].wrong


def test_a_wildcard_of_the_gateway_alone_is_odd(files):
    files.write(
        "allowlist.d/20-more.yaml",
        (files.path / "allowlist.d/10-labs.yaml")
        .read_text()
        .replace("laboratory", "updates")
        .replace("[care]", "[gateway]")
        .replace(TO, 'to: "*.updates.example"'),
    )
    said = [f.wrong for f in warnings_of(read_directory(files.path), DAY)]
    assert any(
        "the DNS gate does not answer the gateway itself" in wrong for wrong in said
    ), said


def test_a_wildcard_may_lead_to_private_addresses_too(files):
    text = (files.path / "allowlist.d/10-labs.yaml").read_text()
    files.write(
        "allowlist.d/10-labs.yaml", text.replace(TO, 'to: "*.lab.example"\n        private: true')
    )
    with_gate(files, "  mode: always\n")
    assert not [
        f.wrong for f in warnings_of(read_directory(files.path), DAY) if "'private'" in f.wrong
    ]
