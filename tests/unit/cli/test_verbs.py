"""The table of verbs."""

import ast
import inspect
import sys
from types import SimpleNamespace

import pytest

from ecluse.cli import fast_args, main, parser, verbs
from ecluse.cli.verbs import GROUPS, VERBS, Verb, add_verbs
from ecluse.extensions import Extension


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_the_function_of_every_verb_exists_and_takes_arguments_and_a_screen(verb):
    function = getattr(verb.module(), verb.function)
    assert list(inspect.signature(function).parameters) == ["args", "screen"]


def test_two_words_are_a_verb_of_a_group_that_help_names():
    groups = {name.split()[0] for name in VERBS if " " in name}
    assert groups == set(GROUPS)
    assert not groups & set(VERBS)


def test_what_is_parsed_fast_is_in_the_table():
    assert set(fast_args._VERBS) < set(VERBS)


def test_the_changing_verbs_are_those_of_one_module():
    changing = {name for name, verb in VERBS.items() if verb.changes}
    assert changing == {"cut", "isolate", "open", "level", "rollback", "reload"}


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(verbs, "VERBS", dict(VERBS))
    monkeypatch.setattr(main, "VERBS", verbs.VERBS)
    monkeypatch.setattr(parser, "VERBS", verbs.VERBS)
    monkeypatch.setattr(parser, "GROUPS", {**GROUPS, "grant": "pass for a time"})


def test_an_extension_brings_verbs_that_are_parsed_helped_and_run(table, ecluse, capsys):
    def with_number(verb):
        verb.add_argument("number", type=int)

    def double(args, screen):
        screen.line(f"{2 * args.number} {args.json}")
        return 0

    module = SimpleNamespace(double=double)
    add_verbs(
        Verb("double", lambda: module, "double", "double a number", with_number),
        Verb("grant add", lambda: module, "double", "let a machine through", with_number),
    )
    assert ecluse("double", "21", "--json") == (0, "42 True\n", "")
    assert ecluse("grant", "add", "4") == (0, "8 False\n", "")
    assert ecluse("grant", "4")[0] == 2
    out = ecluse("--help")[1]
    assert "double a number" in out
    assert "pass for a time" in out


def test_verbs_of_the_registry_are_added_once_and_a_broken_module_costs_only_its_own(
    table, ecluse, monkeypatch
):
    def hello(args, screen):
        screen.line("hello")
        return 0

    verb = Verb("hello", lambda: SimpleNamespace(hello=hello), "hello", "greet")
    monkeypatch.setitem(sys.modules, "greeting", SimpleNamespace(VERBS=(verb,), GROUPS={}))
    every = (
        Extension("greeting", "", "", verbs="greeting"),
        Extension("broken", "", "", verbs="ecluse.no_such_module"),
    )
    monkeypatch.setattr("ecluse.extensions.EXTENSIONS", every)
    monkeypatch.setattr(verbs, "_ADDED", set())
    code, out, err = ecluse("hello")
    assert (code, out) == (0, "hello\n")
    assert "the verbs of broken are missing" in err
    assert ecluse("hello") == (0, "hello\n", "")


def test_no_verb_takes_the_name_of_another(table):
    with pytest.raises(ValueError, match="two verbs 'cut'"):
        add_verbs(Verb("cut", lambda: None, "cut", "another cut"))


def test_nothing_imports_the_entry_and_the_entry_imports_no_verb():
    """The circle that was: fast_path -> main -> commands -> fast_path."""
    from ecluse.cli import commands, offline_checks, queries

    def imported(module):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{one.name}" for one in node.names)
                yield node.module

    for module in (main, parser, verbs, fast_args, commands, queries, offline_checks):
        assert "ecluse.cli.fast_path" not in set(imported(module)), module
