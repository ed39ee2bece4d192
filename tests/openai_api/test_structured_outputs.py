"""The fields that say what an answer must be: one grammar from whatever spelling, or a 400 that names the field."""

import json
import threading
from typing import Any

import pytest

from engine.errors import GrammarStepError, StepError
from engine.grammar.compiler import Grammar
from engine.grammar.forms import StructuralTag, grammar_spec, structural_tag_spec
from engine.grammar.spec import MAX_GRAMMAR_BYTES, GrammarKind, GrammarSpec
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import TEXT, FakeEngine, Script
from tests.openai_api.harness import Asgi, chat_body, chunks_of, completion_body

CHAT, TEXTS = "/v1/chat/completions", "/v1/completions"
BODIES = {CHAT: chat_body(), TEXTS: completion_body()}
SCHEMA = {
    "type": "object",
    "properties": {"zeta": {"type": "string"}, "alpha": {"$ref": "#/$defs/a"}},
    "$defs": {"a": {}},
}
SCHEMA_TEXT = (
    '{"type":"object","properties":{"zeta":{"type":"string"},"alpha":{"$ref":"#/$defs/a"}},"$defs":{"a":{}},'
    '"additionalProperties":false}'
)
OF_SCHEMA = GrammarSpec(GrammarKind.JSON_SCHEMA, SCHEMA_TEXT)
ANY_OBJECT = GrammarSpec(GrammarKind.JSON_SCHEMA, '{"type":"object","minProperties":1}')
OF_REGEX = GrammarSpec(GrammarKind.REGEX, "[0-9]+")
OF_CHOICE = GrammarSpec(GrammarKind.LARK, 'start: CHOICE\nCHOICE: "a \\"b\\"" | "\u00e9\\n"')
CHOICES = ['a "b"', "\u00e9\n", 'a "b"']
GBNF = 'root ::= "yes" | "no"'
OF_GBNF = grammar_spec(GBNF)
TAGS = {
    "structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}, {"begin": "<g", "schema": {}}],
    "triggers": ["<"],
}
OF_TAGS = structural_tag_spec([StructuralTag("<f>", SCHEMA_TEXT, "</f>"), StructuralTag("<g", "{}", "")], ["<"])

SPELLINGS: list[tuple[dict[str, Any], GrammarSpec]] = [
    ({"response_format": {"type": "json_object"}}, ANY_OBJECT),
    ({"response_format": {"type": "json_object", "schema": None, "json_schema": {}}}, ANY_OBJECT),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, OF_SCHEMA),
    ({"response_format": {"type": "json_object", "schema": json.dumps(SCHEMA, indent=2)}}, OF_SCHEMA),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": SCHEMA}}},
        OF_SCHEMA,
    ),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"description": "d", "strict": None, "schema": SCHEMA},
            }
        },
        OF_SCHEMA,
    ),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA_TEXT, "strict": False}}}, OF_SCHEMA),
    ({"response_format": {"type": "json_schema", "schema": SCHEMA, "name": "p", "strict": True}}, OF_SCHEMA),
    ({"response_format": {"type": "json", "value": SCHEMA}}, OF_SCHEMA),
    ({"response_format": {"type": "json"}}, ANY_OBJECT),
    ({"response_format": {"type": "regex", "value": "[0-9]+"}}, OF_REGEX),
    ({"structured_outputs": {"json": SCHEMA, "regex": None, "choice": [], "disable_any_whitespace": True}}, OF_SCHEMA),
    ({"structured_outputs": {"json": SCHEMA_TEXT, "whitespace_pattern": "[ ]?"}}, OF_SCHEMA),
    ({"structured_outputs": {"regex": "[0-9]+", "json_object": False}}, OF_REGEX),
    ({"structured_outputs": {"choice": CHOICES}}, OF_CHOICE),
    ({"structured_outputs": {"grammar": GBNF}}, OF_GBNF),
    ({"structured_outputs": {"grammar": 'start: "a"'}}, GrammarSpec(GrammarKind.LARK, 'start: "a"')),
    ({"structured_outputs": {"json_object": True}}, ANY_OBJECT),
    ({"structured_outputs": {"structural_tag": TAGS}}, OF_TAGS),
    ({"structured_outputs": {"structural_tag": json.dumps({"type": "structural_tag", **TAGS})}}, OF_TAGS),
    ({"response_format": {"type": "structural_tag", **TAGS}}, OF_TAGS),
    ({"guided_json": SCHEMA, "guided_decoding_backend": "xgrammar:no-fallback"}, OF_SCHEMA),
    ({"guided_json": {}}, GrammarSpec(GrammarKind.JSON_SCHEMA, "{}")),
    ({"guided_regex": "[0-9]+", "guided_whitespace_pattern": "[\n ]?".encode("unicode_escape").decode()}, OF_REGEX),
    ({"guided_choice": CHOICES}, OF_CHOICE),
    ({"guided_grammar": GBNF}, OF_GBNF),
    ({"json_schema": SCHEMA}, OF_SCHEMA),
    ({"json_schema": SCHEMA_TEXT, "grammar": ""}, OF_SCHEMA),
    ({"grammar": GBNF}, OF_GBNF),
    ({"regex": "[0-9]+"}, OF_REGEX),
    ({"ebnf": GBNF}, OF_GBNF),
    ({"response_format": {"type": "json_object"}, "structured_outputs": {"json_object": True}}, ANY_OBJECT),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}, "json_schema": SCHEMA_TEXT}, OF_SCHEMA),
]


