"""The daemon's settings: flags, then `ECLUSE_*`, then `ecluse.toml`, then defaults.

pydantic-settings reads the three sources. They are joined here and not by it, because it joins
before it validates and names no source: a wrong value under a right one would go unseen today, and
keep the daemon from starting tomorrow (docs/settings.md).
"""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field, PlainValidator, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

import ecluse
from ecluse.config.messages import did_you_mean, listed, shown
from ecluse.config.read_files import file_name, read_file
from ecluse.config.yaml_scalars import describe
from ecluse.config.yaml_syntax import decode
from ecluse.errors import ConfigError
from ecluse.faults import Fault

PREFIX = "ECLUSE_"
TOML_NAME = "ecluse.toml"
SOCKET_NAME = "ecluse.sock"
# sun_path has 108 bytes with the NUL (unix(7)).
MAX_SOCKET_PATH = 107


class SettingsError(ConfigError):
    """The daemon's settings have faults, all of them listed; the daemon did not start."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        count = len(self.faults)
        lines = "\n".join(str(fault) for fault in self.faults)
        self.message = (
            f"{count} fault{'s' if count != 1 else ''} in the daemon's settings:\n{lines}"
        )
        self.args = (self.message,)
        self.hint = (
            "correct the settings named above, then start eclused again;"
            " 'eclused --help' lists the settings"
        )


def _wrong(expected: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "wrong", {"expected": expected})


def _path(value: object) -> Path:
    if not isinstance(value, str | Path) or "\0" in str(value) or not Path(value).is_absolute():
        raise _wrong("an absolute path")
    return Path(value)


def _socket(value: object) -> Path:
    path = _path(value)
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise _wrong(
            f"a path of at most {MAX_SOCKET_PATH} bytes, more does not fit into a socket's address"
        )
    return path


def _matching(pattern: str, expected: str) -> PlainValidator:
    def check(value: object) -> str:
        # A number may stand bare in the file: the groups 998 and "998" are the same.
        text = str(value) if type(value) is int else value
        if not isinstance(text, str) or not re.fullmatch(pattern, text):
            raise _wrong(expected)
        return text

    return PlainValidator(check)


_Path = Annotated[Path, PlainValidator(_path)]
_Mode = Annotated[
    str,
    _matching(
        r"0[67][0-7]{2}",
        'an octal mode in quotes that its owner may read and write, such as "0660"',
    ),
]
_Group = Annotated[
    str,
    _matching(
        r"[a-z_][a-z0-9_-]{0,31}|0|[1-9][0-9]{0,9}",
        "the name or number of a UNIX group",
    ),
]


class Settings(BaseSettings):
    """How the daemon runs on this machine; what it does to traffic is in the policy."""

    model_config = SettingsConfigDict(strict=True, extra="forbid", frozen=True)

    config_dir: _Path = Field(Path("/etc/ecluse"), description="directory of the site's files")
    state_dir: _Path = Field(
        Path("/var/lib/ecluse"), description="directory of generations and the audit log"
    )
    run_dir: _Path = Field(Path("/run/ecluse"), description="directory for what a reboot may lose")
    dns_dir: _Path = Field(
        Path("/run/ecluse-dns"),
        description="directory where the DNS gate's process writes its status",
    )
    dns_user: _Group = Field("ecluse-dns", description="user of the DNS gate's process")
    socket: Annotated[Path, PlainValidator(_socket)] = Field(
        Path("/run/ecluse") / SOCKET_NAME, description=f"the API's socket (RUN_DIR/{SOCKET_NAME})"
    )
    socket_mode: _Mode = Field(
        # Everybody may connect: the daemon asks the kernel who it is, and an attempt must reach the
        # audit log.
        "0666",
        description="mode of the socket, octal",
    )
    socket_group: _Group | None = Field(
        None, description="group of the socket file (the daemon's own)"
    )
    readers_group: _Group = Field("ecluse", description="group that may look")
    operators_group: _Group = Field("ecluse-operators", description="group that may command")
    log_format: Literal["json", "console"] = Field("json", description="json or console")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error"
    )
    dns_timeout: float = Field(
        3.0, ge=0.1, le=30, description="seconds that one DNS question may take"
    )
    dns_minimum_ttl: int = Field(
        30, ge=1, le=3600, description="seconds between two questions for a name"
    )
    dns_keep_days: int = Field(
        30,
        ge=1,
        le=3650,
        description="days that an address outlives its last answer while the resolvers fail",
    )
    keep_generations: int = Field(100, ge=2, le=100_000, description="generations kept on disk")
    keep_in_kernel: int = Field(
        3, ge=2, le=20, description="allowlists loaded in the kernel, the live one included"
    )

    @model_validator(mode="before")
    @classmethod
    def _socket_in_run_dir(cls, data: Any) -> Any:
        """Put the socket into the run directory unless one is given."""
        if isinstance(data, dict) and "run_dir" in data and "socket" not in data:
            return {**data, "socket": str(Path(data["run_dir"]) / SOCKET_NAME)}
        return data

    @property
    def permissions(self) -> int:
        """Return socket_mode as a number, for chmod(2)."""
        return int(self.socket_mode, 8)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from load_settings() alone, never from this process' environment."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


_NAMES = tuple(Settings.model_fields)


class _Layer(NamedTuple):
    """The values of one source, and for each a fault at its place, without its words."""

    values: dict[str, Any]
    places: dict[str, Fault]


def load_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read the settings.

    Args:
        argv: the flags, without the program's name.
        environ: the environment; only `ECLUSE_*` counts.

    Raises:
        SettingsError: with every fault of every source.
        SystemExit: with 0, after `--help` and `--version`.
    """
    faults: list[Fault] = []
    flags, environment = _flags(argv, faults), _environment(environ, faults)
    upper = _valid(environment, faults) | _valid(flags, faults)
    directory = Path(str(upper.get("config_dir", Settings.model_fields["config_dir"].default)))
    file = _toml(directory / TOML_NAME, faults)
    values = _valid(file, faults) | upper
    if faults:
        raise SettingsError(tuple(faults))
    try:
        return Settings(**values)
    except ValidationError as error:
        # Each value by itself is right, so it is the socket's path, made from the run directory.
        place = (file.places | environment.places | flags.places)["run_dir"]
        found = error.errors(include_url=False)
        raise SettingsError(tuple(_fault(place, "run_dir", each) for each in found)) from None


