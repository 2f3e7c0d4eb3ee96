"""Where a setting comes from, which source wins, and who is to blame for a wrong one."""

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

import ecluse
from ecluse.config.settings import Settings, SettingsError, load_settings
from ecluse.errors import ConfigError

EXAMPLE = Path(__file__).parents[3] / "config"


@pytest.fixture
def conf(tmp_path):
    def write(text):
        (tmp_path / "ecluse.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return f"--config-dir={tmp_path}"

    return write


def faults(argv, environ=None):
    with pytest.raises(SettingsError) as caught:
        load_settings(argv, environ or {})
    assert isinstance(caught.value, ConfigError)
    return [
        str(fault).rpartition("/ecluse.toml:")[2] or str(fault) for fault in caught.value.faults
    ]


def test_defaults(tmp_path):
    settings = load_settings(["--config-dir", str(tmp_path)], {})
    assert settings.model_dump() == {
        "config_dir": tmp_path,
        "state_dir": Path("/var/lib/ecluse"),
        "run_dir": Path("/run/ecluse"),
        "socket": Path("/run/ecluse/ecluse.sock"),
        "socket_mode": "0666",
        "socket_group": None,
        "readers_group": "ecluse",
        "operators_group": "ecluse-operators",
        "log_format": "json",
        "log_level": "info",
        "dns_dir": Path("/run/ecluse-dns"),
        "dns_user": "ecluse-dns",
        "dns_timeout": 3.0,
        "dns_minimum_ttl": 30,
        "dns_keep_days": 30,
        "keep_generations": 100,
        "keep_in_kernel": 3,
    }
    assert settings.permissions == 0o666
    assert Settings().config_dir == Path("/etc/ecluse")


def test_the_example_says_the_defaults():
    assert load_settings(["--config-dir", str(EXAMPLE)], {}) == Settings(config_dir=EXAMPLE)
    written = set(tomllib.loads((EXAMPLE / "ecluse.toml").read_text()))
    assert written == set(Settings.model_fields) - {"config_dir", "socket_group"}


def test_flags_win_over_variables_and_these_over_the_file(conf):
    flag = conf('state_dir = "/file"\nrun_dir = "/file"\nlog_level = "debug"\nkeep_in_kernel = 5\n')
    environ = {
        "ECLUSE_STATE_DIR": "/variable",
        "ECLUSE_RUN_DIR": "/variable",
        "ECLUSE_KEEP_IN_KERNEL": "7",
        "HOME": "/",
    }
    settings = load_settings([flag, "--state-dir", "/flag"], environ)
    assert settings.state_dir == Path("/flag")
    assert settings.run_dir == Path("/variable")
    assert settings.socket == Path("/variable/ecluse.sock")
    assert (settings.log_level, settings.keep_in_kernel) == ("debug", 7)


def test_the_directory_may_come_from_the_environment(conf, tmp_path):
    conf('readers_group = "look"\n')
    settings = load_settings([], {"ECLUSE_CONFIG_DIR": str(tmp_path)})
    assert (settings.config_dir, settings.readers_group) == (tmp_path, "look")


def test_every_setting_has_a_flag_and_a_variable(tmp_path):
    values = {
        "config_dir": str(tmp_path),
        "state_dir": "/s",
        "run_dir": "/r",
        "socket": "/x.sock",
        "socket_mode": "0600",
        "socket_group": "g",
        "readers_group": "998",
        "operators_group": "o",
        "log_format": "console",
        "log_level": "error",
        "dns_dir": "/d",
        "dns_user": "64089",
        "dns_timeout": "1.5",
        "dns_minimum_ttl": "5",
        "dns_keep_days": "7",
        "keep_generations": "9",
        "keep_in_kernel": "4",
    }
    assert set(values) == set(Settings.model_fields)
    by_flag = load_settings(
        [f"--{name.replace('_', '-')}={value}" for name, value in values.items()], {}
    )
    by_variable = load_settings(
        [], {f"ECLUSE_{name.upper()}": value for name, value in values.items()}
    )
    assert by_flag == by_variable
    assert {name: str(value) for name, value in by_flag.model_dump().items()} == values


def test_paths_of_flags_are_relative_to_where_one_stands(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(["--config-dir", ".", "--state-dir", "a/../b"], {})
    assert (settings.config_dir, settings.state_dir) == (tmp_path, tmp_path / "b")


def test_group_numbers(conf):
    settings = load_settings([conf('readers_group = 998\noperators_group = "0"\n')], {})
    assert (settings.readers_group, settings.operators_group) == ("998", "0")


def test_the_environment_of_the_process_is_nobodys_source(monkeypatch):
    monkeypatch.setenv("ECLUSE_STATE_DIR", "/elsewhere")
    monkeypatch.setenv("STATE_DIR", "/elsewhere")
    assert load_settings(["--config-dir", "/nowhere"], {}).state_dir == Path("/var/lib/ecluse")


def test_frozen():
    with pytest.raises(ValidationError):
        Settings().log_level = "debug"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('log_levl = "info"\n', "1:1: the key 'log_levl' is unknown: did you mean 'log_level'?"),
        ('\n  "state" = 1\n', "2:3: the key 'state' is unknown"),
        ("[log]\nformat = 1\n", "1:2: the key 'log' is unknown"),
        (
            'config_dir = "/x"\n',
            "1:1: config_dir stands in the directory that it names, expected --config-dir or",
        ),
        ('# x\nstate_dir = "rel"\n', "2:13: 'rel' for state_dir, expected an absolute path"),
        ("state_dir = 1\n", "1:13: '1' for state_dir, expected an absolute path"),
        ('socket_mode = "660"\n', "1:15: '660' for socket_mode, expected an octal mode"),
        ("socket_mode = 0o660\n", "1:15: '432' for socket_mode, expected an octal mode"),
        ('socket_mode = "0888"\n', "1:15: '0888' for socket_mode"),
        (
            "readers_group = true\n",
            "1:17: the truth value true for readers_group, expected the name or number of a UNIX",
        ),
        ('readers_group = "a b"\n', "1:17: 'a b' for readers_group"),
        ('keep_in_kernel = "3"\n', "1:18: '3' for keep_in_kernel, expected a whole number"),
        ("keep_in_kernel = 1\n", "1:18: '1' for keep_in_kernel, expected 2 to 20"),
        ("keep_in_kernel = 3.5\n", "1:18: '3.5' for keep_in_kernel, expected a whole number"),
        ("dns_timeout = nan\n", "1:15: 'nan' for dns_timeout"),
        ("dns_timeout = 0\n", "1:15: '0' for dns_timeout, expected 0.1 to 30"),
        ('log_format = "xml"\n', "1:14: 'xml' for log_format, expected json or console"),
        ('log_format = ["json"]\n', "1:14: a list for log_format, expected json or console"),
        (
            f'socket = "/{"x" * 107}"\n',
            "1:10: '/" + "x" * 56 + "...' for socket, expected a path of at most 107 bytes",
        ),
        (
            f'run_dir = "/{"x" * 100}"\n',
            "1:11: '/" + "x" * 56 + "...' for run_dir, expected a path of at most 107 bytes",
        ),
        ("a = \n", "1:5: not TOML: Invalid value"),
        ('log_level = "info"\nlog_level = "info"\n', "2:19: not TOML: Cannot overwrite a value"),
        (b"a = '\xe9'", "1:6: the byte 0xe9 is not UTF-8"),
        (b"a = '\x00'", "1:6: the character U+0000"),
    ],
)
def test_faults_of_the_file(conf, text, said):
    (found,) = faults([conf(text)])
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("argv", "environ", "said"),
    [
        (
            ["--stat-dir=/x"],
            {},
            (
                "command line: '--stat-dir=/x' is unknown: did you mean '--state-dir'?,"
                " expected a flag that"
            ),
        ),
        (["--state"], {}, "command line: '--state' is unknown"),
        (["x"], {}, "command line: 'x' is unknown, expected"),
        (["--socket"], {}, "--socket: expected one argument"),
        (["--socket="], {}, "--socket: '' for socket, expected an absolute path"),
        (["--config-dir="], {}, "--config-dir: '' for config_dir, expected an absolute path"),
        (["--dns-user=null"], {}, "--dns-user: nothing for dns_user, expected the name or number"),
        (
            ["--log-level=loud"],
            {},
            "--log-level: 'loud' for log_level, expected debug, info, warning or error",
        ),
        (["--dns-timeout=soon"], {}, "--dns-timeout: 'soon' for dns_timeout, expected a number"),
        (
            ["--dns-timeout=1e9"],
            {},
            "--dns-timeout: '1000000000.0' for dns_timeout, expected 0.1 to 30",
        ),
        (
            [],
            {"ECLUSE_SOKET": "/x"},
            "ECLUSE_SOKET: the variable is unknown: did you mean 'ECLUSE_SOCKET'?",
        ),
        ([], {"ECLUSE_socket": "/x"}, "ECLUSE_socket: the variable is unknown"),
        (
            [],
            {"ECLUSE_STATE_DIR": ""},
            "ECLUSE_STATE_DIR: '' for state_dir, expected an absolute path",
        ),
        (
            [],
            {"ECLUSE_KEEP_GENERATIONS": "many"},
            "ECLUSE_KEEP_GENERATIONS: 'many' for keep_generations, expected a whole number",
        ),
    ],
)
def test_faults_of_flags_and_variables(argv, environ, said):
    (found,) = faults(argv, {"ECLUSE_CONFIG_DIR": "/nowhere", **environ})
    assert found.startswith(said)


