"""Which objects of a schema are closed and which integers bounded, and that whatever is left obeys the client's own schema."""

import itertools
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from openai_api.request.stricter_schemas import MAX_SAFE_INTEGER, stricter

A = {"properties": {"a": {"type": "string"}}}
CLOSED = {**A, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        (A, CLOSED),
        ({**A, "required": ["a"], "title": "t"}, {**A, "required": ["a"], "title": "t", "additionalProperties": False}),
        ({"items": A}, {"items": CLOSED}),
        ({"items": [A, True], "additionalItems": A}, {"items": [CLOSED, True], "additionalItems": CLOSED}),
        ({"$ref": "#/$defs/x", "$defs": {"x": A}}, {"$ref": "#/$defs/x", "$defs": {"x": CLOSED}}),
        ({"anyOf": [A, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        ({"allOf": [A], "default": A}, {"allOf": [CLOSED], "default": A}),
        ({"additionalProperties": A}, {"additionalProperties": CLOSED}),
        (
            {"properties": {"properties": A, "not": A}},
            {"properties": {"properties": CLOSED, "not": CLOSED}, "additionalProperties": False},
        ),
    ],
    ids=json.dumps,
)
def test_what_lists_its_keys_is_closed(schema: dict[str, Any], closed: dict[str, Any]) -> None:
    before = json.dumps(schema)
    assert stricter(schema) == closed
    assert json.dumps(schema) == before
    assert stricter(closed) == closed


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"properties": {}},
        {"properties": "a"},
        {"properties": {"a": 5}, "required": "a"},
        {**A, "required": ["a", "b"]},
        {**A, "required": [["a"]]},
        {**A, "additionalProperties": True},
        {**A, "additionalProperties": {}},
        {**A, "patternProperties": {"^x": {}}},
        {**A, "minProperties": 2},
        {**A, "propertyNames": {"pattern": "x"}},
        {**A, "unevaluatedProperties": False},
        {**A, "dependentRequired": {"a": ["b"]}},
        {**A, "anyOf": [{"required": ["b"]}, {"properties": {"c": A}}]},
        {**A, "$ref": "#/$defs/x", "$defs": {"x": {"properties": {"b": {}}}}},
        {"allOf": [A, {"properties": {"b": {}}}]},
        {"oneOf": [A, {"properties": {"b": {}}, "required": ["b"]}]},
        {"not": A},
        {"if": A, "then": A, "else": A},
        {"enum": [A], "const": A, "default": A, "examples": [A]},
        {"items": {"items": {"not": A}, "contains": A}},
        {"properties": {"b": {"oneOf": [A, A]}, "c": A}},
    ],
    ids=json.dumps,
)
def test_what_says_more_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert stricter(schema) == schema


PARTS: list[dict[str, Any]] = [
    A,
    {"properties": {"b": A}},
    {"properties": {"a": {}}, "required": ["a"]},
    {"required": ["b"]},
    {"additionalProperties": {"properties": {"b": {}}}},
    {"minProperties": 2},
    {"$ref": "#/$defs/x"},
    {"type": "integer", "maximum": 5},
    {"type": ["integer", "null"], "minimum": 5},
]
VALUES: list[Any] = [
    1,
    9,
    2**70,
    -(2**70),
    "",
    {},
    {"a": 1},
    {"a": ""},
    {"b": {"a": ""}},
    {"b": {"a": "", "b": 1}},
    {"a": 1, "b": {}},
    {"c": {"b": 1}},
]


@pytest.mark.parametrize(
    ("schema", "bounds"),
    [
        ({"type": "integer"}, (-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)),
        ({"type": ["null", "integer"], "default": None}, (-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)),
        ({"type": "integer", "minimum": 0}, (0, MAX_SAFE_INTEGER)),
        ({"type": "integer", "exclusiveMinimum": 0.5}, (None, MAX_SAFE_INTEGER)),
        ({"type": "integer", "maximum": 0}, (-MAX_SAFE_INTEGER, 0)),
        ({"type": "integer", "exclusiveMaximum": 9}, (-MAX_SAFE_INTEGER, None)),
        ({"type": "integer", "minimum": 1, "maximum": 2}, (1, 2)),
        ({"type": "integer", "minimum": 2**60}, (2**60, None)),
        ({"type": "integer", "exclusiveMaximum": True}, (None, None)),
        ({"type": "integer", "multipleOf": 3}, (None, None)),
        ({"type": "integer", "enum": [2**60]}, (None, None)),
        ({"type": "integer", "const": 2**60}, (None, None)),
        ({"type": ["integer", "number"]}, (None, None)),
        ({"type": "number"}, (None, None)),
        ({"type": "string"}, (None, None)),
        ({"type": {"a": "integer"}}, (None, None)),
    ],
    ids=json.dumps,
)
def test_an_integer_without_a_bound_gets_one(schema: dict[str, Any], bounds: tuple[int | None, int | None]) -> None:
    changed = stricter({"items": schema})["items"]
    assert (changed.get("minimum"), changed.get("maximum")) == bounds
    assert {name: changed[name] for name in schema} == schema


def test_what_a_stricter_schema_allows_obeys_the_client_s() -> None:
    """All joins of two parts, under each keyword that joins, for a value as it is and in a list."""
    num_closed = 0
    for first, second in itertools.product(PARTS, PARTS):
        for joined in (
            {**first, **second},
            *({name: [first, second]} for name in ("anyOf", "allOf", "oneOf", "prefixItems")),
            *({**first, name: second} for name in ("not", "if", "items", "contains", "propertyNames")),
            {**first, "anyOf": [second]},
            {**first, "dependentSchemas": {"a": second}},
        ):
            schema = {**joined, "$defs": {"x": {"properties": {"c": {}}}}}
            closed = stricter(schema)
            num_closed += closed != schema
            own, bound = Draft202012Validator(schema), Draft202012Validator(closed)
            for value in (*VALUES, *([value] for value in VALUES)):
                assert own.is_valid(value) or not bound.is_valid(value), (schema, value)
    assert num_closed > 100
