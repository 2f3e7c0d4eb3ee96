"""Programs of this checkout run as another user of the machine: one way for every test.

The checkout and its virtual environment may lie where only root can read (a home of mode 0700:
/root, and Debian's default for every home). So the other user keeps one right, CAP_DAC_READ_SEARCH
(capabilities(7)): to read any file and pass any directory. It gives no write access: a socket that
the user may not use stays shut to it.
"""

from collections.abc import Sequence


def other_user(
    uid: int, groups: Sequence[int] = (), more_capabilities: str = ""
) -> tuple[str, ...]:
    """Give the words that run a command as `uid`, to stand before it.

    groups: all of its groups, the first its own; none: a group of the number `uid`.
    more_capabilities: as setpriv(1) writes them, "+net_admin".
    """
    own, *_ = mine = [*groups] or [uid]
    capabilities = ",".join(filter(None, ("-all", "+dac_read_search", more_capabilities)))
    return (
        *(
            "setpriv",
            "--reuid",
            str(uid),
            "--regid",
            str(own),
            "--groups",
            ",".join(map(str, mine)),
        ),
        *(
            "--inh-caps",
            capabilities,
            "--ambient-caps",
            capabilities,
            "--bounding-set",
            capabilities,
        ),
    )