def asked(engine: FakeEngine) -> GrammarSpec | None:
    grammar = engine.calls[-1].params.grammar
    return None if grammar is None else grammar.spec


@pytest.mark.parametrize(("fields", "spec"), SPELLINGS)
def test_every_spelling(asgi: Asgi, engine: FakeEngine, fields: dict[str, Any], spec: GrammarSpec) -> None:
    for path, body in BODIES.items():
        answer = asgi.post(path, {**body, **fields})
        assert answer.status == 200, answer.body
        assert asked(engine) == spec


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "text", "json_schema": None}},
        {"response_format": {"type": "text", "json_schema": {}}},
        {"response_format": None, "structured_outputs": {"json": None, "disable_any_whitespace": False}},
        {
            "structured_outputs": {},
            "guided_choice": [],
            "grammar": "",
            "json_schema": "",
            "regex": "",
            "guided_json": None,
        },
        {"structured_outputs": {"disable_any_whitespace": True}, "guided_decoding_backend": "outlines"},
    ],
)
def test_what_asks_for_nothing(asgi: Asgi, engine: FakeEngine, fields: dict[str, Any]) -> None:
    for path, body in BODIES.items():
        assert asgi.post(path, {**body, **fields}).status == 200
        assert engine.calls[-1].params.grammar is None
    assert engine.compiled == []


