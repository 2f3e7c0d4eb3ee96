"""The daemon's settings: flags, then `ECLUSE_*`, then `ecluse.toml`, then defaults; each fault
names its source.

Every source is judged by itself, also where another one wins: a wrong value that is hidden today is
a daemon that does not start tomorrow. pydantic-settings says neither file nor line nor which
source, so the layers are read here and only joined in the model.
"""

import argparse
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args

from pydantic import Field, PlainValidator, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

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
        self.hint = "mend what is named above, then start eclused again; 'eclused --help' lists the settings"


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


def _mode(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"0[67][0-7]{2}", value):
        raise _wrong('an octal mode in quotes that its owner may read and write, such as "0660"')
    return value


def _group(value: object) -> str:
    # A number may stand bare in the file: 998 and "998" are the same group.
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(
        r"[a-z_][a-z0-9_-]{0,31}|0|[1-9][0-9]{0,9}", text
    ):
        raise _wrong("the name or number of a UNIX group")
    return text


_Path = Annotated[Path, PlainValidator(_path)]
_Group = Annotated[str, PlainValidator(_group)]


class Settings(BaseSettings):
    """How one daemon runs on one machine; what it does to traffic stands in the policy."""

    model_config = SettingsConfigDict(strict=True, extra="forbid", frozen=True)

    config_dir: _Path = Field(Path("/etc/ecluse"), description="directory of the site's files")
    state_dir: _Path = Field(
        Path("/var/lib/ecluse"), description="directory of generations and the audit log"
    )
    run_dir: _Path = Field(Path("/run/ecluse"), description="directory for what a reboot may lose")
    dns_dir: _Path = Field(
        Path("/run/ecluse-dns"),
        description="directory where the DNS gate's process tells how it is",
    )
    dns_user: _Group = Field("ecluse-dns", description="user of the DNS gate's process")
    socket: Annotated[Path, PlainValidator(_socket)] = Field(
        Path("/run/ecluse") / SOCKET_NAME, description=f"the API's socket (RUN_DIR/{SOCKET_NAME})"
    )
    socket_mode: Annotated[str, PlainValidator(_mode)] = Field(
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
        3, ge=2, le=20, description="allowlists held in the kernel, the live one included"
    )

    @model_validator(mode="before")
    @classmethod
    def _socket_in_run_dir(cls, data: Any) -> Any:
        """Put the socket into the run directory unless it is named."""
        if isinstance(data, dict) and "run_dir" in data and "socket" not in data:
            return {**data, "socket": str(Path(data["run_dir"]) / SOCKET_NAME)}
        return data

    @property
    def permissions(self) -> int:
        """Give socket_mode as a number for chmod(2)."""
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
        """Take values from load_settings() alone: never from the environment of whoever imports
        this.
        """
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


_NAMES = tuple(Settings.model_fields)
_INTEGERS, _FLOATS = (
    {name for name, info in Settings.model_fields.items() if info.annotation is kind}
    for kind in (int, float)
)


@dataclass(frozen=True, slots=True)
class _Layer:
    """The values of one source, and for each name the fault without its words."""

    values: Mapping[str, object]
    places: Mapping[str, Fault]


def load_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read the settings. argv: the flags without the program's name.

    SettingsError with every fault of every source. SystemExit(0) after `--help` and `--version`.
    """
    faults: list[Fault] = []
    flags = _flags(argv, faults)
    environment = _environment(environ, faults)
    upper = _checked(environment, faults) | _checked(flags, faults)
    directory = Path(str(upper.get("config_dir", Settings.model_fields["config_dir"].default)))
    file = _toml(directory / TOML_NAME, faults)
    values = _checked(file, faults) | upper
    if faults:
        raise SettingsError(tuple(faults))
    try:
        return Settings(**values)
    except ValidationError as error:
        # Each value by itself is right: it can only be the socket's path, made from the run
        # directory.
        places = {**file.places, **environment.places, **flags.places}
        place = places.get("run_dir", Fault("settings", 0, 0, ""))
        found = (_said(place, "run_dir", detail) for detail in error.errors(include_url=False))
        raise SettingsError(tuple(found)) from None


def _checked(layer: _Layer, faults: list[Fault]) -> dict[str, Any]:
    """Give the values of a source that are right, and add the faults of the others."""
    good: dict[str, Any] = {}
    for name, value in layer.values.items():
        # With a socket of its own, because the one made from the run directory is judged at the
        # end.
        alone: dict[str, Any] = {"socket": "/run/s", name: value}
        try:
            Settings(**alone)
        except ValidationError as error:
            faults += [
                _said(layer.places[name], name, detail)
                for detail in error.errors(include_url=False)
            ]
        else:
            good[name] = value
    return good


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
}


def _said(place: Fault, name: str, detail: ErrorDetails) -> Fault:
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


class _FlagError(Exception):
    """What argparse would print before it ends the process."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _FlagError(message)


