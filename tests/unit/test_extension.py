"""What an extension's part of the daemon has to provide, and that each does."""

import ast
from importlib import import_module
from pathlib import Path

from ecluse.extension import ExtensionPart
from ecluse.extensions import EXTENSIONS


def test_a_part_has_what_the_protocol_asks_for():
    wanted = {name for name in vars(ExtensionPart) if not name.startswith("_")}
    for extension in EXTENSIONS:
        tree = ast.parse(Path(import_module(extension.daemon).__file__).read_text())
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        assert any(wanted <= names_of(node) for node in classes), wanted


def names_of(node: ast.ClassDef) -> set[str]:
    """Name methods and attributes that are set in `__init__`."""
    found = {
        one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return found | {
        one.attr
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)
    }
