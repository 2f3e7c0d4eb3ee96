"""Values to canonical JSON and back."""

import json
import subprocess
import sys
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecluse.policy import IPNetwork, Policy
from ecluse.records import Generation, KnownName
from ecluse.state import codec
from tests.unit.state import samples


@pytest.mark.parametrize(
    "kind, value",
    [
        (Policy, samples.POLICY),
        (Policy, samples.OTHER_POLICY),
        (Generation, samples.generation(7, back_to=3)),
        (tuple[KnownName, ...], tuple(samples.names().values())),
    ],
)
def test_a_value_comes_back_equal(kind, value):
    data = codec.canonical(value)
    back = codec.read_canonical(kind, data)
    assert back == value
    assert codec.canonical(back) == data


def test_what_an_earlier_version_wrote_is_read_and_keeps_its_digest():
    """Fields that came later (policy.ADDED_LATER) are left out while they say nothing, and only
    then.
    """
    plain = samples.names()["lab.example"]
    data = codec.canonical(plain)
    assert set(json.loads(data)) == {"name", "addresses", "asked", "failure"}
    assert set(json.loads(data)["addresses"][0]) == {"address", "seen", "expires"}
    assert codec.read_canonical(KnownName, data) == plain
    assert b"private" not in codec.canonical(samples.POLICY)
    spelled = data.replace(b'"name":', b'"alias":"","name":')
    with pytest.raises(ValueError, match="canonical"):
        codec.read_canonical(KnownName, spelled)


def test_the_digest_does_not_depend_on_the_process():
    """frozensets of strings iterate in another order in each process; their JSON must not."""
    program = (
        "from tests.unit.state.samples import POLICY; "
        "from ecluse.state.codec import policy_digest; print(policy_digest(POLICY))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": "src:."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(6)
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        codec.canonical(samples.generation(7)).replace(b'"number":7', b'"number":"7"'),
        codec.canonical(samples.generation(7)).replace(b'"number":7', b'"number":true'),
        codec.canonical(samples.generation(7)).replace(b'"number":7', b'"number": 7'),
        codec.canonical(samples.generation(7)).replace(b'"number":7', b'"number":7,"more":1'),
        codec.canonical(samples.generation(7)).replace(b'"action":"level"', b'"action":"party"'),
        codec.canonical(samples.generation(7)).replace(b'"at":"2026', b'"at":"late'),
    ],
)
def test_anything_else_is_a_value_error(data):
    with pytest.raises(ValueError):
        codec.read_canonical(Generation, data)


@given(
    st.builds(
        lambda address, slash, length: f"{address}{slash}{length}",
        st.ip_addresses().map(str) | st.sampled_from(["198.18.0.0", "2001:db8::", "::", "x"]),
        st.sampled_from(["/", "", "//"]),
        st.sampled_from(["32", "128", "16", "0", "", "33", "032", "255.255.0.0"]),
    )
)
def test_a_network_of_either_family_is_read_as_ipaddress_reads_it(text):
    try:
        expected = ip_network(text)
    except ValueError:
        with pytest.raises(ValueError, match="is none of"):
            codec.decode(IPNetwork, text)
        return
    for kind in (IPNetwork, tuple[IPNetwork, ...], type(expected)):
        found = codec.decode(kind, [text] if kind == tuple[IPNetwork, ...] else text)
        assert found == ((expected,) if kind == tuple[IPNetwork, ...] else expected)


@pytest.mark.parametrize("value", [3, None, True, ["198.18.0.0/15"], 0xC6120000])
def test_a_network_is_text(value):
    for kind in (IPNetwork, IPv4Network, IPv6Network):
        with pytest.raises(ValueError):
            codec.decode(kind, value)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"site":{},"services":[]}']
)
def test_bytes_with_the_right_digest_may_still_be_no_policy(data):
    with pytest.raises(ValueError):
        codec.read_json(Policy, data)
