"""Objects that say which keys they have get no others, as OpenAI, vLLM and llama.cpp have it.

JSON Schema allows any further key where nothing forbids it, and a small model makes use of that
until its tokens end. Closing an object can only make an answer stricter: what it is then obeys the
client's schema too. Where that is not plain from the schema, nothing is closed. Knows no grammar.
Pure; any thread may call it.
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
_SCHEMAS = ("items", "additionalItems", "additionalProperties", "contains")
_LISTS_OF_SCHEMAS = ("items", "prefixItems", "anyOf", "allOf")
_MAPS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")


def with_closed_objects(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` with ``additionalProperties: false`` where an object lists its keys and says no more."""
    if any(_is_unplain(each) for each in _schemas(schema)):
        return schema
    closed = _closed(schema)
    assert isinstance(closed, dict)
    return closed


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


def _closed(schema: object) -> object:
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    for name, value in schema.items():
        if name in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            closed[name] = {key: _closed(part) for key, part in value.items()}
        elif name in _LISTS_OF_SCHEMAS and isinstance(value, list):
            closed[name] = [_closed(part) for part in value]
        elif name in _SCHEMAS:
            closed[name] = _closed(value)
    if _lists_its_keys(schema):
        closed["additionalProperties"] = False
    return closed


def _lists_its_keys(schema: Mapping[str, Any]) -> bool:
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not properties or schema.keys() & _SAY_MORE:
        return False
    return isinstance(required, list) and all(isinstance(name, str) and name in properties for name in required)
