"""The OpenAPI 3.1 document, made from the route table and the types that the server itself uses."""

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter

from ecluse import __version__
from ecluse.api import problems
from ecluse.api.routes import JSON, ROUTES, Route
from ecluse.api.wire import Problem, adapter

_REF = "#/components/schemas/{model}"
_STATUSES = {
    "400": "The request is malformed",
    "403": "You may not do this; the attempt is in the audit log",
    "408": "The request came too slowly",
    "503": "Too much at once, or the same request may work in a moment",
    "default": "What failed, and what to do next",
}


@cache
def document(more: tuple[Route, ...] = ()) -> dict[str, Any]:
    """Give the whole document. It is made once, so the caller must not change it.

    more: the routes of extensions.
    """
    routes = (*ROUTES, *more)
    refs, schemas = _schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Écluse",
            "version": __version__,
            "summary": "Cut, keep, prove and roll back: "
            "the local API of a hospital's internet gate.",
            "description": "HTTP/1.1 over a UNIX socket. Who you are is what the kernel says "
            "(SO_PEERCRED): there is nothing to log in with. "
            "Readers may look and plan, operators may command, root may both.",
            "license": {"name": "GPL-2.0-or-later", "identifier": "GPL-2.0-or-later"},
        },
        "servers": [{"url": "http://localhost", "description": "the host name is ignored"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


@cache
def document_text(more: tuple[Route, ...] = ()) -> bytes:
    """Give the document as it is sent; the first time takes a while."""
    return json.dumps(document(more)).encode()


def _schemas(routes: Iterable[Route]) -> tuple[dict[Any, Any], dict[str, Any]]:
    inputs: list[tuple[Any, Any, TypeAdapter[Any]]] = []
    for route in routes:
        if route.body is not None:
            inputs.append((route.body, "validation", adapter(route.body)))
        inputs.append((route.answer, "serialization", adapter(route.answer)))
    inputs.append((Problem, "serialization", adapter(Problem)))
    refs, shared = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    return {key: schema for (key, _), schema in refs.items()}, shared["$defs"]


def _operation(route: Route, refs: dict[Any, Any]) -> dict[str, Any]:
    problem = {problems.MEDIA: {"schema": refs[Problem]}}
    path = route.path.replace("/v1", "")
    for old, new in (("/", "_"), (".", "_"), ("{", ""), ("}", "")):
        path = path.replace(old, new)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.method.lower() + path,
        "x-role": route.needs.value,
        "responses": {
            "200": {
                "description": _description(route),
                "content": {route.media: {"schema": refs[route.answer]}},
            },
            **{code: {"description": text, "content": problem} for code, text in _STATUSES.items()},
        },
    }
    if parameters := [*_path_parameters(route), *_query_parameters(route.query)]:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": refs[route.body]}},
        }
    return operation


def _description(route: Route) -> str:
    return "Each line is one such object" if "ndjson" in route.media else "Done"


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    if "{number}" not in route.path:
        return []
    return [
        {
            "name": "number",
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0},
        }
    ]


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    properties = model.model_json_schema().get("properties", {})
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in properties.items()
    ]
