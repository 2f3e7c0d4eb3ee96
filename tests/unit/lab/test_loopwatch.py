"""The judge of what held an event loop: the machine's noise fails no test, the daemon's own doing
does.
"""

from tests.lab.loopwatch import by_the_daemon

ONCE, LONG, TWICE = (
    "25.4 ms: Watches.look:3 (ended)",
    "50.1 ms: Planner.plan:9",
    "21.0 ms: Healer.heal:4 > load:2",
)


def test_what_was_charged_once_and_for_little_is_the_machines():
    assert by_the_daemon([]) == []
    assert by_the_daemon([ONCE, TWICE]) == []


def test_what_is_long_or_comes_again_is_the_daemons():
    assert by_the_daemon([ONCE, LONG]) == [LONG]
    assert by_the_daemon([TWICE, ONCE, "33.3 ms: Healer.heal:4 > load:2"]) == [
        TWICE,
        "33.3 ms: Healer.heal:4 > load:2",
    ]
