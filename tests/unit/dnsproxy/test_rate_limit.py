"""New names below wildcards are bounded, for all and for each machine."""

from ecluse.dnsproxy.rate_limit import MOST_CLIENTS as MOST_SHARES
from ecluse.dnsproxy.rate_limit import SERVERS_SHARE, SHARE, NewNameLimit


def test_new_names_are_bounded_and_known_ones_are_not():
    names = NewNameLimit()
    names.set_rate(5)
    let = sum(
        names.allows(f"n{i}.operator.example", "operator.example", 0.0, f"c{i}") for i in range(200)
    )
    assert let == 50
    assert all(names.allows("n1.operator.example", "operator.example", 0.0) for _ in range(100))
    assert (
        sum(
            names.allows(f"m{i}.operator.example", "operator.example", 2.0, f"c{i}")
            for i in range(200)
        )
        == 10
    )
    assert names.allows("x.other.example", "other.example", 2.0), (
        "each wildcard has a bound of its own"
    )


def test_a_machine_that_asks_for_many_names_leaves_half_for_those_that_ask_for_few():
    names = NewNameLimit()
    names.set_rate(10)

    def let(client: str, times: int, now: float, share: float = SHARE) -> int:
        return sum(
            names.allows(
                f"{client}-{now}-{n}.operator.example", "operator.example", now, client, share
            )
            for n in range(times)
        )

    # Ten that are its own share, then down to half of the hundred; what comes in beyond the half is
    # for anybody.
    assert let("infected", 500, 0.0) == 50
    assert let("infected", 500, 1.0) == 10
    assert [let(f"ward{n}", 10, 1.0) for n in range(4)] == [10] * 4
    assert let("infected", 500, 2.0) == 1, "its share of a second"
    assert let("server", 40, 2.0, SERVERS_SHARE) == 19, (
        "the bound of all together holds: 100 + 2 * 10"
    )
    assert let("ward9", 1, 2.0) == 0
    assert let("ward9", 5, 3.0) == 5
    # Whoever asks for nothing new is not counted, and what is known of machines is bounded.
    assert all(
        names.allows("infected-0.0-1.operator.example", "operator.example", 3.0, "ward9")
        for _ in range(50)
    )
    for n in range(MOST_SHARES + 10):
        names.allows(f"crowd{n}.operator.example", "operator.example", 4.0, f"client{n}")
    assert len(names._own) == MOST_SHARES
