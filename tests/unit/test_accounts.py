import pytest

from ecluse.accounts import Accounts


@pytest.fixture
def accounts(tmp_path):
    (tmp_path / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nmarie:x:1000:1000::/:/bin/sh\nalso:x:1000:5::/\n:::\nbad\n"
        "odd:x:abc:7::/:/bin/sh\nodd:x:1001:7::/:/bin/sh\nbad\u202ename:x:1002:7::/:/bin/sh\n"
    )
    (tmp_path / "group").write_text("root:x:0:\nlook:x:50:marie\ncommand:x:60:\nodd:x:abc:\n")
    return Accounts(tmp_path / "passwd", tmp_path / "group")


def test_users_by_the_machines_own_file(accounts):
    assert [accounts.user_name(uid) for uid in (0, 1000, 4711)] == ["root", "marie", "uid 4711"]


def test_groups_by_name_or_number(accounts):
    assert accounts.gid("look") == 50
    assert accounts.gid("4711") == 4711
    assert accounts.gid("nowhere") is None
    assert accounts.gid("odd") is None
    assert accounts.gid("") is None


def test_a_changed_file_is_read_again(accounts, tmp_path):
    assert accounts.gid("later") is None
    (tmp_path / "group").write_text("later:x:77:\n")
    assert accounts.gid("later") == 77
    (tmp_path / "group").unlink()
    assert accounts.gid("later") is None


def test_users_by_name_or_number(accounts):
    assert accounts.uid("marie") == 1000
    assert accounts.uid("also") == 1000
    assert accounts.uid("4711") == 4711
    assert accounts.uid("odd") == 1001, "a line without a number is none"
    for name in ("nobody", "", "\u0664", "root:x"):
        assert accounts.uid(name) is None


def test_a_name_cannot_turn_a_line_round(accounts):
    assert accounts.user_name(1002) == "bad?name"


def test_without_the_files_there_are_numbers_alone(tmp_path):
    accounts = Accounts(tmp_path / "none", tmp_path / "none")
    assert (accounts.user_name(0), accounts.uid("root"), accounts.gid("root")) == (
        "uid 0",
        None,
        None,
    )
    assert (accounts.uid("7"), accounts.gid("7")) == (7, 7)
