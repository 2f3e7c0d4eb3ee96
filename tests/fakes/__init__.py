"""In-memory ports, honest like the real ones: for unit tests, and for looking at pages without a
kernel.
"""

from tests.fakes.firewall import FakeFirewall
from tests.fakes.ports import (
    FakeAudit,
    FakeBypassScan,
    FakeClock,
    FakeConntrack,
    FakeDnsExtension,
    FakeDnsGate,
    FakeExitTable,
    FakeLinks,
    FakePolicySource,
    FakeResolver,
    FakeState,
    Feed,
)

__all__ = [
    "FakeAudit",
    "FakeBypassScan",
    "FakeClock",
    "FakeConntrack",
    "FakeDnsExtension",
    "FakeDnsGate",
    "FakeExitTable",
    "FakeFirewall",
    "FakeLinks",
    "FakePolicySource",
    "FakeResolver",
    "FakeState",
    "Feed",
]
