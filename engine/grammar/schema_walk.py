"""The places of a JSON schema that are schemas: from the root, through keywords and through ``$ref``.

Owns which keyword holds schemas, and how a JSON pointer is followed. Plain functions: any thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any] | bool
Place = tuple[str | int, ...]

_ONE = (
    "items", "additionalItems", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies")
DEFINITIONS = ("$defs", "definitions")


@dataclass(frozen=True, slots=True)
class Subschema:
    """A schema within a schema; ``place`` leads to it from the root."""

    place: Place
    schema: dict[str, Any]


def reachable(root: dict[str, Any]) -> list[Subschema]:
    """The root and all that it refers to, each once: a definition that nothing refers to is not part of it."""
    found: list[Subschema] = []
    seen: set[int] = set()
    waiting = [Subschema((), root)]
    if not all(ref.startswith("#/") or ref == "#" for ref in refs_of(root)):
        waiting += _named(Subschema((), root), DEFINITIONS)  # by a name of their own, which is not followed here
    while waiting:
        node = waiting.pop()
        if id(node.schema) in seen:
            continue
        seen.add(id(node.schema))
        found.append(node)
        waiting += reversed([*children(node), *_referred(node, root)])
    return found


def children(node: Subschema) -> Iterator[Subschema]:
    """The schemas directly within, but for definitions."""
    for word, value in node.schema.items():
        if word in _ONE and isinstance(value, dict):
            yield Subschema((*node.place, word), value)
        elif word in _MANY and isinstance(value, list):
            yield from (
                Subschema((*node.place, word, at), item) for at, item in enumerate(value) if isinstance(item, dict)
            )
    yield from _named(node, _NAMED)


def _named(node: Subschema, words: tuple[str, ...]) -> Iterator[Subschema]:
    for word in words:
        value = node.schema.get(word)
        if isinstance(value, dict):
            yield from (
                Subschema((*node.place, word, name), item) for name, item in value.items() if isinstance(item, dict)
            )


def _referred(node: Subschema, root: dict[str, Any]) -> Iterator[Subschema]:
    ref = node.schema.get("$ref")
    if isinstance(ref, str):
        target = resolve(ref, root)
        if isinstance(target, dict):
            yield Subschema(tuple(_steps(ref)), target)


def resolve(ref: str, root: dict[str, Any]) -> Any:
    """What a pointer within the schema leads to; None if it leads nowhere, or is no pointer."""
    if ref != "#" and not ref.startswith("#/"):
        return None
    value: Any = root
    for step in _steps(ref):
        if isinstance(value, list):
            value = value[int(step)] if step.isdecimal() and int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _steps(ref: str) -> list[str]:
    return [unquote(step).replace("~1", "/").replace("~0", "~") for step in ref.split("/")[1:]]


def refs_of(value: Any) -> Iterator[str]:
    """Each ``$ref`` written anywhere in it."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            ref = item.get("$ref")
            if isinstance(ref, str):
                yield ref
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
