"""The schema of a tool's arguments as the grammar of a call needs it.

Owns what is left out of it (words for people) and what is added: arguments are an object, and have
no keys beside those that are named, which the schema may have left open. What is added only narrows:
whatever obeys it obeys the tool's own schema. Pure; any thread.
"""

from collections.abc import Mapping
from typing import Any

_FOR_PEOPLE = frozenset(
    {"title", "description", "default", "examples", "$schema", "$comment", "deprecated", "readOnly"}
)
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_ONE = frozenset({"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"})
_SEVERAL = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_OF_SAME_OBJECT = frozenset({"allOf", "not", "if", "then", "else", "dependentSchemas"})
# Beside one of these, the keys of an object are not all known at one place.
_OPENS = frozenset(
    "allOf anyOf oneOf not if $ref patternProperties additionalProperties unevaluatedProperties dependentSchemas".split()
)


def arguments_schema(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """What arguments must be. ``parameters`` is what the client sent, an object's schema."""
    schema = _bare(dict(parameters or {}), closes=True)
    if isinstance(schema.get("type"), list):
        schema = {**schema, "type": "object"}
    if "type" not in schema and not _OPENS & schema.keys() - {"additionalProperties"}:
        schema = {"type": "object", **schema}
    return _closed(schema)


def _bare(schema: Any, *, closes: bool) -> Any:
    """Without words for people; ``closes`` is false where several schemas say something of one object."""
    if not isinstance(schema, dict):
        return schema
    bare = {
        name: _bare_part(name, value, closes=closes and name not in _OF_SAME_OBJECT)
        for name, value in schema.items()
        if name not in _FOR_PEOPLE
    }
    return _closed(bare) if closes and bare.get("properties") else bare


def _bare_part(keyword: str, value: Any, *, closes: bool) -> Any:
    if keyword in _BY_NAME and isinstance(value, dict):
        return {name: _bare(part, closes=closes) for name, part in value.items()}
    if keyword in _SEVERAL and isinstance(value, list):
        return [_bare(part, closes=closes) for part in value]
    return _bare(value, closes=closes) if keyword in _ONE else value


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """An object without keys that are not named, if that is said nowhere and forbids no key that is required."""
    if schema.get("type") != "object" or _OPENS & schema.keys():
        return schema
    unnamed = set(schema.get("required") or ()) - set(schema.get("properties") or ())
    return schema if unnamed else {**schema, "additionalProperties": False}
