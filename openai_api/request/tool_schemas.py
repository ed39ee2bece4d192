"""The schema of a tool's arguments as the grammar of a call needs it.

Owns what is left out of it, the words for people, which may be most of it; and what is added:
arguments are an object, and one whose keys are named has no others. What is added only narrows, so
what obeys it obeys the tool's own schema. Pure; any thread.
"""

from collections.abc import Mapping
from typing import Any

from openai_api.request.stricter_schemas import stricter

_FOR_PEOPLE = frozenset("title description default examples $schema $comment deprecated readOnly writeOnly".split())
_BY_NAME = frozenset("properties patternProperties $defs definitions dependentSchemas".split())
_PARTS = frozenset(
    "items additionalItems additionalProperties not if then else contains propertyNames anyOf oneOf allOf prefixItems "
    "unevaluatedProperties unevaluatedItems".split()
)
_NO_KEYS: dict[str, Any] = {"type": "object", "properties": {}, "required": []}


def arguments_schema(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """What arguments must be. ``parameters`` is what the client sent, an object's schema."""
    schema: dict[str, Any] = _bare(dict(parameters or {}))
    if "type" not in schema and not schema.keys() & {"$ref", "allOf", "anyOf", "oneOf"}:
        schema = {"type": "object", **schema}
    if isinstance(schema.get("type"), list):
        schema["type"] = "object"
    if all(name in _NO_KEYS and value == _NO_KEYS[name] for name, value in schema.items()):
        return {**schema, "additionalProperties": False}
    return stricter(schema)


def _bare(schema: Any) -> Any:
    """Without words for people; what is data, such as ``enum``, stays."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _bare_part(name, value) for name, value in schema.items() if name not in _FOR_PEOPLE}


def _bare_part(keyword: str, value: Any) -> Any:
    if keyword in _BY_NAME and isinstance(value, dict):
        return {name: _bare(part) for name, part in value.items()}
    return _bare(value) if keyword in _PARTS else value
