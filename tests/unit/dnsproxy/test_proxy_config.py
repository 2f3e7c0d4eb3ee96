"""What the DNS proxy answers at which level, and how its configuration is written."""

import json
from dataclasses import replace

from ecluse.dnsproxy.proxy_config import NamePolicy, ProxyConfig, proxy_config_of
from ecluse.policy import DnsMode, Traffic
from ecluse.state.codec import canonical, read_json
from tests.golden.cases import HERE, compiled
from tests.unit.dnsproxy.messages import (
    POLICY,
    ZONES,
    at,
)


def test_a_level_answers_what_it_keeps_and_open_is_ready_for_a_cut():
    assert set(at("cut").wildcards) == set(at("open").wildcards) == {"operator.example"}
    assert set(at("reduced").wildcards) == {"operator.example", "console.example"}
    assert not at("isolate").wildcards
    assert not at("isolate").names
    # A zone of its own level counts by it: the console is care's alone.
    assert set(at("cut", care="reduced").wildcards) == {"operator.example", "console.example"}
    assert set(at("cut", guest_wifi="reduced").wildcards) == {"operator.example"}
    assert proxy_config_of(compiled(HERE / "01-one-address")[0], {}) is None


def test_everything_is_passed_on_only_while_every_zone_is_open_and_the_site_says_always():
    always = replace(
        POLICY, site=replace(POLICY.site, dns=replace(POLICY.site.dns, mode=DnsMode.ALWAYS))
    )
    assert proxy_config_of(always, dict.fromkeys(ZONES, "open")).everything
    assert not proxy_config_of(always, dict.fromkeys(ZONES, "open") | {"care": "cut"}).everything
    assert not at("open").everything


def test_orders_are_read_back_as_they_were_written():
    config = at("cut")
    assert read_json(ProxyConfig, canonical(config)) == config


def test_orders_from_before_ports_were_told_are_read():
    """An upgrade finds the last orders of the version before it, and a name that they know is
    answered.
    """
    told = json.loads(canonical(at("cut")))
    for answers in (*told["names"].values(), *told["wildcards"].values()):
        del answers["traffic"]
    config = read_json(ProxyConfig, json.dumps(told).encode())
    assert config.wildcards["operator.example"].services == ("secure-mail",)
    assert not config.wildcards["operator.example"].keeps(6, 443)


def test_a_name_below_a_wildcard_is_answered_for_both():
    own = replace(
        POLICY.services[1],
        criticality=POLICY.services[0].criticality,
        destinations=(
            replace(
                POLICY.services[1].destinations[0], hosts=("mx.operator.example",), wildcards=()
            ),
        ),
    )
    config = proxy_config_of(
        replace(POLICY, services=(POLICY.services[0], own)), dict.fromkeys(ZONES, "cut")
    )
    assert set(config.policy_for("mx.operator.example").services) == {"secure-mail", "console"}
    assert config.policy_for("x.mx.operator.example").services == ("secure-mail",)


def test_answers_are_joined_without_doubles():
    config = at("reduced")
    assert config.wildcards["operator.example"] == NamePolicy(
        ("secure-mail",), ("MX",), traffic=(Traffic(6, 443, 443), Traffic(17, 500, 510))
    )
