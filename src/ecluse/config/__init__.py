"""The site's files -> policy.

Settings of the daemon are in `ecluse.config.settings`, which this package does not import.
"""

from ecluse.config.load import (
    ConfigDirectory,
    ParsedConfig,
    load_policy,
    read_directory,
    warnings_of,
)

__all__ = ["ConfigDirectory", "ParsedConfig", "load_policy", "read_directory", "warnings_of"]
