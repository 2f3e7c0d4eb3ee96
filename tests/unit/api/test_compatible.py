"""Clients of version 0.1 understand this version: nothing that its description promised is gone.

`openapi_0_1.json` was written by commit 8898f10. Fields may be added. A field that
goes, changes its type or is not always there any more breaks a client.
"""

import copy
import json
from pathlib import Path

from ecluse.api import openapi

BEFORE = json.loads(Path(__file__).with_name("openapi_0_1.json").read_text(encoding="utf-8"))
_PROSE = {"description", "title", "summary", "examples", "example"}


def broken(before, after, place="", *, answered=True):
    """Give the places where `after` breaks what `before` promised."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in _PROSE or place == "/info":
                continue
            where = f"{place}/{key}"
            if key not in after:
                yield where
            elif key == "required" and isinstance(value, list):
                # Answers still give all that they gave; requests want no more than they wanted.
                missing = set(value) - set(after[key]) if answered else set(after[key]) - set(value)
                yield from (f"{where}/{name}" for name in sorted(missing))
            else:
                asked = answered and key != "requestBody" and not key.endswith("Request")
                yield from broken(value, after[key], where, answered=asked)
    elif isinstance(before, list) and isinstance(after, list):
        for number, one in enumerate(before):
            if number >= len(after) or (not isinstance(one, dict | list) and one not in after):
                yield f"{place}/{number}"
            elif isinstance(one, dict | list):
                yield from broken(one, after[number], f"{place}/{number}", answered=answered)
    elif before != after:
        yield place


def test_nothing_that_was_promised_is_gone():
    assert list(broken(BEFORE, json.loads(openapi.document_text()))) == []


def test_a_field_that_goes_or_changes_is_seen():
    schemas = BEFORE["components"]["schemas"]
    gone, other = copy.deepcopy(BEFORE), copy.deepcopy(BEFORE)
    name = "Status"
    del gone["components"]["schemas"][name]["properties"]["levels"]
    other["components"]["schemas"][name]["properties"]["in_step"] = {"type": "string"}
    assert schemas[name]["properties"]["levels"]
    assert any("levels" in place for place in broken(BEFORE, gone))
    assert any("in_step" in place for place in broken(BEFORE, other))
