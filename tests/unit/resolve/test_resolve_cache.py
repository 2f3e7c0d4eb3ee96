"""The rule by which an address comes, stays and leaves."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from ecluse.records import KnownName
from ecluse.resolve import cache
from ecluse.resolve.lookup import Answer

START = datetime(2026, 3, 4, 3, 0, tzinfo=UTC)
BOTH = frozenset({4, 6})
NOTHING = KnownName("lab.example", ())


def said(*addresses, ttl=300, answered=BOTH, failures=()):
    return Answer({ip_address(a): ttl for a in addresses}, frozenset(answered), tuple(failures))


def learn(known, answer, minutes=0.0):
    return cache.learn(known, answer, START + timedelta(minutes=minutes), 30, 3600)


def texts(known):
    return [each.address for each in known.addresses]


def test_a_fresh_answer_is_dated_and_sorted():
    known = learn(NOTHING, said("2001:db8::1", "203.0.113.11", "203.0.113.9"))
    assert texts(known) == ["203.0.113.9", "203.0.113.11", "2001:db8::1"]
    assert known.asked == START and known.failure == ""
    assert {(a.seen, a.expires) for a in known.addresses} == {(START, START + timedelta(seconds=300))}


def test_ttls_are_bounded_both_ways():
    for ttl, seconds in ((0, 30), (29, 30), (31, 31), (999_999, 3600)):
        (address,) = learn(NOTHING, said("203.0.113.9", ttl=ttl)).addresses
        assert address.expires - address.seen == timedelta(seconds=seconds)


def test_an_address_that_is_gone_stays_half_an_hour_then_leaves_with_a_fresh_answer():
    known = learn(NOTHING, said("203.0.113.9"))
    known = learn(known, said("203.0.113.10"), 29.9)
    assert texts(known) == ["203.0.113.9", "203.0.113.10"]
    assert known.addresses[0].seen == START
    known = learn(known, said("203.0.113.10"), 30)
    assert texts(known) == ["203.0.113.10"]


def test_nothing_leaves_by_a_failure_however_long_it_lasts():
    known = learn(NOTHING, said("203.0.113.9", "2001:db8::9"))
    for day, answer in enumerate(
        [
            said(answered=(), failures=["no answer"]),
            said(answered=(), failures=["NXDOMAIN"]),
            said(),  # answered, and empty in both families
            said(answered=(4,), failures=["SERVFAIL"]),
        ],
        1,
    ):
        known = learn(known, answer, day * 1440)
        assert texts(known) == ["203.0.113.9", "2001:db8::9"]
        assert known.failure
    known = learn(known, said("203.0.113.9"), 9000)
    assert texts(known) == ["203.0.113.9"] and known.failure == ""


def test_one_family_that_fails_keeps_its_addresses():
    known = learn(NOTHING, said("203.0.113.9", "2001:db8::9"))
    known = learn(known, said("203.0.113.10", answered=(4,), failures=["::53 answered SERVFAIL"]), 60)
    assert texts(known) == ["203.0.113.10", "2001:db8::9"]
    assert known.failure == "::53 answered SERVFAIL"


def test_a_clock_set_back_loses_nothing():
    known = learn(NOTHING, said("203.0.113.9"))
    assert texts(learn(known, said("203.0.113.10"), -600)) == ["203.0.113.9", "203.0.113.10"]


def test_addresses_and_words_are_bounded_and_the_newest_stay():
    old = learn(NOTHING, said(*(f"198.51.100.{n}" for n in range(200))))
    known = learn(old, said(*(f"203.0.113.{n}" for n in range(200)), failures=["x" * 2000]), 1)
    assert len(known.addresses) == cache.MOST_ADDRESSES
    assert sum(a.address.startswith("203.") for a in known.addresses) == 200
    assert len(known.failure) <= cache.MOST_FAILURE
    assert (
        "400 addresses; the newest 256 are used"
        in learn(old, said(*(f"203.0.113.{n}" for n in range(200))), 1).failure
    )


def test_old_names_may_be_forgotten_and_expiry_is_that_of_the_newest():
    known = learn(NOTHING, said("203.0.113.9", ttl=60))
    assert not cache.is_old(known, START + timedelta(minutes=29))
    assert cache.is_old(known, START + timedelta(minutes=30))
    assert cache.is_old(KnownName("x.example", ()), START)
    assert cache.expires(learn(known, said("203.0.113.10", ttl=90), 5)) == START + timedelta(
        minutes=5, seconds=90
    )
    assert cache.expires(NOTHING) is None


ANSWERS = st.builds(
    lambda hosts, answered: said(
        *(f"203.0.113.{n}" for n in hosts), answered=answered | ({4} if hosts else set())
    ),
    st.sets(st.integers(0, 5)),
    st.sets(st.sampled_from([4, 6])),
)


@given(st.lists(st.tuples(ANSWERS, st.integers(0, 40)), max_size=12))
def test_known_is_never_emptied_and_never_sooner_than_promised(steps):
    known, minute, last_seen = NOTHING, 0, {}
    for answer, wait in steps:
        minute += wait
        before = set(texts(known))
        known = learn(known, answer, minute)
        for address in answer.ttls:
            last_seen[str(address)] = minute
        assert {str(a) for a in answer.ttls} <= set(texts(known))
        assert not before or texts(known)
        for gone in before - set(texts(known)):
            assert minute - last_seen[gone] >= 30 and answer.ttls
