"""What is typed on the inside's DNS servers is a command that they have."""

from ecluse.dns_cache_advice import INSECURE, flush


def test_each_kind_of_server_has_a_command_that_forgets_a_domain_and_all_below():
    text = flush("operator.example")
    assert "unbound-control flush_zone operator.example" in text
    assert "rndc flushtree operator.example" in text


def test_each_kind_of_server_has_a_command_that_takes_a_name_without_proof():
    assert "unbound-control insecure_add" in INSECURE
    assert "rndc nta" in INSECURE
