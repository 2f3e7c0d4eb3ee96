"""Leaves out of a case that goes wrong whatever it can go wrong without."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.kernel.simulator_play import Play, Spoil
from tests.kernel.simulator_rig import Rig
from tests.kernel.simulator_world import Case, Nat


def smaller(case: Case) -> Iterator[Case]:
    """Give the cases that lack one thing, the largest things first."""
    half = len(case.probes) // 2
    if half > 1:
        yield replace(case, probes=case.probes[:half])
        yield replace(case, probes=case.probes[half:])
    for n in range(len(case.probes)):
        yield replace(case, probes=case.probes[:n] + case.probes[n + 1 :])
    services = case.policy.services
    for n in range(len(services)):
        yield _with_services(case, (*services[:n], *services[n + 1 :]))
    if case.nat != Nat():
        yield replace(case, nat=Nat())
    for n, service in enumerate(services):
        some = service.destinations
        for m in range(len(some) if len(some) > 1 else 0):
            fewer = replace(service, destinations=(*some[:m], *some[m + 1 :]))
            yield _with_services(case, (*services[:n], fewer, *services[n + 1 :]))


def _with_services(case: Case, services: tuple) -> Case:
    return replace(case, policy=replace(case.policy, services=services))


def smallest(case: Case, goes_wrong: Callable[[Case], bool]) -> Case:
    """Leave out what a case can go wrong without; quicker here than hypothesis's own way, which
    knows less of it.
    """
    while found := next((one for one in smaller(case) if goes_wrong(one)), None):
        case = found
    return case


def wrong_of(rig: Rig, case: Case, spoil: Spoil | None = None) -> str:
    """Play a case; give every packet that is judged differently, empty when there is none."""
    try:
        Play(rig, case, Counter(), spoil).run()
    except AssertionError as error:
        return str(error)
    return ""
