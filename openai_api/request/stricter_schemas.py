"""A schema made stricter where a small model would run on until its tokens end.

An object that lists its keys gets no others, as with OpenAI, vLLM and llama.cpp; an integer without
a bound gets that of JavaScript's. What obeys the stricter schema obeys the client's too; where that
is not plain, nothing is changed. Knows no grammar. Pure; any thread may call it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

# Of an object that they speak about, these may need keys beyond ``properties``, or count on them.
_SAY_MORE = frozenset(
    "additionalProperties unevaluatedProperties patternProperties propertyNames minProperties dependentRequired "
    "dependentSchemas dependencies $ref $dynamicRef $recursiveRef allOf anyOf oneOf not if then else".split()
)
# With one of these anywhere a stricter part can make the whole laxer, or impossible.
_UNPLAIN = frozenset(
    "$dynamicRef $recursiveRef oneOf not if dependentSchemas dependencies unevaluatedProperties $id id $anchor".split()
)
MAX_SAFE_INTEGER = 2**53 - 1
_SCHEMAS = ("items", "additionalItems", "additionalProperties", "contains")
_LISTS_OF_SCHEMAS = ("items", "prefixItems", "anyOf", "allOf")
_MAPS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")


def stricter(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` with ``additionalProperties: false`` where an object lists its keys and says no more,
    and bounds of integers.
    """
    if any(_is_unplain(each) for each in _schemas(schema)):
        return schema
    changed = _stricter(schema)
    assert isinstance(changed, dict)
    return changed


def _is_unplain(schema: Mapping[str, Any]) -> bool:
    """It forbids, chooses by exclusion, or joins what it says of an object with what others say."""
    keywords = schema.keys()
    joins = keywords & {"$ref", "anyOf", "allOf"}
    parts = schema.get("allOf")
    return (
        bool(keywords & _UNPLAIN)
        or (isinstance(parts, list) and len(parts) > 1)
        or len(joins) > 1
        or bool(joins and keywords & {"properties", "required", "minProperties"})
    )


def _schemas(schema: object) -> Iterator[dict[str, Any]]:
    """``schema`` and all schemas in it; what is data, such as ``enum``, is none."""
    if not isinstance(schema, dict):
        return
    yield schema
    for name in _SCHEMAS:
        yield from _schemas(schema.get(name))
    for name in _LISTS_OF_SCHEMAS:
        if isinstance(parts := schema.get(name), list):
            for part in parts:
                yield from _schemas(part)
    for name in _MAPS_OF_SCHEMAS:
        if isinstance(named := schema.get(name), dict):
            for part in named.values():
                yield from _schemas(part)


def _stricter(schema: object) -> object:
    if not isinstance(schema, dict):
        return schema
    changed = dict(schema)
    for name, value in schema.items():
        if name in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            changed[name] = {key: _stricter(part) for key, part in value.items()}
        elif name in _LISTS_OF_SCHEMAS and isinstance(value, list):
            changed[name] = [_stricter(part) for part in value]
        elif name in _SCHEMAS:
            changed[name] = _stricter(value)
    if _lists_its_keys(schema):
        changed["additionalProperties"] = False
    return changed | _missing_bounds(schema)


def _lists_its_keys(schema: Mapping[str, Any]) -> bool:
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not properties or schema.keys() & _SAY_MORE:
        return False
    return isinstance(required, list) and all(isinstance(name, str) and name in properties for name in required)


def _missing_bounds(schema: Mapping[str, Any]) -> dict[str, int]:
    """Bounds of an integer that has none; an odd schema is left to who reads it."""
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or "integer" not in kinds or "number" in kinds:
        return {}
    if schema.keys() & {"enum", "const", "multipleOf"}:
        return {}
    low = [schema[name] for name in ("minimum", "exclusiveMinimum") if name in schema]
    high = [schema[name] for name in ("maximum", "exclusiveMaximum") if name in schema]
    if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in (*low, *high)):
        return {}
    if any(abs(bound) >= MAX_SAFE_INTEGER for bound in (*low, *high)):
        return {}
    minimum = {} if low else {"minimum": -MAX_SAFE_INTEGER}
    return minimum if high else {**minimum, "maximum": MAX_SAFE_INTEGER}
