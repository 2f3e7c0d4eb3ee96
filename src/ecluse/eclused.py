"""The process `eclused`: loads the daemon in the quickest way, and runs it."""

import gc
import os
import sys


def main() -> int:
    """Run the daemon in the foreground; give its exit code (see `daemon.main`)."""
    # aiohttp makes a context for TLS clients when it is imported, with every certificate authority of the machine in
    # it (40 ms, 2 MiB). Nothing here speaks TLS: it shall find none.
    os.environ["SSL_CERT_FILE"] = os.devnull
    # Through what is loaded to stay the collector would go again and again; the daemon lets it begin once it is armed.
    gc.disable()
    from ecluse import daemon  # noqa: PLC0415 - after the two lines above

    return daemon.main()


if __name__ == "__main__":
    sys.exit(main())
