"""Values to canonical JSON and back."""

import subprocess
import sys

import pytest

from ecluse.policy import Policy
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


def test_the_digest_does_not_depend_on_the_process():
    """frozensets of strings iterate in another order in each process; their JSON must not."""
    program = (
        "from tests.unit.state.samples import POLICY; from ecluse.state.codec import policy_digest; "
        "print(policy_digest(POLICY))"
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
