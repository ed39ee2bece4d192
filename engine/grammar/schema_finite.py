"""Whether a JSON schema has a value that ends: an object that requires one like itself has none.

The least set of schemas with such a value is found step by step; the library would follow the others without end. A
keyword that it does not look at is taken to be satisfiable. Plain functions: any thread.
"""

from typing import Any

from engine.grammar.schema_walk import Place, Subschema, resolve

MAX_PASSES = 50


def endless_place(nodes: list[Subschema], root: dict[str, Any]) -> Place | None:
    """Where the root has no value that ends; None if it has one. ``nodes`` are all that it can reach."""
    finite: set[int] = set()
    for _ in range(MAX_PASSES):
        before = len(finite)
        for node in reversed(nodes):  # the innermost stand last
            if id(node.schema) not in finite and _is_finite(node.schema, root, finite):
                finite.add(id(node.schema))
        if id(root) in finite:
            return None
        if len(finite) == before:
            return next(node.place for node in nodes if id(node.schema) not in finite)
    return None


def _is_finite(schema: dict[str, Any], root: dict[str, Any], finite: set[int]) -> bool:
    parts = [*_list(schema.get("allOf"))]
    if isinstance(schema.get("$ref"), str):
        parts.append(resolve(schema["$ref"], root))
    if not all(_ends(part, finite) for part in parts):
        return False
    alternatives = [_list(schema.get(word)) for word in ("anyOf", "oneOf")]
    if any(options and not any(_ends(option, finite) for option in options) for options in alternatives):
        return False
    kind = schema.get("type")
    if kind == "object":
        return all(_ends(_property(schema, name), finite) for name in _list(schema.get("required")))
    if kind == "array" and isinstance(schema.get("minItems"), int) and schema["minItems"] > 0:
        return not isinstance(schema.get("items"), dict) or "prefixItems" in schema or _ends(schema["items"], finite)
    return True


def _ends(schema: Any, finite: set[int]) -> bool:
    return not isinstance(schema, dict) or id(schema) in finite


def _property(schema: dict[str, Any], name: Any) -> Any:
    properties = schema.get("properties")
    return properties.get(name) if isinstance(properties, dict) and isinstance(name, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
