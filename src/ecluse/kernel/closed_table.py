"""Builds the smallest table that shuts the gate; it stands while the real one is put back.

One transaction of some twenty messages, without a look at what there is: it is in the kernel before
libnftables has asked its first question. Packets from inside to inside pass, and those between the
gateway and the inside; the rest is dropped in silence.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from ecluse.kernel import nf_tables_numbers as nf
from ecluse.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Request,
    attribute,
    text_attribute,
)
from ecluse.kernel.nft_messages import (
    TABLE,
    chain_attributes,
    expression,
    inet_request,
    nested,
    number_attribute,
    rule_attributes,
    verdict,
)
from ecluse.ruleset.switch import PRIORITY_NUMBER
from ecluse.ruleset.table_names import GUARD

LOCAL_IN, FORWARD, LOCAL_OUT, POST_ROUTING = (
    nf.HOOKS.index(hook) for hook in ("input", "forward", "output", "postrouting")
)


@lru_cache(maxsize=4)
def closed_table_requests(inside: tuple[str, ...]) -> list[Request]:
    """Give the transaction's messages.

    inside: interfaces of the zones, as site.yaml names them (`care0`, `vlan1*`).

    The kernel refuses it with EEXIST where any table of ours stands: then somebody was quicker, and
    nothing is to be done.
    """
    table = text_attribute(nf.NFTA_TABLE_NAME, TABLE) + number_attribute(nf.NFTA_TABLE_FLAGS, 0)
    accept = verdict(nf.NF_ACCEPT)
    here = ("lo", *inside)
    return [
        inet_request(nf.NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, table),
        _chain(GUARD),
        *_rules(GUARD, nf.NFT_META_OIFNAME, inside, accept),
        _chain("forward", FORWARD),
        *_rules("forward", nf.NFT_META_IIFNAME, inside, verdict(nf.NFT_JUMP, GUARD)),
        _chain("input", LOCAL_IN),
        *_rules("input", nf.NFT_META_IIFNAME, here, accept),
        _chain("output", LOCAL_OUT),
        *_rules("output", nf.NFT_META_OIFNAME, here, accept),
        _chain("postrouting", POST_ROUTING),
        _rule("postrouting", [*_is_forwarded(), accept]),
        *_rules("postrouting", nf.NFT_META_OIFNAME, here, accept),
    ]


def _chain(name: str, hook: int | None = None) -> Request:
    """Make a chain; one with a hook drops every packet that no rule of it accepts."""
    body = chain_attributes(name)
    if hook is not None:
        body += nested(
            nf.NFTA_CHAIN_HOOK,
            number_attribute(nf.NFTA_HOOK_HOOKNUM, hook),
            number_attribute(nf.NFTA_HOOK_PRIORITY, PRIORITY_NUMBER),
        )
        body += number_attribute(nf.NFTA_CHAIN_POLICY, nf.NF_DROP)
        body += text_attribute(nf.NFTA_CHAIN_TYPE, "filter")
    return inet_request(nf.NFT_MSG_NEWCHAIN, NLM_F_CREATE, body)


def _rules(chain: str, key: int, names: Iterable[str], statement: bytes) -> Iterator[Request]:
    """Make one rule for each interface. key: NFT_META_IIFNAME or NFT_META_OIFNAME."""
    for name in names:
        yield _rule(chain, [*_interface_is(key, name), statement])


def _rule(chain: str, expressions: Iterable[bytes]) -> Request:
    body = rule_attributes(chain) + nested(nf.NFTA_RULE_EXPRESSIONS, *expressions)
    return inet_request(nf.NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body)


def _interface_is(key: int, pattern: str) -> list[bytes]:
    """Match an interface by its whole name, or by its beginning where a `*` ends the pattern.

    nft makes the same bytes of it.
    """
    stem = pattern.encode()
    value = stem[:-1] if stem.endswith(b"*") else stem.ljust(nf.IFNAMSIZ, b"\0")
    if not value:  # `*` alone: every interface
        return []
    return [_load(key), _compare(nf.NFT_CMP_EQ, value)]


def _is_forwarded() -> list[bytes]:
    """Match packets that came by a link.

    At the last hook nothing else tells them from the gateway's own.
    """
    return [_load(nf.NFT_META_IIF), _compare(nf.NFT_CMP_NEQ, bytes(4))]


def _load(key: int) -> bytes:
    return expression(
        "meta",
        number_attribute(nf.NFTA_META_DREG, nf.NFT_REG_1),
        number_attribute(nf.NFTA_META_KEY, key),
    )


def _compare(operator: int, value: bytes) -> bytes:
    return expression(
        "cmp",
        number_attribute(nf.NFTA_CMP_SREG, nf.NFT_REG_1),
        number_attribute(nf.NFTA_CMP_OP, operator),
        nested(nf.NFTA_CMP_DATA, attribute(nf.NFTA_DATA_VALUE, value)),
    )
