"""The registry of extensions: capabilities beside the core, which the core never imports.

Here are names and module paths only. A module is imported when the live policy uses its extension,
and not before: a site that does not use one loads nothing of it. docs/extensions.md says how to add
one.
"""

from __future__ import annotations

from collections import namedtuple
from importlib import import_module

TYPE_CHECKING = False  # typing and dataclasses are slow to import, and the command line reads this
if TYPE_CHECKING:
    from types import ModuleType

    from ecluse.policy import Policy

_Fields = namedtuple(  # noqa: PYI024 - see above
    "_Fields",
    "name used daemon lint status metrics status_text verbs process verb config_file",
    defaults=("", "", "", "", "", "", "", ""),
)


class Extension(_Fields):
    """An extension. A path is empty where it has no such module.

    name: as users know it. used: `module:function` of the core: whether a policy uses it.
    daemon: module with `make_part(environment)`, see `extension.ExtensionPart`.
    lint: module with `find_warnings(policy, document)`, for `ecluse check` and the daemon.
    status: its field of `Status`, None where it is not used.
    metrics: module with `metrics(state)`: Prometheus families of that field's value.
    status_text: module with `show(screen, state, count_of)`: that value, by `ecluse status`.
    verbs: module with `VERBS`, and `GROUPS` for verbs of two words (`cli.verbs`).
    process, verb: module with `main(argv)`: a process of its own, run by `eclused VERB`.
    config_file: in the run directory, how the daemon configures that process; empty when not used.
    """

    __slots__ = ()

    def is_used(self, policy: Policy) -> bool:
        """Say whether a policy uses it."""
        module, _, function = self.used.partition(":")
        return bool(getattr(import_module(module), function)(policy))

    def load(self) -> ModuleType:
        """Import the module of its part of the daemon."""
        return import_module(self.daemon)


EXTENSIONS: tuple[Extension, ...] = (
    Extension(
        name="dns_gate",
        used="ecluse.ruleset.dns_redirect:is_on",
        daemon="ecluse.dnsproxy.daemon_part",
        lint="ecluse.dnsproxy.lint",
        status="dns",
        metrics="ecluse.dnsproxy.metrics",
        status_text="ecluse.dnsproxy.status_text",
        process="ecluse.dnsproxy.process",
        verb="dns-gate",
        config_file="dns-orders.json",
    ),
)
