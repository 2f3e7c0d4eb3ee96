"""Programs at tcx hooks are counted on a real interface."""

import errno

import pytest

from tests.kernel.adapters.test_bypass_scan import found, read_machine
from tests.lab import xdp

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("side", ["ingress", "egress"])
async def test_tcx(gateway, side):
    assert "tc" not in await found()
    try:
        xdp.attach_tcx("care0", side)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("no tcx before Linux 6.6")
    assert f"(tcx, {side} of care0) runs a BPF program" in (await found())["tc"].what
    host = await read_machine()
    assert (len(host.filters), host.unseen) == (1, ())
