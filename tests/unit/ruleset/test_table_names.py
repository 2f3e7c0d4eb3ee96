"""Names in our table: none collide, and each tells what it is."""

from ecluse.ruleset import table_names as t


def test_a_slot_is_read_back_from_every_name_of_it():
    names = (t.inside_set(12), t.gate_chain(12, "care"), t.level_chain(12, "cut", "care"))
    assert [t.slot_of(name) for name in names] == [12, 12, 12]
    assert [t.slot_of(n) for n in ("svc_k1", "forward", "k_x", "kx_y", "dns_all_4")] == [None] * 5


def test_a_service_is_read_back_from_its_counter():
    assert t.counter_name("lab-results") == "svc_lab_results"
    assert t.service_of("svc_lab_results") == "lab-results"


def test_gates_are_switched_and_chains_of_levels_are_not():
    assert t.is_gate_chain(t.gate_chain(3, "care"))
    assert not t.is_gate_chain(t.level_chain(3, "cut", "care"))
    assert all(t.is_switched(name) for name in ("forward", "raw", "dns", t.gate_chain(1, "x")))
    assert not any(t.is_switched(name) for name in (t.level_chain(1, "cut", "x"), "k1_refuse"))


def test_the_sets_of_the_dns_proxy_are_known_by_name_and_belong_to_no_slot():
    for name in (t.learned_set("4"), t.learned_set("6", "lab-results")):
        assert t.is_learned_set(name)
        assert t.slot_of(name) is None
    assert not t.is_learned_set(t.rate_set("4"))
    assert t.learned_set("4", "all") != t.learned_set("4")
