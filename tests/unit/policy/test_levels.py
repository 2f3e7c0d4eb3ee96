"""How closed levels are, by the order of the site's list."""

import pytest

from ecluse.policy import at_least_as_closed, level_named, most_closed, rank
from tests.unit.ruleset.policies import SITE


def test_levels_rank_in_the_sites_order_and_an_unknown_one_is_the_most_closed():
    assert [rank(SITE, name) for name in ("open", "reduced", "cut", "isolate", "?")] == [
        0,
        1,
        2,
        3,
        3,
    ]


def test_a_level_is_found_by_its_name_or_not_at_all():
    assert level_named(SITE, "reduced").name == "reduced"
    with pytest.raises(KeyError):
        level_named(SITE, "?")


@pytest.mark.parametrize(
    "one, other, answer",
    [
        ({"care": "cut"}, {"care": "cut"}, True),
        ({"care": "isolate"}, {"care": "cut"}, True),
        ({"care": "open"}, {"care": "cut"}, False),
        # A zone that is missing on the left counts as closed, on the right as open.
        ({}, {"care": "isolate"}, True),
        ({"care": "open"}, {}, True),
        ({"care": "cut", "admin": "open"}, {"care": "cut", "admin": "reduced"}, False),
    ],
)
def test_at_least_as_closed_in_every_zone(one, other, answer):
    assert at_least_as_closed(SITE, one, other) is answer


def test_the_most_closed_level_of_each_zone():
    found = most_closed(SITE, {"care": "cut", "admin": "open"}, {"care": "open"}, {"guests": "?"})
    assert found == {"care": "cut", "admin": "open", "guests": "isolate"}
    assert most_closed(SITE) == {}
