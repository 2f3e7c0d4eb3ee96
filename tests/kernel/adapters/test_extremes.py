"""The largest sites that `ecluse check` takes are taken by libnftables and the kernel, and can be
cut.
"""

import pytest

from ecluse.config import load_policy
from ecluse.ruleset import switch
from ecluse.ruleset.compile import compile_program
from tests import extremes

pytestmark = pytest.mark.kernel


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", extremes.SITES)
async def test_the_largest_legal_sites_are_loaded_and_cut(firewall, tmp_path, name):
    policy = load_policy(extremes.write(tmp_path / "conf", extremes.SITES[name]()))
    program = compile_program(policy, {}, 1)
    text = switch.table_text(program)
    await firewall.check(text)
    await firewall.apply(text)
    for level in ("cut", extremes.LEVELS[0], "isolate", "open"):
        levels = dict.fromkeys(policy.zone_names(), level)
        await firewall.switch(switch.switch_state(policy, 1, levels))
        targets = switch.switch_targets(policy, 1, levels)
        assert await firewall.targets(targets) == targets
