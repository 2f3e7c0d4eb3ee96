"""In-memory ports, honest like the real ones: for unit tests, and for looking at pages without a kernel."""

from ecluse.fakes.firewall import FakeFirewall
from ecluse.fakes.ports import (
    FakeAudit,
    FakeClock,
    FakeConntrack,
    FakeExits,
    FakeLinks,
    FakePolicySource,
    FakeResolver,
    FakeState,
    Feed,
)

__all__ = [
    "FakeAudit",
    "FakeClock",
    "FakeConntrack",
    "FakeExits",
    "FakeFirewall",
    "FakeLinks",
    "FakePolicySource",
    "FakeResolver",
    "FakeState",
    "Feed",
]