def _valid(layer: _Layer, faults: list[Fault]) -> dict[str, Any]:
    """Return the values of one source that are right; add the faults of the others."""
    try:
        # With a socket of its own: the one made from the run directory is judged at the end.
        Settings(**{"socket": "/run/s", **layer.values})
    except ValidationError as error:
        found = {str(each["loc"][0]): each for each in error.errors(include_url=False)}
        faults += [_fault(layer.places[name], name, detail) for name, detail in found.items()]
        return {name: value for name, value in layer.values.items() if name not in found}
    return layer.values


_EXPECTED = {"int_type": "a whole number", "float_type": "a number"}


def _fault(place: Fault, name: str, detail: ErrorDetails) -> Fault:
    context = detail.get("ctx", {})
    info = Settings.model_fields[name]
    expected = context.get("expected") or _EXPECTED.get(detail["type"], "another value")
    if detail["type"] == "literal_error":
        expected = listed(get_args(info.annotation))
    elif detail["type"] in {"greater_than_equal", "less_than_equal"}:
        low, high = (
            getattr(bound, key) for bound, key in zip(info.metadata, ("ge", "le"), strict=True)
        )
        expected = f"{low} to {high}"
    value = detail["input"]
    bare = isinstance(value, str | int | float | Path) and not isinstance(value, bool)
    what = shown(str(value)) if bare else describe(value)
    return place.here(f"{what} for {name}", str(expected))


_NUMBER = re.compile(r"[-+ 0-9._e]{1,40}")
"""What pydantic-settings may read as a number.

It tries all else as JSON: `true` would be 1, and thousands of digits or brackets end the start with
an error of its own.
"""


class _TextSource(EnvSettingsSource):
    """Texts from a shell: a path is relative to the working directory."""

    def prepare_field_value(
        self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool
    ) -> Any:
        if value and field.annotation is Path:
            return os.path.abspath(value)  # noqa: PTH100  Path.absolute() leaves '..' in it
        if value and field.annotation in {int, float} and _NUMBER.fullmatch(value):
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        return value


class _FlagSource(_TextSource, CliSettingsSource[argparse.ArgumentParser]):
    pass


def parser() -> argparse.ArgumentParser:
    """Return the flags of `eclused`, one for each setting."""
    return _flag_source().root_parser


