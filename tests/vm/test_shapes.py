"""Every shape of gateway, on Debian's own kernels: one guest, each shape in namespaces of its own.

`shapes.runner` plays them inside and tells; here is what has to be true of it.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.vm.images import Disk
from tests.vm.rig import Rig
from tests.vm.shapes.catalogue import SHAPES
from tests.vm.shapes.shape import CLEAN, DIES, LEAKS, Shape
from tests.vm.ward import Ward

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

HERE = Path(__file__).parent / "shapes"


@pytest.fixture(scope="module")
def told(disk: Disk, rig: Rig) -> dict[str, dict[str, Any]]:
    """Play every shape; give what the runner told of each."""
    rig.discard()  # two guests at once are twice as slow
    with Ward() as ward:
        machine = ward.machine("shapes", disk, memory="1G")
        machine.start()
        machine.wait_until_up()
        # the guest's own gate is not what is looked at: its daemon only takes time
        machine.sh(
            "systemctl stop ecluse.socket ecluse ecluse-dns prober; nft flush ruleset", check=True
        )
        for path in sorted(HERE.glob("*.py")):
            machine.write(f"/root/shapes/{path.name}", path.read_text(encoding="utf-8"))
        machine.sh("cd /root && python3 -m shapes.runner >told 2>said", timeout=2000)
        lines = machine.sh("cat /root/told").out.splitlines()
        said = machine.sh("cat /root/said").out
    found = [json.loads(line) for line in lines]
    assert found, said
    return {one["shape"]: one for one in found}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_is_what_we_say_of_it(shape: Shape, told: dict[str, dict[str, Any]]):
    assert shape.name in told, "the runner told nothing of it"
    seen = told[shape.name]
    assert not seen["error"], seen["error"]
    assert _faults(shape, seen) == [], json.dumps(seen, indent=1)


def _faults(shape: Shape, seen: dict[str, Any]) -> list[str]:
    """Name all that is not as the catalogue says."""
    faults = []
    asked, streams, at_cut = seen["asked"], seen["streams"], seen["streams_at_cut"]
    # positive controls: while open everybody answers, and the witness sees who is not kept
    for when in ("open", "again", "at last"):
        faults += [f"{when}: {who}: {how}" for who, how in asked[when].items() if how != "yes"]
    if not seen["seen_at_open"]:
        faults.append("the witness saw nothing at open")
    kept_at_cut = [how for who, how in asked["cut"].items() if who.startswith("kept")]
    if shape.at_cut == DIES:
        if "yes" in kept_at_cut:
            faults.append("at cut a kept service answers, and should die")
    else:
        if set(kept_at_cut) != {"yes"}:
            faults.append(f"at cut: {asked['cut']}")
        for who, (sent, echoed) in streams.items():
            if who.startswith("kept") and sent - echoed > shape.loses:
                faults.append(f"{who}: {echoed} of {sent}")
    faults += _leaks("cut", seen["seen_at_cut"], shape.at_cut == LEAKS)
    faults += _leaks("isolate", seen["seen_at_isolate"], shape.at_isolate == LEAKS)
    if shape.at_cut in (CLEAN, DIES):
        faults += [
            f"at cut: {who} answers"
            for who, how in asked["cut"].items()
            if who.startswith("other") and how == "yes"
        ]
        faults += [
            f"at cut: {who} was echoed"
            for who, (_, echoed) in at_cut.items()
            if who.startswith("other") and echoed and not (shape.settles or shape.purged)
        ]
        if seen["entered_at_cut"]:
            faults.append(f"at cut {seen['entered_at_cut']} packets of strangers entered")
    words = seen["says"] + seen["says_at_cut"]
    faults += [
        f"nobody says {wanted!r}"
        for wanted in shape.named
        if not any(re.search(wanted, text) for text in words)
    ]
    faults += [
        f"said: {text}" for unwanted in shape.unsaid for text in words if re.search(unwanted, text)
    ]
    return faults


def _leaks(level: str, counted: dict[str, int], expected: bool) -> list[str]:
    if expected:
        return [] if counted else [f"at {level} nothing leaks any more: write the catalogue anew"]
    return [f"at {level}: {number} packets to {where}" for where, number in counted.items()]
