"""Messages to nf_tables, read back by the functions that read the kernel's answers."""

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import attribute_map, attributes, number, text
from ecluse.kernel.nft_messages import (
    TABLE,
    elements_request,
    expression,
    inet_request,
    nested,
    number_attribute,
    rule_attributes,
    verdict,
)
from ecluse.kernel.read_table import goto_target


def rule(*expressions: bytes) -> dict[int, bytes]:
    return attribute_map(
        rule_attributes("k1_gate.care") + nested(nf.NFTA_RULE_EXPRESSIONS, *expressions)
    )


def test_a_goto_is_read_back_as_its_target():
    assert goto_target([rule(verdict(nf.NFT_GOTO, "k1_at.cut"))]) == "k1_at.cut"
    assert goto_target([rule(verdict(nf.NFT_JUMP, "k1_at.cut"))]) is None
    assert goto_target([rule(verdict(nf.NF_ACCEPT))]) is None
    assert goto_target([rule(expression("counter"), verdict(nf.NFT_GOTO, "k1_at.cut"))]) is None


def test_a_request_says_its_family_its_table_and_its_set():
    kind, flags, body = elements_request(nf.NFT_MSG_NEWSETELEM, 7, "dns_all_4", b"")
    assert kind == nf.NFNL_SUBSYS_NFTABLES << 8 | nf.NFT_MSG_NEWSETELEM
    assert (flags, body[0]) == (7, nf.NFPROTO_INET)
    found = attribute_map(body, 4)
    assert text(found[nf.NFTA_SET_ELEM_LIST_TABLE]) == TABLE
    assert text(found[nf.NFTA_SET_ELEM_LIST_SET]) == "dns_all_4"


def test_numbers_are_in_network_byte_order():
    _, _, body = inet_request(0, 0, number_attribute(5, 258))
    assert [(kind, number(data)) for kind, data in attributes(body, 4)] == [(5, 258)]
    assert attribute_map(number_attribute(5, -4))[5] == b"\xff\xff\xff\xfc"
