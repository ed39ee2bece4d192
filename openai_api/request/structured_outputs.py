"""From the request's fields to the one thing that its answer must be, compiled.

Owns which fields say the same, and how each becomes a ``GrammarSpec``; knows nothing of how a
grammar is obeyed. Whatever is more than a look at the fields is done in a worker thread: a grammar
may take seconds.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import GrammarError
from engine.grammar.compiler import Grammar
from engine.grammar.forms import StructuralTag, choice_spec, grammar_spec, structural_tag_spec
from engine.grammar.spec import MAX_GRAMMAR_BYTES, GrammarKind, GrammarSpec
from openai_api.app_state import AppState
from openai_api.errors import ApiError, invalid_value
from openai_api.request.stricter_schemas import stricter
from openai_api.request.structured_output_fields import (
    ResponseFormat,
    StructuralTags,
    StructuredOutputFields,
    StructuredOutputs,
)

# Asked for JSON without a schema, a small model says "{}" and has done its duty.
_ANY_OBJECT: dict[str, Any] = {"type": "object", "minProperties": 1}


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must be. ``param`` is the field that says so."""

    spec: GrammarSpec
    param: str


@dataclass(frozen=True, slots=True)
class _Said:
    """A field that says what an answer must be, and what reads its value."""

    param: str
    value: Any
    read: Callable[[Any], GrammarSpec]


async def compiled(body: StructuredOutputFields, app_state: AppState, *, lead: str = "") -> Grammar | None:
    """What the answer to ``body`` must be, ``None`` if nothing; ``lead`` as in ``GrammarSpec``.

    Raises:
        ApiError: 400, the fields contradict each other, or no answer can be promised to be so.
    """
    if not any(getattr(body, name) is not None for name in StructuredOutputFields.model_fields):
        return None

    def compile_it() -> Grammar | None:
        constraint = constraint_of(body)
        return None if constraint is None else compile_constraint(constraint, app_state, lead=lead)

    return await app_state.off_loop.compile(compile_it)


async def check_closes(grammar: Grammar | None, app_state: AppState, *, room: int) -> None:
    """Whether ``x_close`` can be promised of an answer that has room for so many tokens.

    Raises:
        ApiError: 400, nothing says what the answer must be, or it cannot end in time.
    """
    if grammar is None:
        raise invalid_value("x_close", "'x_close' needs a field that says what the answer must be.")
    try:
        await app_state.off_loop.compile(lambda: grammar.check_closes(room))
    except GrammarError as error:
        raise _named(error, error.param or "x_close") from None


def compile_constraint(constraint: Constraint, app_state: AppState, *, lead: str) -> Grammar:
    """On a worker thread. Raises: ApiError 400 naming the field."""
    try:
        return app_state.engine.compile_grammar(replace(constraint.spec, lead=lead))
    except GrammarError as error:
        raise _named(error, constraint.param) from None


def constraint_of(body: StructuredOutputFields) -> Constraint | None:
    """What the answer to ``body`` must be; several fields may say the same.

    Raises:
        ApiError: 400, the first field that contradicts another, or has a value that cannot be.
    """
    first: Constraint | None = None
    for said in _all_said(body):
        try:
            each = Constraint(said.read(said.value), said.param)
        except GrammarError as error:
            raise _named(error, said.param) from None
        if first is not None and each.spec != first.spec:
            message = f"'{first.param}' and '{each.param}' both say what the answer must be; give one of them."
            raise invalid_value(each.param, message)
        first = first or each
    return first


def _named(error: GrammarError, param: str) -> ApiError:
    return ApiError(400, f"Invalid value for '{param}': {error}", code=error.code, param=param)


def _all_said(body: StructuredOutputFields) -> Iterator[_Said]:
    if body.response_format is not None:
        yield from _in_response_format(body.response_format)
    if body.structured_outputs is not None:
        yield from _in_structured_outputs(body.structured_outputs)
    for name, read in _READ_FIELD.items():
        if (value := getattr(body, name)) is not None:
            yield _Said(name, value, read)


