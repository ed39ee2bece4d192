"""The request fields that say what an answer must be: OpenAI's, and those of vLLM, SGLang and llama.cpp.

Owns their names, types and notes, and the values inside of them that ask for nothing. What becomes
of them is in ``structured_outputs``. Knows no engine. Immutable; large bodies are parsed in a
worker thread.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from openai_api.request.long_json import TooManyValuesError
from openai_api.request.neutral_values import NO_LIST, NO_TEXT, OFF, Values
from openai_api.request.strict_json import NotJsonError, json_value
from openai_api.request.strict_model import StrictModel

MAX_TEXT_CHOICES = 4096
MAX_TEXT_CHOICE_CHARS = 4096
MAX_STRUCTURES = 128
# Of JSON within a string of the body.
_MAX_TEXT_DEPTH = 64
_MAX_TEXT_VALUES = 65_536

# Whoever sends one of these allows a space as well as nothing, so all that is written here fits.
ANY_OF_OUR_WHITESPACE: Values = (
    *("", " ?", " *", "[ ]?", "[ ]*", "\\s?", "\\s*", "[\\s]*", "[\\n ]?", "[ \\n]?", "[\\n ]*", "[ \\n]*"),
    *("[\\n\\t ]*", "[ \\n\\t]*", "[ \\t\\n]*", "[ \\n\\r\\t]*", "[ \\t\\n\\r]*", "[\\x20\\x0A\\x0D\\x09]*"),
)

STRUCTURED_OUTPUT_NOTES: Mapping[str, str] = {
    "response_format": "what the answer is; `finish_reason` `length` tells of one that is not complete",
    "response_format.type": "`text`, `json_object` (any JSON object that is not empty), or `json_schema`; also `json` "
    "and `regex` with a `value`, as TGI has them, and `structural_tag`, as SGLang has it",
    "response_format.json_schema": "required for `json_schema`, unless its members stand beside `type`",
    "response_format.json_schema.name": "string, for people",
    "response_format.json_schema.description": "string, for people",
    "response_format.json_schema.schema": "required: an object, or its JSON as a string",
    "response_format.json_schema.strict": "boolean; the answer obeys the schema in any case",
    "response_format.schema": "the schema, for `json_object` too, as llama.cpp has it",
    "response_format.name": "as `response_format.json_schema.name`",
    "response_format.description": "as `response_format.json_schema.description`",
    "response_format.strict": "as `response_format.json_schema.strict`",
    "response_format.value": "a schema or a regular expression",
    "response_format.structures": "for `structural_tag`, as in `structured_outputs.structural_tag`",
    "response_format.triggers": "for `structural_tag`, as in `structured_outputs.structural_tag`",
    "structured_outputs": "one of the following, as vLLM has them",
    "structured_outputs.json": "a JSON schema: an object, or its JSON as a string",
    "structured_outputs.regex": "the answer is a match of this regular expression, from its beginning to its end",
    "structured_outputs.choice": f"the answer is one of these 1 to {MAX_TEXT_CHOICES:,} strings, each of 1 to "
    f"{MAX_TEXT_CHOICE_CHARS:,} characters",
    "structured_outputs.grammar": "as `grammar`",
    "structured_outputs.json_object": "boolean: any JSON object that is not empty",
    "structured_outputs.structural_tag": f"an object of `structures` (up to {MAX_STRUCTURES} of `begin`, `schema`, "
    "`end`) and `triggers`, or its JSON as a string: free text, in which what begins with a trigger is one of them",
    "guided_json": "another name of `structured_outputs.json`",
    "guided_regex": "another name of `structured_outputs.regex`",
    "guided_choice": "another name of `structured_outputs.choice`",
    "guided_grammar": "another name of `structured_outputs.grammar`",
    "json_schema": "another name of `structured_outputs.json`",
    "regex": "another name of `structured_outputs.regex`",
    "grammar": "a grammar in llama.cpp's GBNF or in Lark, which the whole answer follows",
    "ebnf": "another name of `grammar`",
    "x_close": "boolean, with one of these fields, without `logprobs`: the answer is complete within `max_tokens`; when "
    "no more is left of them than it takes, it goes to its end",
}
"""By name what each field does; of all the fields that constrain, one can be given."""
NO_EFFECT_NOTES: Mapping[str, str] = {
    "structured_outputs.disable_any_whitespace": "boolean; JSON has one form here",
    "guided_decoding_backend": "anything; the answer is the same",
}
REFUSED_NOTES: Mapping[str, str] = {
    "structured_outputs.whitespace_pattern": "JSON has one form here; a pattern that allows a space as well as nothing "
    "is taken",
    "structured_outputs.disable_additional_properties": "say so in the schema",
    "guided_whitespace_pattern": "as `structured_outputs.whitespace_pattern`",
}


def _as_object(value: object) -> object:
    """Some clients send the JSON of an object as a string."""
    if isinstance(value, str):
        try:
            value = json_value(value, max_depth=_MAX_TEXT_DEPTH, max_values=_MAX_TEXT_VALUES)
        except (NotJsonError, TooManyValuesError) as error:
            raise PydanticCustomError("json_text", "no JSON", {"why": str(error) or "it is too long"}) from None
    if not isinstance(value, dict):
        raise PydanticCustomError("object_type", "an object or its JSON as a string")
    return value


def _as_object_or_text(value: object) -> object:
    if not isinstance(value, dict | str):
        raise PydanticCustomError("object_type", "an object or its JSON as a string")
    return value


_OBJECT_OR_TEXT = WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}]})
JsonSchema = Annotated[dict[str, Any], PlainValidator(_as_object), _OBJECT_OR_TEXT]
"""An object, where the client may have sent its JSON as a string."""
Choices = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHOICE_CHARS)]],
    Field(min_length=1, max_length=MAX_TEXT_CHOICES, fail_fast=True),
]


class TaggedStructure(StrictModel):
    """In a free text: behind ``begin`` comes JSON of the schema, then ``end``."""

    begin: Annotated[str, Field(min_length=1)]
    schema_: JsonSchema = Field(alias="schema")
    end: str = ""


Structures = Annotated[list[TaggedStructure], Field(min_length=1, max_length=MAX_STRUCTURES, fail_fast=True)]
Triggers = Annotated[
    list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_STRUCTURES, fail_fast=True)
]


class StructuralTags(StrictModel):
    """vLLM's and SGLang's: what begins with a trigger is one of the structures."""

    type: Literal["structural_tag"] = "structural_tag"
    structures: Structures
    triggers: Triggers


class NamedSchema(StrictModel):
    """A JSON schema in OpenAI's envelope."""

    name: str | None = None
    description: str | None = None
    schema_: JsonSchema | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(NamedSchema):
    """In the forms of OpenAI's chat and of its responses, of llama.cpp, SGLang and TGI."""

    type: Literal["text", "json_object", "json_schema", "json", "regex", "structural_tag"]
    json_schema: NamedSchema | None = None
    value: Annotated[dict[str, Any] | str, PlainValidator(_as_object_or_text), _OBJECT_OR_TEXT] | None = None
    structures: Structures | None = None
    triggers: Triggers | None = None


_NEUTRAL_OF_VLLM: Mapping[str, Values] = {
    "json": NO_TEXT,
    "regex": NO_TEXT,
    "choice": NO_LIST,
    "grammar": NO_TEXT,
    "json_object": OFF,
    "whitespace_pattern": ANY_OF_OUR_WHITESPACE,
    "disable_additional_properties": OFF,
    "structural_tag": NO_TEXT,
}


class StructuredOutputs(StrictModel):
    """vLLM's: one of the fields."""

    neutral = _NEUTRAL_OF_VLLM

    json_: JsonSchema | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Annotated[StructuralTags, BeforeValidator(_as_object)] | None = None
    disable_any_whitespace: bool | None = None


class StructuredOutputFields(StrictModel):
    """What chat and text completions have of them."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonSchema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    json_schema: JsonSchema | None = None
    regex: str | None = None
    grammar: str | None = None
    ebnf: str | None = None
    x_close: bool | None = None
