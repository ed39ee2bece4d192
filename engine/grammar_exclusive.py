"""Whether the options of a ``oneOf`` exclude each other: then it is an ``anyOf``, which a grammar can hold.

It proves by types, constants and required properties, through ``$ref``, ``allOf`` and ``anyOf``; what it cannot
prove is not claimed. Plain functions: any thread.
"""

import json
from itertools import combinations
from typing import Any

from engine.grammar_schema_walk import resolve

_MAX_DEPTH = 6
_MAX_PAIRS = 20_000
_TYPES = frozenset(["null", "boolean", "number", "string", "array", "object"])


def exclude_each_other(options: list[Any], root: dict[str, Any]) -> bool:
    """No value can fit two of the options."""
    if len(options) ** 2 > _MAX_PAIRS:
        return False
    return all(_apart(a, b, root, depth=_MAX_DEPTH) for a, b in combinations(options, 2))


def _apart(a: Any, b: Any, root: dict[str, Any], *, depth: int) -> bool:
    if a is False or b is False:
        return True
    if depth == 0 or not isinstance(a, dict) or not isinstance(b, dict):
        return False
    if not _types(a) & _types(b) or _constants_apart(a, b) or _objects_apart(a, b, root, depth=depth):
        return True
    return _part_apart(a, b, root, depth=depth - 1) or _part_apart(b, a, root, depth=depth - 1)


def _part_apart(a: dict[str, Any], b: dict[str, Any], root: dict[str, Any], *, depth: int) -> bool:
    """A part of ``a`` that must hold excludes ``b``; or each alternative of ``a`` does."""
    parts = [part for part in a.get("allOf", []) if isinstance(part, dict)] if isinstance(a.get("allOf"), list) else []
    if isinstance(a.get("$ref"), str):
        parts.append(resolve(a["$ref"], root))
    if any(_apart(part, b, root, depth=depth) for part in parts if part is not None):
        return True
    alternatives = [a[word] for word in ("anyOf", "oneOf") if isinstance(a.get(word), list)]
    return any(all(_apart(option, b, root, depth=depth) for option in options) for options in alternatives)


def _types(schema: dict[str, Any]) -> frozenset[str]:
    """The types that are possible; an integer is a number."""
    constants = _constants(schema)
    if constants is not None:
        return frozenset(map(_type_of, constants))
    named = schema.get("type")
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else None
    return _TYPES if names is None else frozenset("number" if name == "integer" else name for name in names)


def _type_of(text: str) -> str:
    value = json.loads(text)
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    return "string" if isinstance(value, str) else "number"


def _constants(schema: dict[str, Any]) -> set[str] | None:
    """The values that are possible, where scalars are listed: as JSON texts, since 1 == True in Python."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list) or any(isinstance(value, list | dict) for value in values):
        return None
    return {_text(value) for value in values}


def _text(value: Any) -> str:
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _constants_apart(a: dict[str, Any], b: dict[str, Any]) -> bool:
    values_a, values_b = _constants(a), _constants(b)
    return values_a is not None and values_b is not None and not values_a & values_b


def _objects_apart(a: dict[str, Any], b: dict[str, Any], root: dict[str, Any], *, depth: int) -> bool:
    """Both are objects, and a property that one of them requires cannot be in both."""
    if _types(a) != {"object"} or _types(b) != {"object"}:
        return False
    names = {name for schema in (a, b) for name in _required(schema)}
    return any(_apart(_property(a, name), _property(b, name), root, depth=depth - 1) for name in sorted(names))


def _required(schema: dict[str, Any]) -> list[str]:
    names = schema.get("required")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _property(schema: dict[str, Any], name: str) -> Any:
    properties = schema.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    return True if "patternProperties" in schema else schema.get("additionalProperties", True)
