"""JSON schemas of every kind of keyword: what their masks admit is what the schema says."""

import json
import random
from typing import Any

import jsonschema
import pytest

from engine.errors import GrammarError
from engine.grammar.compiler import GrammarCompiler
from engine.grammar.schema import ITEM_SEPARATOR, KEY_SEPARATOR
from engine.grammar.spec import GrammarKind, GrammarSpec
from tests.engine.grammars import TinyVocabulary, fits, walk

OBJECT = {"type": "object", "additionalProperties": False}
PET = {
    "$defs": {
        "Cat": OBJECT | {"properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]},
        "Dog": OBJECT | {"properties": {"kind": {"const": "dog"}, "good": {"type": "boolean"}}, "required": ["kind"]},
    },
    "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    "discriminator": {"propertyName": "kind"},
}
TREE = OBJECT | {
    "properties": {"name": {"enum": ["a", "b"]}, "inner": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}},
    "required": ["name"],
}
ENDLESS = {
    "$defs": {
        "n": OBJECT | {"properties": {"k": {"enum": [1, 2]}, "n": {"$ref": "#/$defs/n"}}, "required": ["k", "n"]}
    },
    "anyOf": [{"$ref": "#/$defs/n"}, {"type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 1}],
}
# Each: the schema, answers in it, answers not in it.
CASES: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "true": (True, [1, "a", None, {"a": []}], []),
    "empty": ({}, [{"a": [1, {"b": None}]}, False], []),
    "any object": ({"type": "object"}, [{}, {"a": [1]}], [[], 1]),
    "string": ({"type": "string"}, ["", "a\nb\u00e9\u4e2d\U0001f600\"\\"], [1, None]),
    "integer": ({"type": "integer"}, [0, -7, 123], [1.5, "1", True]),
    "number": ({"type": "number"}, [0, 1.5, -2.25], ["1"]),
    "boolean": ({"type": "boolean"}, [True, False], [0, "true"]),
    "null": ({"type": "null"}, [None], [0]),
    "types": ({"type": ["string", "null"]}, ["a", None], [1]),
    "enum": ({"enum": ["a", "ab", 1, None, [1, {"x": "y"}]]}, ["a", "ab", 1, None, [1, {"x": "y"}]], ["b", 2]),
    "const": ({"const": {"a": [1, "x"]}}, [{"a": [1, "x"]}], [{"a": [1]}]),
    "required": (OBJECT | {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]},
                 [{"a": 1}, {"a": 1, "b": "x"}], [{"b": "x"}, {"a": "1"}, {"a": 1, "c": 2}]),
    "order of keys": (OBJECT | {"properties": {"b": {"const": 1}, "a": {"const": 2}}, "required": ["a", "b"]},
                      [{"b": 1, "a": 2}], [{"a": 2, "b": 1}]),
    "map": ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"x": 1, "y": 2}], [{"x": "1"}]),
    "patterns of names": (OBJECT | {"patternProperties": {"^x_": {"type": "integer"}}}, [{"x_a": 1}], [{"a": 1}]),
    "names of a map": ({"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "null"}},
                       [{"a": None}], [{"a": 1}]),
    "names of a list": ({"type": "object", "propertyNames": {"enum": ["a.b", "c"]}, "additionalProperties": {"type": "integer"}},
                        [{"a.b": 1, "c": 2}], [{"axb": 1}, {"c": "x"}]),
    "names of a pattern": ({"type": "object", "propertyNames": {"pattern": "^[a-c]+$"}}, [{"ab": 1}], [{"d": 1}]),
    "items": ({"type": "array", "items": {"type": "boolean"}}, [[], [True, False]], [[1]]),
    "number of items": ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
                        [[1], [1, 2]], [[], [1, 2, 3]]),
    "items by place": ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
                       [["a", 1]], [["a"], ["a", 1, 2], [1, "a"]]),
    "older items by place": ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"type": "string"}],
                              "additionalItems": {"type": "integer"}}, [["a", 1, 2]], [["a", "b"]]),
    "length": ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "\u00e9\u4e2dc"], ["a", "abcd"]),
    "pattern": ({"type": "string", "pattern": "^[a-f]{2}-\\d+$"}, ["ab-12"], ["ab-", "xab-1"]),
    "loose pattern": ({"type": "string", "pattern": "ab", "maxLength": 6}, ["ab", "xabx"], ["ba"]),
    "date": ({"type": "string", "format": "date"}, ["2024-02-29"], ["2024-13-01"]),
    "uuid": ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123"]),
    "unknown format": ({"type": "string", "format": "color"}, ["red"], [1]),
    "range": ({"type": "integer", "minimum": -3, "maximum": 12}, [-3, 0, 12], [-4, 13]),
    "open range": ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5], [0, 1, 1.5]),
    "zod's integer": ({"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
                      [9007199254740991], [9007199254740992]),
    "multiple": ({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}, [0, 35], [3]),
    "alternatives": ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, [1, None], ["a"]),
    "exclusive by type": ({"oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "null"}}]}, [1, [None]], ["a"]),
    "exclusive by constant": (PET, [{"kind": "cat", "lives": 9}, {"kind": "dog"}], [{"kind": "cat", "good": True}]),
    "all of": ({"allOf": [OBJECT | {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                          {"properties": {"a": {"minimum": 3}}}]}, [{"a": 3}], [{"a": 2}]),
    "reference": ({"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}, [[1]], [["a"]]),
    "older definitions": ({"definitions": {"a/b": {"type": "null"}}, "$ref": "#/definitions/a~1b"}, [None], [1]),
    "recursion": (TREE, [{"name": "a"}, {"name": "a", "inner": [{"name": "b", "inner": []}]}], [{"name": "c"}]),
    "nothing else": (OBJECT | {"properties": {"a": {}}, "unevaluatedProperties": False}, [{"a": 1}], [{"b": 1}]),
    "keywords that say nothing": ({"type": "array", "uniqueItems": False, "not": False, "items": {"type": "null"}},
                                  [[None, None]], [1]),
    "annotations": ({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "http://x.y/z", "title": "t",
                     "description": "d",
                     "default": 1, "examples": [1], "deprecated": True, "readOnly": True, "$comment": "c", "x-other": 3,
                     "type": "integer"}, [1], ["a"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary() -> TinyVocabulary:
    return TinyVocabulary()


@pytest.fixture(scope="module")
def compiler(vocabulary: TinyVocabulary) -> GrammarCompiler:
    return vocabulary.compiler()


def spec_of(schema: Any) -> GrammarSpec:
    return GrammarSpec(GrammarKind.JSON_SCHEMA, json.dumps(schema))


def canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(ITEM_SEPARATOR, KEY_SEPARATOR))


@pytest.mark.parametrize("name", CASES)
def test_the_masks_admit_what_the_schema_says(name: str, compiler: GrammarCompiler, vocabulary: TinyVocabulary) -> None:
    schema, good, bad = CASES[name]
    grammar = compiler.compile(spec_of(schema))
    assert [value for value in good if not fits(grammar, canonical(value), vocabulary)] == []
    assert [value for value in bad if fits(grammar, canonical(value), vocabulary)] == []


@pytest.mark.parametrize("name", CASES)
def test_every_random_answer_validates(name: str, compiler: GrammarCompiler, vocabulary: TinyVocabulary) -> None:
    schema = CASES[name][0]
    grammar, rng = compiler.compile(spec_of(schema)), random.Random(name)
    answers = [answer for _ in range(8) if (answer := walk(grammar, vocabulary, rng)) is not None]
    assert answers
    for answer in answers:
        jsonschema.validate(json.loads(answer.decode()), schema)


def test_there_is_one_way_to_write_an_answer(compiler: GrammarCompiler, vocabulary: TinyVocabulary) -> None:
    schema = {
        "type": "array",
        "items": {"type": "integer"},
        "x-guidance": {"whitespace_flexible": True, "lenient": True},
    }
    grammar = compiler.compile(spec_of(schema))
    assert fits(grammar, "[1, 2]", vocabulary)
    for other in ("[1,2]", "[1,  2]", "[ 1, 2]", " [1, 2]", "[1, 2] ", "[1, 2\n]"):
        assert not fits(grammar, other, vocabulary)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "properties.a.uniqueItems"),
        ({"type": "array", "items": {"not": {"type": "null"}}}, "items.not"),
        ({"$defs": {"x": {"if": {"const": 1}, "then": False}}, "$ref": "#/$defs/x"}, r"\$defs.x.if"),
        ({"properties": {"a": {"type": "string", "pattern": "(?=a)b"}}}, "properties.a.pattern: .*expression"),
        ({"properties": {"a": {"type": "integer", "multipleOf": 0}}}, "properties.a.multipleOf"),
        ({"properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}}, "required": ["a"], "type": "object"},
         "properties.a.minimum: no value"),
        ({"type": "object", "required": ["a"], "properties": {"b": False}, "additionalProperties": False}, "required: no value"),
        ({"type": "object", "properties": {"empty": {"type": "integer", "minimum": 3, "maximum": 2}, "a": {"pattern": "("}}},
         "properties.a.pattern"),
        ({"type": "strin"}, "type"),
        ({"anyOf": [{"type": "null"}, {"properties": {"a": {"$ref": "#/nowhere"}}}]}, "refers to nothing"),
        ({"$ref": "http://example.com/s"}, "refers to nothing"),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, "oneOf: it is supported only where"),
        ({"$ref": "#"}, "no value can satisfy it"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "without end"),
        (ENDLESS, "without end"),
        (False, "no value can satisfy it"),
        ({"enum": []}, "enum: no value"),
        ([], "an object or a boolean"),
        ({"const": "\ud800"}, "no JSON"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_keyword_and_its_place(schema: Any, place: str, compiler: GrammarCompiler) -> None:
    with pytest.raises(GrammarError, match=place) as caught:
        compiler.compile(spec_of(schema))
    assert caught.value.code == "invalid_json_schema"
    assert len(str(caught.value)) < 300


def test_a_refusal_is_short_and_one_line(compiler: GrammarCompiler) -> None:
    schema: Any = {"not": {}}
    for at in range(40):
        schema = {"properties": {f"long name\n{at}" * 9: schema}}
    with pytest.raises(GrammarError) as caught:
        compiler.compile(spec_of(schema))
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "options",
    [
        [{"type": "integer"}, {"type": "number"}],
        [{"const": 1}, {"const": 1.0}],
        [{"properties": {"a": {"const": 1}}, "type": "object"}, {"properties": {"a": {"const": 2}}, "type": "object"}],
        [{"enum": [[1]]}, {"enum": [[1.0]]}],
        [{"type": "string", "minLength": 1}, {"type": "string", "maxLength": 3}],
        [{}, {"type": "null"}],
    ],
)
def test_options_that_overlap_are_no_alternatives(options: list[Any], compiler: GrammarCompiler) -> None:
    with pytest.raises(GrammarError, match="oneOf"):
        compiler.compile(spec_of({"oneOf": options}))
