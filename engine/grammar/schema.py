"""JSON schemas as the grammar library reads them: same answers, fewer refusals, no option of the user's.

Owns what is ignored (annotations, unknown formats), what is refused with its place, and what is written another way
because the library knows only that one. Knows no library; what the library itself refuses is told by
``engine.grammar.schema_faults``. Plain functions: any thread.
"""

import json
from collections.abc import Iterator
from typing import Any

from engine.errors import GrammarError
from engine.grammar.schema_exclusive import exclude_each_other
from engine.grammar.schema_finite import endless_place
from engine.grammar.schema_walk import Place, Schema, Subschema, reachable, refs_of

# Compact JSON as the model knows it; no other whitespace is possible.
ITEM_SEPARATOR = ", "
KEY_SEPARATOR = ": "
OPTIONS = {"whitespace_flexible": False, "item_separator": ITEM_SEPARATOR, "key_separator": KEY_SEPARATOR}

MAX_DEPTH = 120  # of brackets; the library's own reader ends at 128

# Any other format is an annotation, as in JSON Schema's own default.
FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"])
# Keywords of any draft that constrain and are not supported. An unknown word is an annotation.
UNSUPPORTED = (
    "not", "if", "contains", "propertyNames", "dependencies", "dependentRequired", "dependentSchemas",
    "uniqueItems", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef",
)  # fmt: skip
_DRAFTS = ("draft-04", "draft-06", "draft-07", "draft/2019-09", "draft/2020-12")
_IN_PLACE = ("$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas")
_NAMES_ONLY = frozenset(["type", "title", "description", "$comment", "minLength"])


def library_schema(text: str) -> dict[str, Any]:
    """The schema of a JSON text, as the library takes it.

    Raises:
        GrammarError: it is no schema, nests too deeply, or holds a keyword that constrains and is not supported.
    """
    return rewritten(read_schema(text))


def read_schema(text: str) -> Schema:
    """Raises: GrammarError if the text is no JSON or no schema."""
    try:
        schema = json.loads(text, parse_constant=_no_constant)
        json.dumps(schema, ensure_ascii=False).encode()  # no lone surrogate
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise refusal((), "it is no JSON") from None
    return check_schema(schema)


def check_schema(schema: Any) -> Schema:
    """``schema``, if it is one. Raises: GrammarError."""
    if not isinstance(schema, dict | bool):
        raise refusal((), "it must be an object or a boolean")
    if _is_deeper(schema, MAX_DEPTH):
        raise _too_deep()
    return schema


def rewritten(schema: Schema) -> dict[str, Any]:
    """``schema``, changed in place. Raises: GrammarError as ``library_schema``."""
    if isinstance(schema, bool):
        if not schema:
            raise refusal((), "no value can satisfy it")
        schema = {}
    _drop_identity(schema)
    nodes = reachable(schema)
    for node in nodes:
        _rewrite(node, schema)
    place = endless_place(nodes, schema)
    if place is not None:
        raise refusal(place, "no value can satisfy it, since each would be without end")
    return schema | {"x-guidance": OPTIONS}


def refusal(place: Place, words: str) -> GrammarError:
    """``words`` go on after the place."""
    where = ".".join(map(str, place))
    if len(where) > 160:
        where = f"{where[:80]}...{where[-77:]}"
    shown = "".join(c if c.isprintable() else "?" for c in where)
    return GrammarError(
        f"the JSON schema cannot be used: {f'{shown}: ' if shown else ''}{words}.", code="invalid_json_schema"
    )


def _too_deep() -> GrammarError:
    return refusal((), f"it nests more than {MAX_DEPTH} brackets")


def _is_deeper(value: Any, limit: int) -> bool:
    level: list[Any] = [value] if isinstance(value, dict) else []
    for _ in range(limit):
        inner = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in inner if isinstance(item, dict | list)]
    return bool(level)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _drop_identity(schema: dict[str, Any]) -> None:
    """Names of the schema itself: the library would look for them. They are kept where a ``$ref`` may use them."""
    draft = schema.get("$schema")
    if not isinstance(draft, str) or not any(known in draft for known in _DRAFTS):
        schema.pop("$schema", None)
    if all(ref.startswith("#") for ref in refs_of(schema)):
        for word in ("$id", "id"):
            schema.pop(word, None)


def _rewrite(node: Subschema, root: dict[str, Any]) -> None:
    schema = node.schema
    if schema.get("format", "date") not in FORMATS:
        del schema["format"]
    _rewrite_property_names(schema)
    if schema.get("unevaluatedProperties") is False and not any(word in schema for word in _IN_PLACE):
        del schema["unevaluatedProperties"]
        schema.setdefault("additionalProperties", False)
    for word in list(_neutral(schema)):
        del schema[word]
    if _excludes(schema.get("oneOf"), root) and "anyOf" not in schema:
        # The order of keywords is the order of properties: the new word stands where the old one stood.
        items = [("anyOf" if word == "oneOf" else word, value) for word, value in schema.items()]
        schema.clear()
        schema.update(items)
    for word in UNSUPPORTED:
        if word in schema:
            raise refusal((*node.place, word), "this keyword is not supported")


def _excludes(options: Any, root: dict[str, Any]) -> bool:
    return isinstance(options, list) and bool(options) and exclude_each_other(options, root)


def _neutral(schema: dict[str, Any]) -> Iterator[str]:
    """Keywords that constrain nothing as they stand."""
    if schema.get("uniqueItems") is False:
        yield "uniqueItems"
    for word in ("unevaluatedItems", "unevaluatedProperties", "propertyNames", "not", "dependencies",
                 "dependentRequired", "dependentSchemas"):  # fmt: skip
        if word in schema and schema[word] in ((False,) if word == "not" else (True, {})):
            yield word
    if "if" in schema and "then" not in schema and "else" not in schema:
        yield "if"


def _rewrite_property_names(schema: dict[str, Any]) -> None:
    """Names of a map by a pattern or a list: the library knows them as ``patternProperties``."""
    names = schema.get("propertyNames")
    if not isinstance(names, dict) or names.get("type", "string") != "string":
        return
    rule = {word: value for word, value in names.items() if word not in _NAMES_ONLY or word == "minLength"}
    if not rule or rule == {"minLength": 0}:
        del schema["propertyNames"]
        return
    pattern = _pattern_of(rule)
    if pattern is None or "properties" in schema or "patternProperties" in schema:
        return
    del schema["propertyNames"]
    schema["patternProperties"] = {pattern: schema.get("additionalProperties", True)}
    schema["additionalProperties"] = False


def _pattern_of(rule: dict[str, Any]) -> str | None:
    if list(rule) == ["pattern"] and isinstance(rule["pattern"], str):
        return rule["pattern"]
    if list(rule) == ["enum"] and isinstance(rule["enum"], list) and all(isinstance(v, str) for v in rule["enum"]):
        return f"^({'|'.join(map(_literal, rule['enum']))})$"
    if list(rule) == ["minLength"] and isinstance(rule["minLength"], int):
        return f"^(?s:.{{{rule['minLength']},}})$"
    return None


def _literal(text: str) -> str:
    return "".join(c if c.isalnum() or c in "_ " or ord(c) > 127 else f"\\x{ord(c):02x}" for c in text)
