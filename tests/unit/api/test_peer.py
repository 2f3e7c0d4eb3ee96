import asyncio
import os
import socket

import pytest

from ecluse.accounts import Accounts
from ecluse.api.peer import (
    SO_PEERPIDFD,
    Peer,
    Role,
    Roles,
    actor_of,
    has_ended,
    peer_of,
)
from tests.unit.api.harness import SYSTEM_PYTHON, open_folder


@pytest.fixture
def accounts(tmp_path):
    (tmp_path / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nmarie:x:1000:1000::/:/bin/sh\nalso:x:1000:5::/:\n:::\nbad\n"
    )
    (tmp_path / "group").write_text("root:x:0:\nlook:x:50:marie\ncommand:x:60:\nodd:x:abc:\n")
    return Accounts(tmp_path / "passwd", tmp_path / "group")


def peer(uid, *groups):
    return Peer(uid, 1, frozenset(groups))


def test_roles(accounts):
    roles = Roles("look", "command", accounts)
    assert roles.role_of(peer(0)) is Role.OPERATOR
    assert roles.role_of(peer(1000, 1000, 60)) is Role.OPERATOR
    assert roles.role_of(peer(1000, 50)) is Role.READER
    assert roles.role_of(peer(1000, 50, 60)) is Role.OPERATOR
    assert roles.role_of(peer(1000, 1000)) is Role.NONE
    assert roles.warnings() == ()


def test_a_group_that_does_not_exist_gives_nobody_a_role(accounts):
    roles = Roles("nowhere", "no-such", accounts)
    assert roles.role_of(peer(1000, 50, 60, 0)) is Role.NONE
    assert roles.role_of(peer(0)) is Role.OPERATOR
    assert len(roles.warnings()) == 2
    assert "'nowhere'" in roles.warnings()[0]


def test_what_a_role_includes():
    assert Role.OPERATOR.includes(Role.READER)
    assert not Role.READER.includes(Role.OPERATOR)
    assert not Role.NONE.includes(Role.READER)


@pytest.mark.parametrize("number", [0, 3, 256, 300, 5000])
async def test_the_kernel_names_the_peer_with_all_its_groups(number):
    groups = list(range(70_000, 70_000 + number))
    with open_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        (folder / "s").chmod(0o666)
        listener.listen()
        process = await asyncio.create_subprocess_exec(
            SYSTEM_PYTHON,
            "-I",
            "-c",
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)",
            str(folder / "s"),
            user=61011,
            group=61012,
            extra_groups=groups,
            cwd="/",
        )
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            assert peer_of(connection) == Peer(61011, process.pid, frozenset({61012, *groups}))
        await process.wait()


def test_the_actor_is_what_the_kernel_says(accounts, tmp_path):
    actor = actor_of(Peer(0, os.getpid(), frozenset()), accounts)
    assert (actor.uid, actor.user, actor.pid) == (0, "root", os.getpid())
    with open("/proc/self/comm") as file:
        assert actor.command == file.read().strip()


def test_a_command_name_cannot_move_the_cursor_and_none_is_no_login(accounts, tmp_path):
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "comm").write_bytes(b"e\x1b[2Jvil\xff\n")
    (tmp_path / "9" / "loginuid").write_text("4294967295")
    actor = actor_of(Peer(1000, 9, frozenset()), accounts, tmp_path)
    assert actor.command == "e?[2Jvil\ufffd"
    assert actor.login is None
    (tmp_path / "9" / "loginuid").write_text("1000")
    assert actor_of(Peer(1000, 9, frozenset()), accounts, tmp_path).login == 1000


def test_a_peer_that_is_gone_has_no_command(accounts, tmp_path):
    assert actor_of(Peer(1000, 12, frozenset()), accounts, tmp_path).command == ""


def test_a_peer_that_went_meanwhile_has_neither_command_nor_login(accounts, tmp_path):
    """Its number may be another process's by now; who it was at connect(2) is the kernel's word and
    stays.
    """
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "comm").write_text("other\n")
    (tmp_path / "9" / "loginuid").write_text("1000")
    actor = actor_of(Peer(1000, 9, frozenset()), accounts, tmp_path, gone=lambda: True)
    assert (actor.uid, actor.user, actor.pid, actor.command, actor.login) == (
        1000,
        "marie",
        9,
        "",
        None,
    )


async def test_a_process_that_left_its_connection_to_another_has_ended(tmp_path):
    script = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
if os.fork() == 0: s.recv(1)
else: input()
"""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        process = await asyncio.create_subprocess_exec(
            SYSTEM_PYTHON, "-I", "-c", script, str(tmp_path / "s"), stdin=asyncio.subprocess.PIPE
        )
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            try:
                os.close(connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
            except OSError:
                pytest.skip("this kernel does not tell (Linux before 6.5)")
            assert not has_ended(connection)
            process.stdin.write(b"\n")
            await process.wait()
            assert has_ended(connection)