@pytest.mark.parametrize(
    ("fields", "code", "param", "words"),
    [
        ({"response_format": "json_object"}, "invalid_value", "response_format", "expected an object"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type", "'json_schema'"),
        ({"response_format": {"schema": {}}}, "missing_required_parameter", "response_format.type", "Missing"),
        (
            {"response_format": {"type": "json_schema"}},
            "missing_required_parameter",
            "response_format.json_schema.schema",
            "Missing",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "p"}}},
            "missing_required_parameter",
            "response_format.json_schema.schema",
            "Missing",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "frob": 1}}},
            "unknown_parameter",
            "response_format.json_schema.frob",
            "Unknown",
        ),
        (
            {"response_format": {"type": "text", "schema": SCHEMA}},
            "invalid_value",
            "response_format.schema",
            "does not go with 'response_format.type' 'text'",
        ),
        ({"response_format": {"type": "regex", "value": {}}}, "invalid_grammar", "response_format.value", "regular"),
        ({"response_format": {"type": "regex"}}, "missing_required_parameter", "response_format.value", "Missing"),
        ({"response_format": {"type": "regex", "schema": {}}}, "invalid_value", "response_format.schema", "'regex'"),
        (
            {"response_format": {"type": "json", "value": "{"}},
            "invalid_json_schema",
            "response_format.value",
            "an object",
        ),
        (
            {"response_format": {"type": "structural_tag", "structures": TAGS["structures"]}},
            "missing_required_parameter",
            "response_format.triggers",
            "Missing",
        ),
        (
            {"response_format": {"type": "structural_tag", **TAGS, "triggers": ["<f"]}},
            "invalid_grammar",
            "response_format.structures",
            "'<g'",
        ),
        ({"grammar": 'root ::= "a'}, "invalid_grammar", "grammar", "line 1"),
        (
            {"response_format": {"type": "json_object", "schema": [1]}},
            "invalid_value",
            "response_format.schema",
            "an object",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": "{'a': 1}"}}},
            "invalid_json_schema",
            "response_format.json_schema.schema",
            "syntax error at character 1",
        ),
        ({"json_schema": '{"const": NaN}'}, "invalid_json_schema", "json_schema", "NaN"),
        ({"json_schema": '{"const": 1e999}'}, "invalid_json_schema", "json_schema", "too large"),
        ({"guided_json": '{"a": 1, "a": 2}'}, "invalid_json_schema", "guided_json", "twice"),
        ({"guided_json": '{"const": "\\ud800"}'}, "invalid_json_schema", "guided_json", "surrogate"),
        (
            {"guided_json": '{"a":' * 64 + "1" + "}" * 64 + "}"},
            "invalid_json_schema",
            "guided_json",
            "is no JSON: syntax",
        ),
        ({"guided_json": "[" * 65 + "]" * 65}, "invalid_json_schema", "guided_json", "deeper than 64"),
        ({"guided_json": "[1]"}, "invalid_value", "guided_json", "expected an object"),
        ({"guided_json": True}, "invalid_value", "guided_json", "expected an object"),
        ({"guided_regex": 5}, "invalid_value", "guided_regex", "a string"),
        ({"guided_choice": "a"}, "invalid_value", "guided_choice", "an array"),
        ({"guided_choice": ["a", ""]}, "invalid_value", "guided_choice[1]", "at least 1 char"),
        ({"guided_choice": ["a", 5]}, "invalid_value", "guided_choice[1]", "a string"),
        ({"structured_outputs": {"choice": ["a"] * 4097}}, "invalid_value", "structured_outputs.choice", "4096"),
        ({"structured_outputs": {"choice": "a"}}, "invalid_value", "structured_outputs.choice", "an array"),
        (
            {"structured_outputs": {"structural_tag": {**TAGS, "structures": [{"begin": "<f>"}]}}},
            "missing_required_parameter",
            "structured_outputs.structural_tag.structures[0].schema",
            "Missing",
        ),
        (
            {"structured_outputs": {"structural_tag": '{"type": "structural_tag", "format": {}}'}},
            "missing_required_parameter",
            "structured_outputs.structural_tag.structures",
            "Missing",
        ),
        (
            {"structured_outputs": {"json": {}, "whitespace_pattern": "[ ]"}},
            "unsupported_parameter",
            "structured_outputs.whitespace_pattern",
            "only null",
        ),
        (
            {"structured_outputs": {"json": {}, "disable_additional_properties": True}},
            "unsupported_parameter",
            "structured_outputs.disable_additional_properties",
            "only null",
        ),
        ({"structured_outputs": {"xml": "a"}}, "unknown_parameter", "structured_outputs.xml", "Unknown"),
        (
            {"structured_outputs": {"json": SCHEMA, "regex": "a"}},
            "invalid_value",
            "structured_outputs.regex",
            "'structured_outputs.json' and 'structured_outputs.regex'",
        ),
        (
            {"response_format": {"type": "json_object"}, "guided_choice": ["a"]},
            "invalid_value",
            "guided_choice",
            "'response_format.type' and 'guided_choice'",
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA, "json_schema": {"schema": {}}}},
            "invalid_value",
            "response_format.schema",
            "'response_format.json_schema.schema' and 'response_format.schema'",
        ),
        ({"grammar": GBNF, "ebnf": 'root ::= "a"'}, "invalid_value", "ebnf", "'grammar' and 'ebnf'"),
    ],
)
def test_what_cannot_be_is_named(asgi: Asgi, fields: dict[str, Any], code: str, param: str, words: str) -> None:
    for path, body in BODIES.items():
        answer = asgi.post(path, {**body, **fields})
        assert answer.status == 400
        assert (answer.error["code"], answer.error["param"]) == (code, param)
        assert words in answer.error["message"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "impossible"}}}},
            "invalid_json_schema",
            "response_format.json_schema.schema",
        ),
        ({"guided_json": {"const": "impossible"}}, "invalid_json_schema", "guided_json"),
        ({"structured_outputs": {"regex": "impossible"}}, "invalid_grammar", "structured_outputs.regex"),
        ({"structured_outputs": {"choice": ["impossible"]}}, "invalid_grammar", "structured_outputs.choice"),
        ({"grammar": "impossible"}, "invalid_grammar", "grammar"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_compiled_names_the_client_s_field(
    asgi: Asgi, engine: FakeEngine, fields: dict[str, Any], code: str, param: str, stream: bool
) -> None:
    for path, body in BODIES.items():
        answer = asgi.post(path, {**body, **fields, "stream": stream})
        assert answer.status == 400
        assert (answer.error["code"], answer.error["param"]) == (code, param)
        assert answer.error["message"] == f"Invalid value for '{param}': it is impossible."
    assert engine.calls == []


def test_a_grammar_is_compiled_in_a_thread_of_its_own(
    asgi: Asgi, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    compile_grammar = engine.compile_grammar

    def noted(spec: GrammarSpec) -> Any:
        names.append(threading.current_thread().name)
        return compile_grammar(spec)

    monkeypatch.setattr(engine, "compile_grammar", noted)
    for path, body in BODIES.items():
        assert asgi.post(path, {**body, "guided_regex": "a"}).status == 200
    assert [name.partition("_")[0] for name in names] == ["grammar", "grammar"]


def test_a_compiler_that_fails_fails_its_request_alone(
    asgi: Asgi, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_spec: GrammarSpec) -> Grammar:
        raise StepError("the library failed")

    monkeypatch.setattr(engine, "compile_grammar", broken)
    for path, body in BODIES.items():
        assert asgi.post(path, {**body, "guided_regex": "a"}).status == 500
        assert asgi.post(path, body).status == 200


def test_with_everything_else_that_can_be_asked(asgi: Asgi, engine: FakeEngine) -> None:
    common = {"n": 2, "seed": 7, "stop": ["end."], "min_tokens": 3, "response_format": {"type": "json_object"}}
    chat = {"logprobs": True, "top_logprobs": 2, "prediction": {"type": "content", "content": "Hello"}}
    for stream in (False, True):
        for path, body in ((CHAT, chat_body(**common, **chat)), (TEXTS, completion_body(**common, logprobs=2))):
            answer = asgi.post(path, {**body, "stream": stream})
            assert answer.status == 200, answer.body
            params = engine.calls[-1].params
            assert asked(engine) == ANY_OBJECT
            assert (params.n, params.seed, params.min_tokens, params.logprobs) == (2, 7, 3, 2)
    assert engine.calls[0].prediction_token_ids == tuple(engine.tokenizer.encode("Hello"))


def test_allowed_tokens_might_leave_nothing_that_may_follow(asgi: Asgi) -> None:
    for path, body in BODIES.items():
        answer = asgi.post(path, {**body, "allowed_token_ids": [70, 71], "guided_choice": ["a"]})
        assert (answer.status, answer.error["param"]) == (400, "allowed_token_ids")


def test_the_budget_ends_it_with_length(asgi: Asgi) -> None:
    body = chat_body(max_tokens=4, response_format={"type": "json_object"})
    assert asgi.post(CHAT, body).json["choices"][0]["finish_reason"] == "length"
    assert chunks_of(asgi.post(CHAT, {**body, "stream": True}).body)[-1]["choices"][0]["finish_reason"] == "length"


def test_an_echo_stands_in_front_of_what_must_be(asgi: Asgi, engine: FakeEngine) -> None:
    body = completion_body(prompt="Hi", echo=True, logprobs=0, guided_choice=["a"])
    choice = asgi.post(TEXTS, body).json["choices"][0]
    assert choice["text"] == "Hi" + TEXT
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert asked(engine) == GrammarSpec(GrammarKind.LARK, 'start: CHOICE\nCHOICE: "a"')


def test_what_a_prompt_leads_into_is_no_part_of_a_chat_s_answer(asgi: Asgi, engine: FakeEngine) -> None:
    engine.answer_lead = " "
    asgi.post(CHAT, chat_body(regex="[0-9]+"))
    assert asked(engine) == GrammarSpec(GrammarKind.REGEX, "[0-9]+", " ")
    asgi.post(TEXTS, completion_body(regex="[0-9]+"))
    assert asked(engine) == OF_REGEX


def test_a_schema_s_bytes_and_order_survive(asgi: Asgi, engine: FakeEngine) -> None:
    limits = {"minimum": -9007199254740991, "maximum": 9007199254740991, "multipleOf": 0.1}
    properties = dict.fromkeys(("z", "é", "a", "Z", "10", "9"), limits)
    asgi.post(
        CHAT, chat_body(response_format={"type": "json_schema", "json_schema": {"schema": {"properties": properties}}})
    )
    spec = asked(engine)
    assert spec is not None
    assert list(json.loads(spec.text)["properties"].items()) == list(properties.items())
    assert '"\u00e9"' in spec.text


def test_a_schema_as_long_as_can_be_is_not_made_longer(asgi: Asgi, engine: FakeEngine) -> None:
    empty = len(json.dumps({"properties": {"a": {}}, "title": ""}, separators=(",", ":")))
    for num_bytes, is_closed in ((MAX_GRAMMAR_BYTES, False), (MAX_GRAMMAR_BYTES - 100, True)):
        schema = {"properties": {"a": {}}, "title": "t" * (num_bytes - empty)}
        assert asgi.post(CHAT, chat_body(guided_json=schema)).status == 200
        spec = asked(engine)
        assert spec is not None
        assert len(spec.text) <= MAX_GRAMMAR_BYTES
        assert ("additionalProperties" in spec.text) is is_closed


def test_a_schema_may_be_as_deep_as_a_body(engine: FakeEngine) -> None:
    deep: dict[str, Any] = {}
    for _ in range(60):
        deep = {"items": deep}
    small = Asgi(engine, ServerSettings())
    assert small.post(CHAT, chat_body(guided_json=deep)).status == 200
    assert small.post(CHAT, chat_body(guided_json=json.dumps(deep))).status == 200
    deeper = {"items": {"items": {"items": {"items": deep}}}}
    assert small.post(CHAT, chat_body(guided_json=deeper)).error["code"] == "invalid_json"
    assert small.post(CHAT, chat_body(guided_json=json.dumps({"a": deeper}))).error["code"] == "invalid_json_schema"


def test_a_grammar_that_fails_while_it_is_followed_is_the_clients(asgi: Asgi, engine: FakeEngine) -> None:
    """Only an answer in the making shows that its grammar is too complex."""
    for path, body in BODIES.items():
        engine.script = Script(fail=GrammarStepError("the grammar of this answer failed: it is too complex."))
        answer = asgi.post(path, {**body, "guided_regex": "a"})
        assert (answer.status, answer.error["code"]) == (400, "invalid_grammar")
        assert "too complex" in answer.error["message"]