def test_a_wrong_value_is_said_even_where_another_source_wins(conf):
    flag = conf('log_level = "loud"\n')
    found = faults([flag, "--log-level", "info"], {"ECLUSE_LOG_LEVEL": "quiet", "ECLUSE_X": "1"})
    assert [line.partition(" ")[0] for line in found] == ["1:13:", "ECLUSE_LOG_LEVEL:", "ECLUSE_X:"]


def test_what_is_no_file(tmp_path):
    (tmp_path / "ecluse.toml").mkdir()
    with pytest.raises(SettingsError, match="this is a directory, expected a regular file"):
        load_settings(["--config-dir", str(tmp_path)], {})


def test_the_message_is_for_a_person(conf):
    with pytest.raises(SettingsError) as caught:
        load_settings([conf("a = 1\n")], {})
    assert caught.value.message.startswith("1 fault in the daemon's settings:\n")
    assert "eclused --help" in caught.value.hint
    assert str(caught.value) == caught.value.message


@pytest.mark.parametrize(
    ("flag", "shown"), [("--help", "--operators-group GROUP"), ("--version", ecluse.__version__)]
)
def test_help_and_version(flag, shown, capsys):
    with pytest.raises(SystemExit) as caught:
        load_settings([flag], {})
    assert caught.value.code == 0
    assert shown in capsys.readouterr().out


def test_keys_of_the_file_are_lower_case(conf):
    (found,) = faults([conf('LOG_LEVEL = "debug"\nlog_level = "error"\n')])
    assert found.startswith("1:1: the key 'LOG_LEVEL' is unknown")


@pytest.mark.parametrize("name", ["dns_timeout", "dns_minimum_ttl", "keep_generations"])
def test_a_word_of_json_is_no_number(name):
    (found,) = faults([], {"ECLUSE_CONFIG_DIR": "/nowhere", f"ECLUSE_{name.upper()}": "true"})
    assert f"'true' for {name}, expected a" in found


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000], ids=["digits", "brackets"])
@pytest.mark.parametrize("name", ["dns_timeout", "keep_generations", "socket_group", "log_level"])
def test_a_text_without_end_is_a_fault_as_any_other(name, text):
    place = {"ECLUSE_CONFIG_DIR": "/nowhere", "ECLUSE_DNS_USER": "no user"}
    found = faults([], {**place, f"ECLUSE_{name.upper()}": text})
    assert sorted(one.partition(":")[0] for one in found) == sorted(
        ["ECLUSE_DNS_USER", f"ECLUSE_{name.upper()}"]
    )