def parser() -> argparse.ArgumentParser:
    """Give the flags of `eclused`, one for each setting."""
    made = _Parser(
        prog="eclused",
        description="Hold a hospital's gate: cut the internet, keep what is vital.",
        epilog="Each flag is also a variable (ECLUSE_STATE_DIR) and a line of CONFIG_DIR/ecluse.toml"
        ' (state_dir = "..."). A flag wins over a variable, and that over the file.',
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"eclused {ecluse.__version__}")
    for name, info in Settings.model_fields.items():
        default = "" if info.default is None or name == "socket" else f" ({info.default})"
        made.add_argument(
            _flag(name),
            dest=name,
            metavar=name.rpartition("_")[2].upper(),
            help=f"{info.description}{default}",
        )
    return made


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flags(argv: Sequence[str], faults: list[Fault]) -> _Layer:
    try:
        found, unknown = parser().parse_known_args(list(argv))
    except _FlagError as error:
        flag, _, message = str(error).removeprefix("argument ").partition(": ")
        faults.append(Fault(flag, 0, 0, message))
        return _Layer({}, {})
    for word in unknown:
        known = [*map(_flag, _NAMES), "--help", "--version"]
        near = did_you_mean(word.partition("=")[0], known) if word.startswith("-") else ""
        faults.append(
            Fault(
                "command line",
                0,
                0,
                f"{shown(word)} is unknown{near}",
                "a flag that 'eclused --help' lists",
            )
        )
    values = {name: text for name, text in vars(found).items() if text is not None}
    return _from_texts(values, {name: _flag(name) for name in values})


def _environment(environ: Mapping[str, str], faults: list[Fault]) -> _Layer:
    values: dict[str, str] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if variable == PREFIX + name.upper() and name in _NAMES:
            values[name] = environ[variable]
        else:
            known = [PREFIX + known.upper() for known in _NAMES]
            wrong = f"the variable is unknown{did_you_mean(variable, known)}"
            faults.append(
                Fault(file_name(variable), 0, 0, wrong, "a variable that 'eclused --help' names")
            )
    return _from_texts(values, {name: PREFIX + name.upper() for name in values})


def _from_texts(texts: Mapping[str, str], sources: Mapping[str, str]) -> _Layer:
    """Read numbers and make paths absolute, as a shell user expects; what is no number stays for
    the model to refuse.
    """
    values: dict[str, object] = {}
    for name, text in texts.items():
        values[name] = text
        if name in {"config_dir", "state_dir", "run_dir", "dns_dir", "socket"} and text:
            values[name] = os.path.abspath(text)  # noqa: PTH100  Path.absolute() leaves '..' in it
        elif name in _INTEGERS and re.fullmatch(r"-?[0-9]{1,9}", text):
            values[name] = int(text)
        elif name in _FLOATS and re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", text):
            values[name] = float(text)
    return _Layer(values, {name: Fault(source, 0, 0, "") for name, source in sources.items()})


def _toml(path: Path, faults: list[Fault]) -> _Layer:
    empty = _Layer({}, {})
    if not os.path.lexists(path):
        return empty
    file = file_name(path)
    data = read_file(path)
    if isinstance(data, Fault):
        faults.append(data)
        return empty
    text, found = decode(file, data)
    faults += found
    if found:
        return empty
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        faults.append(_toml_fault(file, error))
        return empty
    values: dict[str, object] = {}
    places: dict[str, Fault] = {}
    for key, value in table.items():
        key_place, value_place = _toml_places(file, text, key)
        if key == "config_dir":
            wrong = "config_dir stands in the directory that it names"
            faults.append(key_place.here(wrong, "--config-dir or ECLUSE_CONFIG_DIR"))
        elif key in _NAMES:
            values[key], places[key] = value, value_place
        else:
            wrong = f"the key {shown(key)} is unknown{did_you_mean(key, _NAMES)}"
            faults.append(key_place.here(wrong, listed(n for n in _NAMES if n != "config_dir")))
    return _Layer(values, places)


def _toml_fault(file: str, error: ValueError | RecursionError) -> Fault:
    if isinstance(error, RecursionError):
        return Fault(file, 0, 0, "lists nested too deeply", "lines of the form: name = value")
    message = re.fullmatch(
        r"(?P<what>.*?) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)",
        str(error),
    )
    if message is None:
        return Fault(
            file, 0, 0, f"not TOML: {shown(str(error))}", "lines of the form: name = value"
        )
    line, column = int(message["line"] or 0), int(message["column"] or 0)
    return Fault(
        file, line, column, f"not TOML: {message['what']}", "lines of the form: name = value"
    )


def _toml_places(file: str, text: str, key: str) -> tuple[Fault, Fault]:
    """Give the places of a key and its value; tomllib keeps none, and the settings are one to a
    line.
    """
    word = re.escape(key)
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(
            rf"\s*\[*\s*(?P<key>(?P<quote>[\"']?){word}(?P=quote))(?P<rest>\s*[.\]=]\s*)", line
        ):
            start, end = match.start("key") + 1, match.end("rest") + 1
            return Fault(file, number, start, ""), Fault(file, number, end, "")
    return Fault(file, 1, 1, ""), Fault(file, 1, 1, "")
