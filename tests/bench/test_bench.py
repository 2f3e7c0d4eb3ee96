"""The benchmark's own measuring.

It sees a leak when nothing is cut, and a loss when the allowlist is wrong.
"""

import os
import re
import signal
import time

import pytest

from tests.bench import __main__ as bench
from tests.bench import (
    figures,
    lanes,
    raw,
    rows_dns,
    rows_flow,
    rows_forward,
    rows_packets,
    rows_switch,
    site,
)
from tests.bench.gate import Gate, Run, measure_cut
from tests.lab import places

pytestmark = pytest.mark.kernel


@pytest.fixture
def gate():
    with Gate() as built:
        yield built


def test_the_leak_detector_sees_a_leak_when_the_table_is_absent(gate: Gate):
    gate.start_daemon(site.allowlist(site.addresses(10)))
    knocking = gate.sender(
        rows_flow.mixed(gate, site.CUT_OFF, rows_flow.FLOWS, 30_000), rows_flow.RATE
    )
    knocking.say("go")
    answered = gate.level("cut").ended
    time.sleep(0.05)
    assert rows_flow.leaked_after(gate, answered) == 0
    gate.daemon.kill9()  # or it would put the table back
    gate.hospital.nft("delete table inet ecluse")
    answered = time.time_ns()
    time.sleep(0.1)
    assert rows_flow.leaked_after(gate, answered) > rows_flow.RATE // 20
    knocking.ask("stop")


def test_every_kind_of_flow_is_seen_outside(gate: Gate):
    frames = rows_flow.mixed(gate, site.CUT_OFF, rows_flow.FLOWS, 30_000)
    knocking = gate.sender(frames, rows_flow.RATE)
    gate.witness.take()
    knocking.ask(f"once {len(frames)}")
    time.sleep(0.1)
    wanted = {site.CUT_OFF.v4, site.CUT_OFF.v6}
    flows = {
        key: len(times)
        for key, times in gate.witness.take().items()
        if raw.destination(key) in wanted
    }
    assert {(key[0], key[1]) for key in flows} == {
        (4, 6),
        (4, 17),
        (4, 1),
        (6, 6),
        (6, 17),
        (6, 58),
    }
    assert sum(flows.values()) == len(frames)


def test_the_loss_counter_sees_a_loss_when_the_allowlist_is_wrong(gate: Gate):
    wrong = site.allowlist(site.addresses(10))
    del wrong["10-kept.yaml"]
    gate.start_daemon(wrong)
    kept = gate.sender(rows_flow.mixed(gate, site.KEPT, 60, 31_000), 6_000)
    gate.level("cut")
    gate.witness.take()
    kept.ask("once 600")
    time.sleep(0.1)
    seen = raw.by_destination(gate.witness.take())
    assert not {site.KEPT.v4, site.KEPT.v6} & set(seen)
    assert rows_flow.refused_of_kept(gate) == 600


def test_both_locks_lose_and_leak_nothing_while_devices_and_names_change():
    section = figures.Section("both locks", "")
    rows_flow.leak(section, 5, both=True)
    rows_flow.loss(section, 10, 2, both=True)
    assert [figure.met for figure in section.figures] == [True] * 3, section
    kept = re.search(r"0 packets dropped, ([\d,]+) let out", section.remarks[-1])
    assert kept, section.remarks
    assert int(kept[1].replace(",", "")) > 100, "they passed the second lock"


def test_the_loss_counter_sees_what_the_second_lock_drops(gate: Gate):
    gate.start_daemon(site.allowlist(site.addresses(10)), site=site.with_both_locks())
    kept = gate.sender(rows_flow.mixed(gate, site.KEPT, 60, 31_000), 6_000)
    gate.level("cut")
    gate.wait_for_second_lock()
    gate.daemon.kill9()  # or it would put the lock back

    def seen() -> int:
        gate.witness.take()
        kept.ask("once 600")
        time.sleep(0.1)
        found = raw.by_destination(gate.witness.take())
        return found[site.KEPT.v4] + found[site.KEPT.v6]

    assert seen() == 600
    gate.hospital.nft("insert rule netdev ecluse_exit on.wan0 drop")
    assert seen() == 0


def test_a_cut_that_cuts_nothing_is_seen_to_go_on(gate: Gate):
    def nothing(_gate: Gate) -> Run:
        now = time.time_ns()
        return Run(now, now)

    cutting = measure_cut(gate, nothing)
    assert cutting.to_last is None
    assert cutting.leaked > 50


