"""The fields of the two families."""

from ecluse.ruleset.families import FAMILIES, IPV4, IPV6, LINK_LOCAL6


def test_no_field_is_of_the_other_family():
    for family, other in ((IPV4, IPV6), (IPV6, IPV4)):
        fields = {family.source, family.destination, family.original_source, family.reply_source}
        assert {field.type for field in fields} == {family.type}
        assert not fields & {other.source, other.destination, other.original_source}
    assert [family.version for family in FAMILIES] == [4, 6]


def test_link_local_is_fe80_10():
    assert LINK_LOCAL6 == (0xFE80 << 112, (0xFEC0 << 112) - 1)
