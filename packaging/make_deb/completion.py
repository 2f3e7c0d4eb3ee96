"""Completion for bash, zsh and fish, from the parser of the command line."""

import argparse
from collections.abc import Iterator

from ecluse.cli.parser import build_parser
from make_deb.manual import options, verbs

# Zones and levels as the daemon has them; nothing when it does not answer.
_ZONES = (
    r"""ecluse status --json 2>/dev/null | sed -n '/"levels": {/,/}/s/^ *"\([^"]*\)": ".*/\1/p'"""
)
_LEVELS = "open cut isolate"
_HEAD = "Made from the command line's parser by packaging/make_deb: change it there."


def _flags(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in options(parser) if action.option_strings]


def _words(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in options(parser) if not action.option_strings]


def _names(parser: argparse.ArgumentParser) -> str:
    return " ".join(name for action in _flags(parser) for name in action.option_strings)


def _first_words(parser: argparse.ArgumentParser) -> str:
    """Say what may stand as the first word of a verb: `levels`, `dir`, `file` or nothing."""
    kinds = {"level": "levels", "directory": "dir", "file": "file"}
    return next((kinds[action.dest] for action in _words(parser) if action.dest in kinds), "")


def _top() -> dict[str, str]:
    """Give each first word of the command line with its help; `audit` is one word of two verbs."""
    found = {name: text for name, (text, _) in verbs(build_parser()).items() if " " not in name}
    return found | {"audit": "verify or show the audit log"}


def bash() -> str:
    """For bash."""
    parser = build_parser()
    offer = {
        "levels": f'COMPREPLY=($(compgen -W "{_LEVELS}" -- "$word"))',
        "dir": 'COMPREPLY=($(compgen -d -- "$word"))',
        "file": 'COMPREPLY=($(compgen -f -- "$word"))',
        "": "COMPREPLY=()",
    }
    cases = "".join(
        (
            f'    "{name}")\n        options="{_names(inner)}"\n'
            f"        plain() {{ {offer[_first_words(inner)]}; }}\n        ;;\n"
        )
        for name, (_, inner) in verbs(parser).items()
    )
    return f"""\
# bash completion for ecluse. {_HEAD}
_ecluse() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    local verb="" options="" skip="" i
    plain() {{ COMPREPLY=($(compgen -W "{" ".join(_top())}" -- "$word")); }}
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ $skip ]]; then
            skip=""
        elif [[ ${{COMP_WORDS[i]}} == --socket ]]; then
            skip=yes
        elif [[ ${{COMP_WORDS[i]}} != -* ]]; then
            verb=${{COMP_WORDS[i]}}
            local next=${{COMP_WORDS[i + 1]}}
            if [[ $verb == audit && $next != -* && $((i + 1)) -lt $COMP_CWORD ]]; then
                verb="audit ${{COMP_WORDS[i + 1]}}"
            fi
            break
        fi
    done
    options="{_names(parser)}"
    case $verb in
    audit)
        plain() {{ COMPREPLY=($(compgen -W "verify show" -- "$word")); }}
        ;;
{cases}    esac
    case $before in
    --zone) COMPREPLY=($(compgen -W "$({_ZONES})" -- "$word")) ;;
    --socket) COMPREPLY=($(compgen -f -- "$word")) ;;
    --reason | --authorised-by | --limit | --rollback) COMPREPLY=() ;;
    *)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W "$options" -- "$word"))
        else
            plain
        fi
        ;;
    esac
    unset -f plain
}}
complete -F _ecluse ecluse
"""


def _quoted(text: str) -> str:
    """Give a text for single quotes, in all three shells and for zsh's _arguments."""
    return text.replace("'", "'\\''").replace("[", "(").replace("]", ")").replace(":", "")


def _zsh_specs(parser: argparse.ArgumentParser) -> Iterator[str]:
    values = {"zone": "_ecluse_zones", "socket": "_files"}
    for action in _flags(parser):
        value = f":{action.dest}:{values.get(action.dest, ' ')}" if action.nargs != 0 else ""
        star = "*" if action.dest == "zone" else ""
        yield from (
            f"'{star}{name}[{_quoted(action.help or '')}]{value}'" for name in action.option_strings
        )
    kinds = {"levels": f"({_LEVELS})", "dir": "_directories", "file": "_files"}
    if first := _first_words(parser):
        yield f"'1:{first}:{kinds[first]}'"
    elif _words(parser):
        yield "'1:number: '"


def zsh() -> str:
    """For zsh."""
    parser = build_parser()
    listed = "\n".join(f"        '{name}:{_quoted(text)}'" for name, text in _top().items())
    cases = "\n".join(
        f"    '{name}') _arguments {' '.join(_zsh_specs(inner))} ;;"
        for name, (_, inner) in verbs(parser).items()
    )
    return f"""\
#compdef ecluse
# {_HEAD}
_ecluse_zones() {{
    local -a zones
    zones=(${{(f)"$({_ZONES})"}})
    compadd -a zones
}}
_ecluse() {{
    local context state line verb
    local -a verbs
    _arguments -C {" ".join(_zsh_specs(parser))} '1: :->verb' '*:: :->rest'
    case $state in
    verb)
        verbs=(
{listed}
        )
        _describe verb verbs
        return
        ;;
    esac
    verb=$line[1]
    if [[ $verb == audit ]]; then
        if (( CURRENT == 2 )); then
            compadd verify show
            return
        fi
        verb="audit $words[2]"
        shift words
        (( CURRENT-- ))
    fi
    case $verb in
{cases}
    esac
}}
_ecluse "$@"
"""


def fish() -> str:
    """For fish."""
    parser = build_parser()
    top = " ".join(_top())
    lines = [
        f"# {_HEAD}",
        "complete -c ecluse -f",
        f"set -l ecluse_verbs {top}",
        f"function __ecluse_zones; {_ZONES}; end",
    ]
    unseen = "not __fish_seen_subcommand_from $ecluse_verbs"
    lines += [
        f"complete -c ecluse -n \"{unseen}\" -a {name} -d '{_quoted(text)}'"
        for name, text in _top().items()
    ]
    lines += [
        f'complete -c ecluse -n "{unseen}" {_fish_option(action)}' for action in _flags(parser)
    ]
    for name, (text, inner) in verbs(parser).items():
        seen = " ; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        if " " in name:
            first, second = name.split()
            lines.append(
                f'complete -c ecluse -n "__fish_seen_subcommand_from {first}" -a {second} -d '
                f"'{_quoted(text)}'"
            )
        lines += [
            f'complete -c ecluse -n "{seen}" {_fish_option(action)}' for action in _flags(inner)
        ]
        extra = {"levels": f"-a '{_LEVELS}'", "dir": "-F", "file": "-F"}.get(_first_words(inner))
        if extra:
            lines.append(f'complete -c ecluse -n "{seen}" {extra}')
    return "\n".join(lines) + "\n"


def _fish_option(action: argparse.Action) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
        for name in action.option_strings
    )
    value = ""
    if action.nargs != 0:
        value = {"zone": " -x -a '(__ecluse_zones)'", "socket": " -r -F"}.get(action.dest, " -x")
    return f"{names}{value} -d '{_quoted(action.help or '')}'"


def files() -> dict[str, str]:
    """Give every file by its path below /."""
    return {
        "usr/share/bash-completion/completions/ecluse": bash(),
        "usr/share/zsh/vendor-completions/_ecluse": zsh(),
        "usr/share/fish/vendor_completions.d/ecluse.fish": fish(),
    }
