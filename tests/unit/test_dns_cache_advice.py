"""What to type on the DNS servers of the inside: for each of the three that hospitals run."""

from ecluse.dns_cache_advice import INSECURE, flush


def test_each_server_is_told_which_domain_to_drop():
    text = flush("operator.example")
    assert text.count("operator.example") == 2
    for command in ("unbound-control flush_zone", "rndc flushtree", "Clear-DnsServerCache"):
        assert command in text


def test_a_name_without_proof_is_a_command_for_each_server_that_validates():
    assert "unbound-control insecure_add NAME" in INSECURE
    assert "rndc nta -lifetime 1w NAME" in INSECURE
