"""The process that acts inside a namespace.

Takes JSON lines on standard input, answers on standard output.

`{"id": 1, "do": "ping", "with": {...}}` gives `{"id": 1, "result": ...}` or `{"id": 1, "failed":
"why"}`. Each order runs on a thread of its own. End of input ends it: it never outlives
its parent.
"""

import json
import os
import sys
import threading

from tests.lab.inside.capture import Capture
from tests.lab.inside.probes import Probes, fault
from tests.lab.inside.servers import Server
from tests.lab.inside.streams import Streams

_OUT = threading.Lock()


def _say(**message: object) -> None:
    line = json.dumps(message) + "\n"
    with _OUT:
        sys.stdout.write(line)
        sys.stdout.flush()


def orders(interface: str) -> dict:
    """Name what can be ordered: of the witness of an interface, or of a host."""
    if interface:
        capture = Capture(interface)
        return {"flows": capture.flows, "drops": capture.drops, "clear": capture.clear}
    probes, streams, server = Probes(), Streams(), Server()
    return {
        "ping": probes.ping,
        "open": probes.open,
        "talk": probes.talk,
        "close": probes.close,
        "icmp": probes.icmp,
        "raw": probes.raw,
        "http": probes.http,
        "resolve": probes.resolve,
        "question": probes.question,
        "crowd": probes.crowd,
        "ask_often": probes.ask_often,
        "resolve_and_connect": probes.resolve_and_connect,
        "beacon": probes.beacon,
        "beacon_tally": probes.beacon_tally,
        "stream": streams.start,
        "stream_report": streams.report,
        "stream_stop": streams.stop,
        "listen": server.listen,
        "dns": server.dns,
        "asked": server.asked,
        "served": server.served,
        "rig_drops": server.rig_drops,
    }


def main() -> None:
    known = orders(sys.argv[1] if len(sys.argv) > 1 else "")
    _say(id=0, result="ready")

    def obey(order: dict) -> None:
        try:
            result = known[order["do"]](**order["with"])
        except Exception as error:
            _say(id=order["id"], failed=f"{order['do']}: {type(error).__name__}: {fault(error)}")
        else:
            _say(id=order["id"], result=result)

    for line in sys.stdin:
        threading.Thread(target=obey, args=(json.loads(line),), daemon=True).start()
    os._exit(0)  # threads may sit in a system call; nothing of theirs is worth waiting for


if __name__ == "__main__":
    main()
