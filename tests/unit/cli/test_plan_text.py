"""A plan, shown: what the gateway itself would lose is a table of its own."""

import io

from ecluse.cli import plan_text
from ecluse.cli.terminal import Screen


def shown(**more):
    out = io.StringIO()
    plan = {
        "levels": {"care": "cut", "gateway": "cut"},
        **{key: [] for key in ("services_kept", "services_opened", "services_ended")},
        **{key: [] for key in ("examples_ended", "policy_changes", "diff", "warnings")},
        **dict.fromkeys(("connections_ended", "connections_kept"), 0),
    }
    plan_text.show_plan(Screen(out, out), plan | more, files=False)
    return out.getvalue()


ROW = {
    "peer": "203.0.113.5",
    "protocol": "udp",
    "port": 123,
    "direction": "out",
    "connections": 3,
    "packets": 1200,
}


def test_what_the_gateway_itself_would_lose_is_shown_and_counted():
    text = shown(gateway_ended=[ROW, ROW | {"protocol": "41", "port": 0}], gateway_ended_more=5)
    assert "the gateway itself would lose" in text
    assert "203.0.113.5" in text
    assert "udp/123" in text
    assert "1,200" in text
    assert "41/0" not in text
    assert "and 5 more" in text


def test_an_answer_of_an_earlier_daemon_has_none():
    assert "the gateway itself" not in shown()