def _flag_source() -> _FlagSource:
    root = argparse.ArgumentParser(
        prog="eclused",
        description="Hold a hospital's gate: cut the internet, keep what is vital.",
        epilog="Each flag is also a variable (ECLUSE_STATE_DIR) and a line of"
        ' CONFIG_DIR/ecluse.toml (state_dir = "..."). A flag wins over a variable, and that over'
        " the file.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    root.add_argument("--version", action="version", version=f"eclused {ecluse.__version__}")
    return _FlagSource(
        Settings, root_parser=root, add_argument_method=_add_flag, cli_kebab_case=True
    )


def _add_flag(root: argparse.ArgumentParser, flag: str, **options: Any) -> None:
    text, _, default = options.pop("help").rpartition(" (default: ")
    given = "" if default == "null)" or flag == "--socket" else f" ({default}"
    metavar = flag.rpartition("-")[2].upper()
    root.add_argument(flag, **{**options, "metavar": metavar}, help=text + given)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flags(argv: Sequence[str], faults: list[Fault]) -> _Layer:
    source = _flag_source()
    try:
        found, unknown = source.root_parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        faults.append(Fault(error.argument_name or "command line", 0, 0, error.message))
        return _Layer({}, {})
    for word in unknown:
        known = [*map(_flag, _NAMES), "--help", "--version"]
        near = did_you_mean(word.partition("=")[0], known) if word.startswith("-") else ""
        wrong = f"{shown(word)} is unknown{near}"
        faults.append(Fault("command line", 0, 0, wrong, "a flag that 'eclused --help' lists"))
    source(parsed_args=found)
    values = source()
    return _Layer(values, {name: Fault(_flag(name), 0, 0, "") for name in values})


def _environment(environ: Mapping[str, str], faults: list[Fault]) -> _Layer:
    known = [PREFIX + name.upper() for name in _NAMES]
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known:
            wrong = f"the variable is unknown{did_you_mean(variable, known)}"
            expected = "a variable that 'eclused --help' names"
            faults.append(Fault(file_name(variable), 0, 0, wrong, expected))
    source = _TextSource(Settings, env_prefix=PREFIX)
    # What the caller gave, not the environment of this process; in lower case, as it looks it up.
    source.env_vars = {name.lower(): environ[name] for name in known if name in environ}
    values = source()
    return _Layer(values, {name: Fault(PREFIX + name.upper(), 0, 0, "") for name in values})


def _toml(path: Path, faults: list[Fault]) -> _Layer:
    """Return the values of `ecluse.toml`, each with its line and column.

    pydantic-settings passes over a path that is no regular file, reads without a bound and keeps
    neither text nor places, so the file is read and judged here before its source parses it.
    """
    layer = _Layer({}, {})
    if not os.path.lexists(path):
        return layer
    file, data = file_name(path), read_file(path)
    text, found = ("", [data]) if isinstance(data, Fault) else decode(file, data)
    faults += found
    if found:
        return layer
    try:
        # As they stand there: called, it would take LOG_LEVEL for log_level.
        table = TomlConfigSettingsSource(Settings, path).toml_data
    except (ValueError, RecursionError) as error:
        faults.append(_toml_fault(file, error))
        return layer
    for key, value in table.items():
        key_place, value_place = _toml_places(file, text, key)
        if key in _NAMES and key != "config_dir":
            layer.values[key], layer.places[key] = value, value_place
        else:
            faults.append(_unknown_key(key, key_place))
    return layer


def _unknown_key(key: str, place: Fault) -> Fault:
    if key == "config_dir":
        wrong = "config_dir stands in the directory that it names"
        return place.here(wrong, "--config-dir or ECLUSE_CONFIG_DIR")
    wrong = f"the key {shown(key)} is unknown{did_you_mean(key, _NAMES)}"
    return place.here(wrong, listed(name for name in _NAMES if name != "config_dir"))


def _toml_fault(file: str, error: ValueError | RecursionError) -> Fault:
    what, _, place = str(error).partition(" (at ")
    if isinstance(error, RecursionError):
        what = "lists nested too deeply"
    numbers = re.fullmatch(r"line (\d+), column (\d+)\)", place)
    line, column = map(int, numbers.groups()) if numbers else (0, 0)
    return Fault(file, line, column, f"not TOML: {what}", "lines of the form: name = value")


def _toml_places(file: str, text: str, key: str) -> tuple[Fault, Fault]:
    """Return the places of a key and of its value, which tomllib does not keep.

    It looks for the first line that begins with the key: settings stand one on a line.
    """
    word = re.escape(key)
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(
            rf"\s*\[*\s*(?P<key>(?P<quote>[\"']?){word}(?P=quote))(?P<rest>\s*[.\]=]\s*)", line
        ):
            start, end = match.start("key") + 1, match.end("rest") + 1
            return Fault(file, number, start, ""), Fault(file, number, end, "")
    return Fault(file, 1, 1, ""), Fault(file, 1, 1, "")
