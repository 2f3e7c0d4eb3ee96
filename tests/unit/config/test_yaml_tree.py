"""The tree of a file: places, and what is refused of YAML."""

import pytest

from ecluse.config.yaml_tree import Items, compose
from tests.unit.config.samples import NAME


def test_every_item_of_a_list_has_its_own_place():
    text = "- a\n-   b\n- [c, {d: e}]\n-\n  - f\n"
    document, _ = compose("x", text.encode())

    def walk(node):
        if isinstance(node.content, Items):
            return [walk(item) for item in node.content]
        content = node.content
        return (content if isinstance(content, str) else "d", node.line, node.column)

    assert walk(document.root) == [
        ("a", 1, 3),
        ("b", 2, 5),
        [("c", 3, 4), ("d", 3, 7)],
        [("f", 5, 5)],
    ]


@pytest.mark.parametrize("text", ["", "\n", "---\n", "---\n# nothing\n"])
def test_an_emptied_file_is_not_an_allowlist_without_services(files, text):
    files.write("allowlist.d/20-more.yaml", text)
    (fault,) = files.faults()
    assert fault.startswith("allowlist.d/20-more.yaml:")


def test_the_same_places_with_windows_line_ends_and_a_byte_order_mark(files):
    text = (
        (files.path / "site.yaml")
        .read_text()
        .replace("name: offices", "name: Offices")
        .replace("\n", "\r\n")
    )
    files.write("site.yaml", b"\xef\xbb\xbf" + text.encode())
    assert files.faults() == [f"site.yaml:8:11: 'Offices' is no name, expected {NAME}"]


SITE_CASES = {
    # what is written -> what is said of it, with its place
    "duplicate key": (
        "title: CHU d'Example",
        "site: other",
        "2:1: the key 'site' a second time, first at 1:1, expected each key once",
    ),
    "anchor": (
        "title: CHU d'Example",
        "title: &a CHU",
        "2:8: the anchor '&a', expected the value alone",
    ),
    "alias": (
        "title: CHU d'Example",
        "title: *a",
        "2:8: the alias '*a', expected the value itself",
    ),
    "tag": (
        "title: CHU d'Example",
        "title: !!python/name:os.system x",
        "2:8: the YAML tag 'tag:yaml.org,2002:python/name:os.system', expected the value alone",
    ),
    "merge key": (
        "title: CHU d'Example",
        "<<: {title: x}",
        "2:1: a merge key '<<', expected the keys themselves",
    ),
    "second document": (
        "title: CHU d'Example\n",
        "---\n",
        "2:1: a second document begins here, expected one document in a file",
    ),
    "number as key": (
        "title: CHU d'Example",
        "1: x",
        "2:1: the number 1 as a key, expected a word",
    ),
    "nesting": (
        "title: CHU d'Example",
        f"title: {'[' * 40}",
        "2:23: lists and mappings nested 16 deep, expected far fewer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SITE_CASES)
def test_faults_of_the_site(files, case):
    files.site_fault(*SITE_CASES[case], alone=case not in {"nesting", "second document"})