def test_a_cut_is_seen_to_end_the_stream(gate: Gate):
    gate.start_daemon(site.allowlist(site.addresses(10)))
    cutting = measure_cut(gate, lambda g: g.level("cut"))
    assert cutting.leaked == 0
    assert 0 <= cutting.to_last <= cutting.to_answer


def ask_in_vain(asked: rows_dns.Asked, times: int) -> None:
    """Have the crowd ask, in portions that a queue holds."""
    for _ in range(times // 100):
        asked.crowd.ask("once 100")
        time.sleep(0.05)


def test_every_question_of_the_crowd_is_accounted_for_and_none_leaves(gate: Gate):
    with rows_dns.Asked(gate, 500) as asked:
        ask_in_vain(asked, 500)
        answered = asked.ask(0.5)
        assert asked.left() == rows_dns.Outside(names=0, beside=0)
        became = asked.counters()
    assert sum(became.values()) == 500
    assert became[rows_dns.REFUSED] > 400
    assert [lost for _, lost in answered.values()] == [0, 0]


def test_names_that_leave_are_counted_when_the_dns_gate_is_broken(gate: Gate):
    with rows_dns.Asked(gate, 500) as asked:
        # An engine that passes on what no list names, past the forwarder.
        (asked.dns.rundir / "servers.conf").write_text(f"server={places.DNS_SERVER.v4}\n")
        os.kill(asked.dns.engine, signal.SIGHUP)
        time.sleep(0.5)
        ask_in_vain(asked, 100)
        left = asked.left()
    assert left.names > 90
    assert left.beside >= left.names


def test_kept_names_that_are_not_answered_are_counted(gate: Gate):
    with rows_dns.Asked(gate, 500) as asked:
        os.kill(asked.dns.engine, signal.SIGSTOP)
        answered = asked.ask(0.5)
    assert {kind: (max(took), lost) for kind, (took, lost) in answered.items()} == dict.fromkeys(
        rows_dns.ASKED, (1000.0, 1)
    )


def test_figures_say_what_was_not_reached():
    section = figures.Section("Title", "How.")
    section.below("what", "who", "ms", (6.0, 4.0, 5.0), 5, size=10)
    section.add("other", "peer", "ms", (), note="missing")
    text = figures.table(section.figures)
    assert "| what | who | 10 | 5 ms | 4 | 6 |  | 3 | < 5 ms | **no** |" in text
    assert "| other | peer |  | missing |" in text


def test_the_data_file_holds_every_row_and_the_report_begins_with_ten_of_them(tmp_path):
    cut = figures.Section("Time to cut", "How.")
    cut.below("last packet outside", "Écluse, API call", "ms", (1.0, 2.0, 3.0), 5, size=1_000)
    cut.add("last packet outside", "slow peer", "ms", (9.0,), size=1_000)
    cut.add("last packet outside", "best peer, by far", "ms", (4.0,), size=1_000)
    cut.add("last packet outside", "absent peer", "ms", (), size=1_000, note="not tried")
    figures.write(tmp_path, [cut], {"nftables": "1"}, "bench")
    written = figures.read_data(tmp_path / figures.DATA)
    assert written == list(figures.rows([cut]))
    assert [row.note for row in written] == ["", "", "", "not tried"]
    text = (tmp_path / figures.REPORT).read_text(encoding="utf-8")
    assert "| 2 ms | 4 ms (best peer, by far) | < 5 ms | yes | 1 |" in text
    assert text.count("not measured in this run") == len(figures.HEADLINES) - 1 == 9
    assert "Rows 1 to 4." in text


def test_the_chain_that_accepts_all_loads_and_accepts(gate: Gate):
    gate.hospital.nft(rows_forward.ACCEPT_ALL)
    gate.witness.take()
    gate.stream.ask("once 50")
    time.sleep(0.1)
    assert raw.by_destination(gate.witness.take())[site.CUT_OFF.v4] == 50


def test_a_peer_that_is_missing_is_named_and_one_that_is_too_slow_is_not():
    section = figures.Section("Title", "How.")
    section.add("what", "peer", "", (), note="missing: no such program")
    section.add("what", "slow", "", (), note="not tried: takes minutes")
    section.add("what", "ours", "", (1.0,))
    assert figures.absent([section]) == ["Title: peer: missing: no such program"]


def test_lanes_let_through_what_is_kept_and_see_what_is_not(gate: Gate):
    gate.start_daemon(site.allowlist(site.addresses(10)))
    gate.level("cut")
    lane = lanes.Lanes(gate, 500)
    slices = {kind: lane.cost(kind) for kind in lanes.KINDS}
    lane.close()
    assert {kind for kind, one in slices.items() if one.refused} == {lanes.OTHER4, lanes.OTHER6}
    assert all(one.passed or one.refused for one in slices.values())
    assert all(one.nanoseconds > 0 for one in slices.values())


def test_the_row_of_processor_time_measures_each_state_beside_none():
    section = figures.Section("Title", "How.")
    state = rows_packets.State("Écluse, cut, second lock", 10, "cut", more={"second_lock": "cut"})
    rows_packets.packets(section, [state], 1, 200, (lanes.KEPT4, lanes.NEW4))
    assert [f.who for f in section.figures if f.unit] == 2 * ["table absent", state.who]
    assert all(f.values and f.median > 0 for f in section.figures)


@pytest.mark.parametrize("says_refused", [True, False])
def test_a_slice_that_went_the_other_way_is_no_figure(gate: Gate, says_refused: bool):
    if says_refused:
        gate.hospital.nft(lanes.TRACKED)
    else:
        gate.hospital.nft(
            "table inet bench { chain f { type filter hook forward priority 0; policy drop; }; }"
        )
    lane = lanes.Lanes(gate, 200, [lanes.KEPT4])
    with pytest.raises(RuntimeError, match=r"kept IPv4: \d+% arrived"):
        lanes.in_turns({"one": lane}, (lanes.KEPT4,), 1, lambda _name, _kind: says_refused)
    lane.close()


def test_every_state_of_the_row_differs_and_says_what_it_refuses():
    states = rows_packets.every_state((10, 1_000), 1_000)
    assert len(set(states)) == len(states) == 6
    refused = {one.who: [kind for kind in lanes.KINDS if one.refuses(kind)] for one in states}
    assert refused["Écluse, open"] == []
    assert refused["Écluse, cut, second lock"] == [lanes.OTHER4, lanes.OTHER6]
    isolated = states[-1]
    assert refused[isolated.who] == [lanes.OTHER4, lanes.OTHER6]
    assert (isolated.refuses(lanes.KEPT4), isolated.refuses(lanes.INSIDE4)) == (None, False)


def test_gateways_are_cut_in_turns_with_a_lock_and_without():
    section = figures.Section("Title", "How.")
    rows_switch.second_lock(section, 10, 1, ["isolate"])
    assert len(section.figures) == 3 + 6
    assert all(len(f.values) == 1 and f.median > 0 for f in section.figures)


def test_zones_are_switched_and_passed():
    assert [len(site.zones(n)["zones"]) for n in rows_switch.ZONES] == list(rows_switch.ZONES)
    section = figures.Section("Title", "How.")
    rows_switch.zones(section, 10, 1, (1, 200), (1, 20), (lanes.KEPT4,))
    switches = [f for f in section.figures if f.what == "answer"]
    assert [f.who for f in switches] == ["1 zone", "20 zones"]
    assert all(f.values and f.median > 0 for f in section.figures)


def test_no_row_begins_after_the_limit_and_the_run_has_failed(tmp_path, monkeypatch):
    began: list[str] = []

    def slow(_wish) -> list[figures.Section]:
        began.append("slow")
        time.sleep(0.02)
        return [figures.Section("Slow", "How.")]

    rows = {"slow": slow, "late": lambda _wish: began.append("late")}
    monkeypatch.setattr(bench, "ROWS", rows)
    monkeypatch.setattr(bench.contenders, "install", dict)
    monkeypatch.setattr(bench.figures, "draw_pictures", lambda *_: [])
    argv = ["bench", "--rows", "slow,late", "--out", str(tmp_path), "--limit", "0.0001"]
    monkeypatch.setattr("sys.argv", argv)
    assert bench.main() == 1
    assert began == ["slow"]
    report = (tmp_path / figures.REPORT).read_text(encoding="utf-8")
    assert "Row late" in report
    assert "were over" in report
    assert "The run took 0 minutes." in report


def test_the_long_night_is_no_row_of_the_whole_run():
    assert set(bench.ROWS) - set(bench.DEFAULT) == {"soak"}
