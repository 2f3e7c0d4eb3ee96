"""The public suffix list: domains below which anybody may register names.

`public_suffixes.txt` is a copy and says its date; `make public-suffixes` renews it from Debian's
package `publicsuffix`. The rules: https://github.com/publicsuffix/list/wiki/Format.
"""

from functools import cached_property
from pathlib import Path

from ecluse.config.messages import InvalidValueError

LIST = Path(__file__).parent / "public_suffixes.txt"


class PublicSuffixes:
    """The list; it is read for the first wildcard (20 ms, 1.4 MiB) and freed with this object."""

    @cached_property
    def _lines(self) -> list[str]:
        return LIST.read_text(encoding="ascii").split("\n")

    @cached_property
    def date(self) -> str:
        """Return the day of the list."""
        return next(
            line.removeprefix("# of: ") for line in self._lines if line.startswith("# of: ")
        )

    @cached_property
    def _rules(self) -> frozenset[str]:
        return frozenset(line for line in self._lines if line and line[0] != "#")

    @cached_property
    def _above(self) -> dict[str, str]:
        """Return every domain that has public suffixes below it, and one of these."""
        found: dict[str, str] = {}
        for rule in sorted(self._rules, reverse=True):
            name = rule.removeprefix("!").removeprefix("*.")
            domain = name if rule.startswith("*.") else name.partition(".")[2]
            while domain and not rule.startswith("!"):
                found[domain] = f"a.{name}" if rule.startswith("*.") else name
                domain = domain.partition(".")[2]
        return found

    def is_one(self, domain: str) -> bool:
        """Say whether anybody may register names right below a domain."""
        if f"!{domain}" in self._rules:
            return False
        return domain in self._rules or f"*.{domain.partition('.')[2]}" in self._rules

    def check(self, domain: str) -> None:
        """Check that a wildcard over a domain (lower case, A-labels) covers one owner's names.

        Raises:
            InvalidValueError: anybody may register a name below the domain.
        """
        own = f'"partner.{domain}", or "*.partner.{domain}"'
        if self.is_one(domain):
            wrong = f"anybody can register a name below '{domain}', and '*.{domain}' keeps them all"
            raise InvalidValueError(
                f"{wrong} (public suffix list of {self.date})",
                f"the partner's own host, such as {own}",
            )
        below = self._above.get(domain)
        if below is not None:
            wrong = f"'*.{domain}' keeps names below '{below}' too, where anybody can register one"
            expected = "the partner's own hosts, or wildcards over domains of its own"
            raise InvalidValueError(f"{wrong} (public suffix list of {self.date})", expected)
