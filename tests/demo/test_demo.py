"""`make demo` plays the whole day, and says so when something does not behave as it should."""

import pytest

from tests.lab import demo, policy

pytestmark = pytest.mark.system


def test_the_demo_plays_the_day(capsys: pytest.CaptureFixture[str]) -> None:
    code = demo.run()
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "Everything behaved as it should." in printed
    table = printed[printed.index("The day at a glance") :].splitlines()
    assert max(map(len, table)) <= demo.WIDTH
    assert any("treasury" in line and "ended" not in line for line in table)


def test_the_demo_fails_when_a_vital_service_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    without = {
        name: services
        for name, services in policy.ALLOWLIST.items()
        if services is not policy.FINANCE
    }
    code = demo.run(allowlist=without)
    printed = capsys.readouterr().out
    assert code == 1, printed
    assert "while cut: administration -> treasury (tcp/443 v4) was to be reached" in printed
    assert "the live connection administration -> treasury (tcp/443 v4) was harmed" in printed
