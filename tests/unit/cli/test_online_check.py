"""`ecluse check --online` without a network: what there is to ask, and whom; with packets in
tests/system/test_names.py.
"""

import asyncio
import json
import threading

import pytest

from ecluse.cli import main, online_check
from tests.unit.config.conftest import Files
from tests.unit.resolve.server import Server

RESOLVERS = "resolvers: [192.0.2.53]"


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture
def check(capsys, files, monkeypatch):
    monkeypatch.setattr(online_check, "_PAUSE", 0.01)

    def run(*words):
        code = main.main(["check", "--online", str(files.path), *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def server(monkeypatch):
    """A name server on a thread of its own, since the command has an event loop of its own."""
    made, ready, done = Server(), threading.Event(), threading.Event()

    async def serve():
        async with made:
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    monkeypatch.setattr(online_check, "_PORT", made.port)
    yield made
    done.set()
    thread.join()


def test_each_name_its_addresses_and_who_gave_them(check, files, server):
    files.site(RESOLVERS, "resolvers: [127.0.0.1]")
    server.put("results.lab.example", "203.0.113.10", "2001:db8::10", ttl=77)
    code, said = check()
    assert code == 0
    assert "has no fault, " in said
    assert "203.0.113.10             0 s old, TTL 77 s by 127.0.0.1" in said
    assert "asked 127.0.0.1: 8 answered" in said, "two questions, four times"
    code, said = check("--json")
    (service,) = json.loads(said)["names"]
    assert [a["address"] for a in service["names"][0]["addresses"]] == [
        "203.0.113.10",
        "2001:db8::10",
    ]


def test_a_name_without_an_address_is_a_finding_and_asked_for_once(check, files, server):
    files.site(RESOLVERS, "resolvers: [127.0.0.1]")
    code, said = check()
    assert code == 1
    assert "results.lab.example has no address yet (127.0.0.1 answered NXDOMAIN)" in " ".join(
        said.split()
    )
    assert server.asked["results.lab.example", "A", "udp"] == 1


def test_one_name_without_an_address_among_others_is_a_finding(check, files, server):
    files.site(RESOLVERS, "resolvers: [127.0.0.1]")
    files.labs(
        "to: [results.lab.example, 203.0.113.10]", "to: [results.lab.example, gone.lab.example]"
    )
    server.put("results.lab.example", "203.0.113.10")
    code, said = check()
    assert code == 1
    assert "gone.lab.example has no address yet" in " ".join(said.split())


def test_private_addresses_where_the_destination_says_so(check, files, server):
    files.site(RESOLVERS, "resolvers: [127.0.0.1]")
    server.put("results.lab.example", "10.1.2.3")
    assert check()[0] == 1
    old = "to: [results.lab.example, 203.0.113.10]"
    files.labs(old, f"{old}\n        private: true")
    code, said = check()
    assert code == 0, said
    assert "10.1.2.3" in said


def test_no_resolvers_and_no_names(check, files):
    files.site(RESOLVERS, "resolvers: []")
    code, said = check()
    assert code == 1
    assert "the site has no resolvers" in said
    files.labs("to: [results.lab.example, 203.0.113.10]", "to: 203.0.113.10")
    assert check()[0] == 0
