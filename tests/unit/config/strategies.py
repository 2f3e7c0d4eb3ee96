"""Written networks, right and damaged, for property tests."""

from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from ecluse.config.messages import InvalidValueError

ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda a: a.exploded),
    st.ip_addresses(v=4).map(lambda a: f"::{a}"),
    st.ip_addresses(v=4).map(lambda a: f"2001:db8::{a}"),
    st.sampled_from(
        [
            "0.0.0.0",
            "127.0.0.1",
            "::",
            "::1",
            "::ffff:203.0.113.9",
            "ff02::1",
            "255.255.255.255",
            "2001:DB8::1",
            "any",
            "a.example",
        ]
    ),
)


PREFIXES = st.builds(
    lambda address, length: str(
        ip_network(f"{address}/{min(length, ip_address(address).max_prefixlen)}", strict=False)
    ),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str),
    st.integers(0, 128),
)


LENGTHS = st.sampled_from(
    [
        "",
        "/",
        "/0",
        "/8",
        "/032",
        "/32",
        "/33",
        "/64",
        "/128",
        "/129",
        "/255.255.255.0",
        "/ 8",
        "/٣",
        ":443",
        "%lo",
        "//1",
    ]
)


DAMAGED = st.builds(
    lambda text, at, cut, insert: (
        text[: at % (len(text) + 1)] + insert + text[at % (len(text) + 1) + cut :]
    ),
    st.builds(str.__add__, ADDRESSES, LENGTHS) | PREFIXES,
    st.integers(0, 50),
    st.integers(0, 2),
    st.sampled_from(
        ["", ":", "::", ".", "0", "9", "a", "g", "/", "-", "*", "%", "\0", "\udc80", "٣", " "]
    ),
)


WRITTEN = PREFIXES | DAMAGED | st.text(max_size=12)


def outcome(read, *arguments, **named):
    try:
        return read(*arguments, **named)
    except InvalidValueError as error:
        return error.wrong, error.expected
