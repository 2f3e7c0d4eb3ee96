"""A name longer than nf_tables knows is refused in words: libnftables would abort the process."""

import pytest

from ecluse.errors import KernelError, RulesetRejectedError

pytestmark = pytest.mark.kernel


def text(length):
    chain = "k" * length
    return f"table inet ecluse {{ chain {chain} {{\n }}\n chain from {{\n goto {chain}\n }}\n }}"


async def test_a_name_of_255_is_taken_and_one_of_256_is_refused(firewall):
    await firewall.check(text(255))
    await firewall.apply(text(255))
    for length in (256, 303, 70_000):
        with pytest.raises(RulesetRejectedError, match="more than 255"):
            await firewall.check(text(length))
        with pytest.raises(KernelError, match="more than 255"):
            await firewall.apply(text(length))
    assert await firewall.chains() == ("from", "k" * 255)
