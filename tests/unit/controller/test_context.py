"""The daemon's settings as the controller has them."""

from ecluse.controller.context import Options


def test_no_level_cuts_the_look_ups_of_the_daemon_and_of_the_dns_proxy():
    assert Options("0", daemon_uid=5).uids == (5,)
    assert Options("0", daemon_uid=5, dns_uid=989).uids == (5, 989)
