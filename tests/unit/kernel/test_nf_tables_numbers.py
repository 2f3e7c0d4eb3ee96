"""Our numbers of nf_tables are the kernel's."""

from ecluse.kernel import nf_tables_numbers as numbers
from tests.unit.kernel.headers import constants, differing


def test_the_numbers_are_those_of_the_headers():
    kernel = constants("netfilter.h", "netfilter/nfnetlink.h", "netfilter/nf_tables.h", "if.h")
    assert differing(numbers, kernel) == {}


def test_the_words_stand_in_the_order_of_the_kernels_numbers():
    kernel = constants("netfilter.h", "netfilter/nf_tables.h")
    hooks = ["PRE_ROUTING", "LOCAL_IN", "FORWARD", "LOCAL_OUT", "POST_ROUTING", "INGRESS"]
    assert [kernel[f"NF_INET_{name}"] for name in hooks] == list(range(len(numbers.HOOKS)))
    assert [kernel["NF_DROP"], kernel["NF_ACCEPT"]] == [0, 1]
    for number, word in numbers.OBJECT_KINDS.items():
        name = {"ct expectation": "CT_EXPECT"}.get(word, word.upper().replace(" ", "_"))
        assert kernel[f"NFT_OBJECT_{name}"] == number
