"""A document against a model: the value, or a fault with line and column for each thing wrong."""

from collections.abc import Iterator
from datetime import date
from itertools import islice
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ecluse.config.messages import did_you_mean, listed, shown
from ecluse.config.models import ServiceModel
from ecluse.config.yaml_scalars import Broken, Unclear, describe
from ecluse.config.yaml_tree import Document, Items, Loc
from ecluse.faults import Fault

M = TypeVar("M", bound=BaseModel)

MAX_FAULTS = 1000
"""So many are listed; files and lists are read no further where there are more."""

_KINDS = {
    "bool_type": "true or false",
    "tuple_type": "a list, such as [ ... ] or lines that begin with '- '",
}


def validate(model: type[M], document: Document, loc: Loc = ()) -> tuple[M | None, list[Fault]]:
    """Validate the part of a document at `loc`. The value is None when anything in it is wrong."""
    node = document.at(loc)
    if node is None:
        return None, []
    try:
        return model.model_validate(node.plain()), []
    except ValidationError as error:
        # Of a list of thousands, each at fault, nobody reads more than the reader of the files will
        # list.
        details = islice(error.errors(include_url=False, include_input=False), MAX_FAULTS + 1)
        return None, [
            fault for detail in details for fault in _faults(model, document, loc, detail)
        ]


def service_at(document: Document, loc: Loc) -> tuple[ServiceModel | None, list[Fault]]:
    """Validate one service, with the rules that concern two of its keys."""
    model, faults = validate(ServiceModel, document, loc)
    node = document.at(loc)
    content = node.content if node else None
    if isinstance(content, dict):
        if not {"zones", "hosts"} & set(content):
            faults.append(
                document.fault(loc, "neither 'zones' nor 'hosts'", "who inside may use the service")
            )
        destinations = content["destinations"].node.content if "destinations" in content else ()
        for index in range(len(destinations) if isinstance(destinations, Items) else 0):
            faults += _ways(document, (*loc, "destinations", index), destinations[index].content)
    return (None if faults else model), faults


def _ways(document: Document, loc: Loc, destination: object) -> list[Fault]:
    if not isinstance(destination, dict):
        return []
    if "to" in destination and "from" in destination:
        return [
            document.fault(
                (*loc, "from"), "'to' and 'from' in one destination", "two destinations", key=True
            )
        ]
    if "to" not in destination and "from" not in destination:
        return [document.fault(loc, "neither 'to' nor 'from'", "one of the two")]
    return []


def _faults(
    model: type[BaseModel], document: Document, base: Loc, detail: ErrorDetails
) -> Iterator[Fault]:
    if detail["type"] == "twice":
        for place, wrong in detail.get("ctx", {})["twice"][: MAX_FAULTS + 1]:
            yield document.fault((*base, *detail["loc"], place), wrong, "each once")
    elif fault := _fault(model, document, base, detail):
        yield fault


def _fault(
    model: type[BaseModel], document: Document, base: Loc, detail: ErrorDetails
) -> Fault | None:
    """Say one of pydantic's errors in words. None when the place already has its fault."""
    loc = (*base, *detail["loc"])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys(model, detail["loc"])
        word = str(loc[-1])
        return document.fault(
            loc,
            f"the key {shown(word)} is unknown{did_you_mean(word, known)}",
            listed(known),
            key=True,
        )
    if kind == "missing":
        return document.fault(
            loc[:-1], f"the key '{loc[-1]}' is missing", _needs(model, detail["loc"])
        )
    if kind == "wrong":
        return document.fault(loc, context["wrong"], context["expected"])
    value = document.nearest(loc).plain()
    if isinstance(value, Broken):
        return None
    expected = context["expected"] if kind == "kind" else _KINDS.get(kind)
    if expected is None:
        keys = _keys(model, (*detail["loc"], ""))
        expected = f"a mapping with the keys {', '.join(keys)}"
    return document.fault(loc, describe(value), expected + _quotes(value, expected))


def _quotes(value: object, expected: str) -> str:
    """Give the same value in quotes, where a person wrote text that YAML takes for something else."""
    if expected not in {"a text", "a name"}:
        return ""
    match value:
        case Unclear():
            written = value.text
        case bool():
            written = str(value).lower()
        case int() | date():
            written = str(value)
        case _:
            return ""
    return f": write it in quotes, {shown(written).replace(chr(39), chr(34))}"


def _keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """Give the keys that the mapping around `loc` may have."""
    for step in loc[:-1]:
        if isinstance(step, str):
            inner = next((f for key, f in _fields(model).items() if key == step), None)
            found = _model_in(inner) if inner is not None else None
            if found is None:
                return []
            model = found
    return list(_fields(model))


def _fields(model: type[BaseModel]) -> dict[str, object]:
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Find the model in `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _needs(model: type[BaseModel], loc: Loc) -> str:
    """Say which keys the mapping around `loc` can't do without."""
    for_all = _keys(model, loc)
    return f"it among {', '.join(for_all)}" if len(for_all) > 1 else ""