def _in_structured_outputs(fields: StructuredOutputs) -> Iterator[_Said]:
    given = (
        _Said("json", fields.json_, _json_spec),
        _Said("regex", fields.regex, _regex_spec),
        _Said("choice", fields.choice, choice_spec),
        _Said("grammar", fields.grammar, grammar_spec),
        _Said("json_object", _ANY_OBJECT if fields.json_object else None, _json_spec),
        _Said("structural_tag", fields.structural_tag, _tags_spec),
    )
    for said in given:
        if said.value is not None:
            yield replace(said, param=f"structured_outputs.{said.param}")


def _in_response_format(fields: ResponseFormat) -> Iterator[_Said]:
    """What the members say that go with the type; one that does not is an error."""
    given = _members(fields)
    for param in given:
        if param.removeprefix("response_format.") not in _MEMBERS_OF_TYPE[fields.type]:
            raise invalid_value(param, f"'{param}' does not go with 'response_format.type' '{fields.type}'.")
    if fields.type == "structural_tag":
        _require(given, "response_format.structures", "response_format.triggers")
        yield _Said("response_format.structures", fields, _tags_spec)
    elif fields.type == "regex":
        _require(given, "response_format.value")
        yield _Said("response_format.value", fields.value, _regex_spec)
    elif not given and fields.type == "json_schema":
        _require(given, "response_format.json_schema.schema")
    elif not given and fields.type != "text":
        yield _Said("response_format.type", _ANY_OBJECT, _json_spec)
    else:
        for param, value in given.items():
            yield _Said(param, value, _json_spec)


_SCHEMA_MEMBERS = frozenset({"json_schema.schema", "schema", "value"})
_MEMBERS_OF_TYPE: Mapping[str, frozenset[str]] = {
    "text": frozenset(),
    "json_object": _SCHEMA_MEMBERS,
    "json_schema": _SCHEMA_MEMBERS,
    "json": _SCHEMA_MEMBERS,
    "regex": frozenset({"value"}),
    "structural_tag": frozenset({"structures", "triggers"}),
}


def _members(fields: ResponseFormat) -> dict[str, Any]:
    """What is given of the members that may constrain, by path."""
    members = {
        "json_schema.schema": None if fields.json_schema is None else fields.json_schema.schema_,
        "schema": fields.schema_,
        "value": fields.value,
        "structures": fields.structures,
        "triggers": fields.triggers,
    }
    return {f"response_format.{name}": value for name, value in members.items() if value is not None}


def _require(given: Mapping[str, Any], *params: str) -> None:
    for param in params:
        if param not in given:
            message = f"Missing required parameter: '{param}'."
            raise ApiError(400, message, code="missing_required_parameter", param=param)


def _json_spec(schema: Any) -> GrammarSpec:
    """Keys stay in their order, which is that of the answer's keys."""
    if not isinstance(schema, dict):
        raise GrammarError("a schema is an object.", code="invalid_json_schema")
    text = _compact(stricter(schema))
    return GrammarSpec(GrammarKind.JSON_SCHEMA, text if len(text.encode()) <= MAX_GRAMMAR_BYTES else _compact(schema))


def _compact(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _regex_spec(value: Any) -> GrammarSpec:
    if not isinstance(value, str):
        raise GrammarError("a regular expression is a string.")
    return GrammarSpec(GrammarKind.REGEX, value)


def _tags_spec(fields: StructuralTags | ResponseFormat) -> GrammarSpec:
    tags = [StructuralTag(each.begin, _compact(stricter(each.schema_)), each.end) for each in fields.structures or ()]
    return structural_tag_spec(tags, fields.triggers or ())


_READ_FIELD: Mapping[str, Callable[[Any], GrammarSpec]] = {
    "guided_json": _json_spec,
    "guided_regex": _regex_spec,
    "guided_choice": choice_spec,
    "guided_grammar": grammar_spec,
    "json_schema": _json_spec,
    "regex": _regex_spec,
    "grammar": grammar_spec,
    "ebnf": grammar_spec,
}
