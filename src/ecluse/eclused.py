"""The process `eclused`: loads the daemon quickly, and runs it."""

import gc
import os
import sys
from importlib import import_module

from ecluse.extensions import EXTENSIONS
from ecluse.output import open_standard_files


def main() -> int:
    """Run the daemon in the foreground, or an extension's process (`dns-gate`); return its code."""
    open_standard_files()
    for extension in EXTENSIONS:
        # Another process, with none of the daemon in it.
        if extension.verb and sys.argv[1:2] == [extension.verb]:
            return int(import_module(extension.process).main(sys.argv[2:]))
    # aiohttp makes a context for TLS clients when it is imported, with every certificate authority
    # of the machine in it (40 ms, 2 MiB). Nothing here speaks TLS, so it gets an empty file.
    os.environ["SSL_CERT_FILE"] = os.devnull
    # structlog loads rich, where it is installed, to colour tracebacks: 3 MiB and 50 modules.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: not to be found
    # The collector would walk the modules again and again while they load; the daemon turns it on
    # once it is armed.
    gc.disable()
    from ecluse import daemon  # noqa: PLC0415 - after what stands above

    return daemon.main()


if __name__ == "__main__":
    sys.exit(main())
