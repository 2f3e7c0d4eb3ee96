"""The rule by which an address comes, stays and leaves."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from ecluse.records import KnownName, NameStatistics
from ecluse.resolve import known_names
from ecluse.resolve.lookup import LookupResult

START = datetime(2026, 3, 4, 3, 0, tzinfo=UTC)
BOTH = frozenset({4, 6})
NOTHING = KnownName("lab.example", ())
DAYS = timedelta(days=30)


def said(*addresses, ttl=300, answered=BOTH, failures=()):
    return LookupResult(
        {ip_address(a): ttl for a in addresses}, frozenset(answered), tuple(failures)
    )


def learn(known, answer, minutes=0.0):
    return known_names.after_answer(known, answer, START + timedelta(minutes=minutes), 30, 3600)


def texts(known):
    return [each.address for each in known.addresses]


def test_a_fresh_answer_is_dated_and_sorted():
    known = learn(NOTHING, said("2001:db8::1", "203.0.113.11", "203.0.113.9"))
    assert texts(known) == ["203.0.113.9", "203.0.113.11", "2001:db8::1"]
    assert known.asked == START and known.failure == ""
    assert {(a.seen, a.expires) for a in known.addresses} == {
        (START, START + timedelta(seconds=300))
    }


def test_ttls_are_bounded_both_ways():
    for ttl, seconds in ((0, 30), (29, 30), (31, 31), (999_999, 3600)):
        (address,) = learn(NOTHING, said("203.0.113.9", ttl=ttl)).addresses
        assert address.expires - address.seen == timedelta(seconds=seconds)


def overdue(known, minutes, last_good=DAYS):
    return {
        each.address
        for each in known_names.overdue(known, START + timedelta(minutes=minutes), last_good)
    }


def test_an_address_that_left_is_due_half_an_hour_later_and_leaves_when_it_is_let_go():
    known = learn(NOTHING, said("203.0.113.9"))
    known = learn(known, said("203.0.113.10"), 10)
    assert texts(known) == ["203.0.113.9", "203.0.113.10"]
    assert known.addresses[0].seen == START
    assert known.addresses[0].left == START + timedelta(minutes=10)
    known = learn(known, said("203.0.113.10"), 20)
    assert known.addresses[0].left == START + timedelta(minutes=10), (
        "since when, not when last noticed"
    )
    assert overdue(known, 29.9) == set()
    assert overdue(known, 30) == {"203.0.113.9"}
    assert texts(learn(known, said("203.0.113.10"), 300)) == ["203.0.113.9", "203.0.113.10"]
    assert texts(known_names.without(known, overdue(known, 30))) == ["203.0.113.10"]


def test_a_ttl_longer_than_half_an_hour_is_kept_to_its_end():
    known = learn(learn(NOTHING, said("203.0.113.9", ttl=3600)), said("203.0.113.10"), 1)
    assert overdue(known, 59) == set()
    assert overdue(known, 60) == {"203.0.113.9"}


def test_a_ttl_longer_than_we_wait_to_ask_is_kept_too_for_a_day_at_most():
    for ttl, minutes in ((7200, 120), (7 * 86_400, 1440)):
        known = learn(learn(NOTHING, said("203.0.113.9", ttl=ttl)), said("203.0.113.10"), 61)
        assert overdue(known, minutes - 1) == set()
        assert overdue(known, minutes) == {"203.0.113.9"}


def by(answer, **givers):
    """Let resolvers r1 and r2 have been asked, and have given these addresses; None: it did not
    answer.
    """
    return replace(
        answer,
        by={
            address: tuple(r for r, those in givers.items() if str(address) in (those or ()))
            for address in answer.ttls
        },
        heard=frozenset(
            (r, family) for r, those in givers.items() if those is not None for family in (4, 6)
        ),
        outcomes=tuple(
            (r, "timeout" if those is None else "answered") for r, those in givers.items()
        ),
    )


def test_an_address_has_not_left_while_those_who_gave_it_are_silent():
    one, two = "203.0.113.9", "203.0.113.10"
    known = learn(NOTHING, by(said(one, two), r1=[one], r2=[two]))
    silent = learn(known, by(said(one), r1=[one], r2=None), 1)
    assert [bool(each.left) for each in silent.addresses] == [False, False]
    spoke = learn(silent, by(said(one), r1=[one], r2=[]), 2)
    assert [each.address for each in spoke.addresses if each.left] == [two]
    elsewhere = learn(silent, by(said(one), r1=[one]), 2)
    assert [each.address for each in elsewhere.addresses if each.left] == [two], (
        "r2 is asked no more"
    )
    both = learn(NOTHING, by(said(one, two), r1=[one, two], r2=[two]))
    gone = learn(both, by(said(one), r1=[one], r2=None), 1)
    assert [each.address for each in gone.addresses if each.left] == [two], (
        "r1 had it too, and is without it"
    )


def test_traffic_begins_its_time_anew():
    known = learn(learn(NOTHING, said("203.0.113.9")), said("203.0.113.10"), 1)
    known = known_names.mark_used(known, {"203.0.113.9"}, START + timedelta(minutes=29))
    assert overdue(known, 58) == set()
    assert overdue(known, 59) == {"203.0.113.9"}


def test_an_address_that_comes_back_has_not_left_and_its_use_is_remembered():
    known = learn(learn(NOTHING, said("203.0.113.9")), said("203.0.113.10"), 1)
    known = known_names.mark_used(known, {"203.0.113.9"}, START)
    known = learn(known, said("203.0.113.9"), 2)
    assert known.addresses[0].left is None
    assert known.addresses[0].used == START


def test_what_nobody_answers_for_is_due_after_its_upper_bound_and_not_before():
    known = learn(NOTHING, said("203.0.113.9"))
    known = learn(known, said(answered=(), failures=["timeout"]), 60)
    assert overdue(known, 30 * 1440 - 1) == set()
    assert overdue(known, 30 * 1440) == {"203.0.113.9"}
    assert overdue(known, 31, timedelta(minutes=1)) == {"203.0.113.9"}, (
        "never sooner than half an hour"
    )


def test_a_clock_that_was_ahead_keeps_nothing_for_longer():
    ahead = known_names.mark_used(
        learn(NOTHING, said("203.0.113.9"), 10_000),
        {"203.0.113.9"},
        START + timedelta(minutes=10_001),
    )
    known = learn(ahead, said("203.0.113.10"), 0)
    assert known.addresses[0].seen == known.since == START
    assert overdue(known, 29.9) == set()
    assert overdue(known, 30) == {"203.0.113.9"}
    again = learn(learn(known, said("203.0.113.10"), 20_000), said("203.0.113.10"), 1)
    assert overdue(again, 30) == {"203.0.113.9"}
    back = learn(ahead, said("203.0.113.9"), 0)
    assert back.addresses[0].used == START, "an address that stays has its use no later either"


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
        assert not any(each.left for each in known.addresses)
    known = learn(known, said("203.0.113.9"), 9000)
    assert known.failure == ""
    assert overdue(known, 9000) == {"2001:db8::9"}


def test_since_when_and_where_it_leads_outlast_a_failure():
    known = learn(NOTHING, replace(said("203.0.113.9"), alias="a.example"))
    known = learn(known, said(answered=(), failures=["timeout"]), 60)
    assert (known.since, known.alias) == (START, "a.example")
    assert learn(known, said("203.0.113.9"), 61).alias == "", "it has none any more"


def test_one_family_that_fails_keeps_its_addresses():
    known = learn(NOTHING, said("203.0.113.9", "2001:db8::9"))
    known = learn(
        known, said("203.0.113.10", answered=(4,), failures=["::53 answered SERVFAIL"]), 60
    )
    assert [(each.address, bool(each.left)) for each in known.addresses] == [
        ("203.0.113.9", True),
        ("203.0.113.10", False),
        ("2001:db8::9", False),
    ]
    assert known.failure == "::53 answered SERVFAIL"


def test_a_clock_set_back_loses_nothing():
    known = learn(NOTHING, said("203.0.113.9"))
    assert texts(learn(known, said("203.0.113.10"), -600)) == ["203.0.113.9", "203.0.113.10"]


def test_addresses_and_words_are_bounded_and_the_newest_stay():
    def some(net, count):
        return said(*(str(ip_address(net) + n) for n in range(count)))

    old = learn(NOTHING, some("198.51.0.0", 2000))
    known = learn(old, replace(some("203.0.112.0", 200), failures=("x" * 2000,)), 1)
    assert len(known.addresses) == known_names.MOST_ADDRESSES == 2048
    assert sum(a.address.startswith("203.") for a in known.addresses) == 200
    assert len(known.failure) <= known_names.MOST_FAILURE
    assert (
        "2200 addresses; the newest 2048 are used"
        in learn(old, some("203.0.112.0", 200), 1).failure
    )


def test_two_hundred_addresses_that_rotate_are_all_kept_for_half_an_hour():
    known = NOTHING
    for minute in range(30):
        known = learn(
            known, said(*(f"203.0.113.{(minute * 8 + n) % 200}" for n in range(8))), minute
        )
    assert len(known.addresses) == 200 and known.failure == ""
    assert overdue(known, 29) == set()


def counted(*answers, wait=0.5):
    known, tally = NOTHING, NameStatistics()
    for number, answer in enumerate(answers):
        at = START + timedelta(minutes=number * wait)
        tally = known_names.count_lookup(tally, known, answer, at)
        known = known_names.after_answer(known, answer, at, 30, 3600)
    return tally


def test_a_name_that_turns_and_one_that_turns_before_its_ttl_are_counted():
    steady = counted(*[said("203.0.113.9")] * 4)
    assert (steady.lookups, steady.answers, steady.turned, steady.early) == (4, 4, 0, 0)
    turning = counted(*(said(f"203.0.113.{n}", ttl=20) for n in range(4)))
    assert (turning.turned, turning.early) == (3, 0)
    assert counted(*(said(f"203.0.113.{n}", ttl=600) for n in range(4))).early == 3
    split = replace(said("203.0.113.9"), split=True)
    assert counted(split, split).early == 2
    assert counted(said(failures=["x"]), said("203.0.113.9")).turned == 0, (
        "the first answer turns nothing"
    )


def test_what_came_of_each_question_is_counted_by_resolver():
    one = replace(
        said("203.0.113.9"), outcomes=(("192.0.2.53", "answered"), ("192.0.2.54", "timeout"))
    )
    assert counted(one, one).outcomes == {
        "192.0.2.53": {"answered": 2},
        "192.0.2.54": {"timeout": 2},
    }


def test_old_names_may_be_forgotten_and_expiry_is_that_of_the_newest():
    known = learn(NOTHING, said("203.0.113.9", ttl=60))
    assert not known_names.is_old(known, START + timedelta(minutes=29))
    assert known_names.is_old(known, START + timedelta(minutes=30))
    assert known_names.is_old(KnownName("x.example", ()), START)
    assert known_names.expires(learn(known, said("203.0.113.10", ttl=90), 5)) == START + timedelta(
        minutes=5, seconds=90
    )
    assert known_names.expires(NOTHING) is None


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
        gone_by_time = overdue(known, minute)
        known = known_names.without(known, gone_by_time)
        for address in answer.ttls:
            last_seen[str(address)] = minute
        assert {str(a) for a in answer.ttls} <= set(texts(known))
        assert not before or texts(known)
        for gone in before - set(texts(known)):
            assert minute - last_seen[gone] >= 30
        assert not gone_by_time & {str(a) for a in answer.ttls}
