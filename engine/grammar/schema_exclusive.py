"""Whether the options of a ``oneOf`` exclude each other: then it is an ``anyOf``, which a grammar can hold.

It proves by types, constants and required properties, through ``$ref``, ``allOf`` and ``anyOf``; what it cannot
prove is not claimed. Plain functions: any thread.
"""

import json
from itertools import combinations
from typing import Any

from engine.grammar.schema_walk import resolve

MAX_DEPTH = 6
MAX_COMPARISONS = 50_000  # some 100 ms; hostile references lead to more than can be counted
_TYPES = frozenset(["null", "boolean", "number", "string", "array", "object"])


def exclude_each_other(options: list[Any], root: dict[str, Any]) -> bool:
    """No value can fit two of the options."""
    proof = _Proof(root)
    return all(proof.apart(a, b, MAX_DEPTH) for a, b in combinations(options, 2))


class _Proof:
    """That two schemas have no value in common; what takes too long is not proven."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._num_comparisons = 0

    def apart(self, a: Any, b: Any, depth: int) -> bool:
        self._num_comparisons += 1
        if a is False or b is False:
            return True
        if depth == 0 or self._num_comparisons > MAX_COMPARISONS or not isinstance(a, dict) or not isinstance(b, dict):
            return False
        if not _types(a) & _types(b) or _constants_apart(a, b) or self._objects_apart(a, b, depth):
            return True
        return self._part_apart(a, b, depth - 1) or self._part_apart(b, a, depth - 1)

    def _part_apart(self, a: dict[str, Any], b: dict[str, Any], depth: int) -> bool:
        """A part of ``a`` that must hold excludes ``b``; or each alternative of ``a`` does."""
        parts = _list(a, "allOf")
        if isinstance(a.get("$ref"), str):
            parts = [*parts, resolve(a["$ref"], self._root)]
        if any(self.apart(part, b, depth) for part in parts):
            return True
        alternatives = [_list(a, word) for word in ("anyOf", "oneOf")]
        return any(options and all(self.apart(option, b, depth) for option in options) for options in alternatives)

    def _objects_apart(self, a: dict[str, Any], b: dict[str, Any], depth: int) -> bool:
        """Both are objects, and a property that one of them requires cannot be in both."""
        if _types(a) != {"object"} or _types(b) != {"object"}:
            return False
        names = dict.fromkeys([*_list(a, "required"), *_list(b, "required")])
        return any(
            self.apart(_property(a, name), _property(b, name), depth - 1) for name in names if isinstance(name, str)
        )


def _list(schema: dict[str, Any], word: str) -> list[Any]:
    value = schema.get(word)
    return value if isinstance(value, list) else []


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


def _property(schema: dict[str, Any], name: str) -> Any:
    properties = schema.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    return True if "patternProperties" in schema else schema.get("additionalProperties", True)
