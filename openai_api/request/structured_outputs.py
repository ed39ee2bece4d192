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
from engine.grammar import Grammar, GrammarKind, GrammarSpec
from openai_api.app_state import AppState
from openai_api.errors import ApiError, invalid_value
from openai_api.request.long_json import TooManyValuesError
from openai_api.request.strict_json import NotJsonError, json_value
from openai_api.request.structured_output_fields import (
    ResponseFormat,
    StructuredOutputFields,
    StructuredOutputs,
)
from openai_api.settings import ServerSettings

_ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must be. ``param`` is the field that says so."""

    spec: GrammarSpec
    param: str


async def compiled(body: StructuredOutputFields, app_state: AppState, *, lead: str = "") -> Grammar | None:
    """What the answer to ``body`` must be, ``None`` if nothing; ``lead`` as in ``GrammarSpec``.

    Raises:
        ApiError: 400, the fields contradict each other, or no answer can be promised to be so.
    """
    if not _says_something(body):
        return None

    def compile_it() -> Grammar | None:
        constraint = constraint_of(body, app_state.settings)
        return None if constraint is None else _compiled(constraint, app_state, lead)

    return await app_state.off_loop.compile(compile_it)


def constraint_of(body: StructuredOutputFields, settings: ServerSettings) -> Constraint | None:
    """What the answer to ``body`` must be; several fields may say the same.

    Raises:
        ApiError: 400, the first field that contradicts another, or has a value that cannot be.
    """
    first: Constraint | None = None
    for each in _constraints(body, settings):
        if first is not None and each.spec != first.spec:
            message = f"'{first.param}' and '{each.param}' both say what the answer must be; give one of them."
            raise invalid_value(each.param, message)
        first = first or each
    return first


def _compiled(constraint: Constraint, app_state: AppState, lead: str) -> Grammar:
    try:
        return app_state.engine.compile_grammar(replace(constraint.spec, lead=lead))
    except GrammarError as error:
        message = f"Invalid value for '{constraint.param}': {error}"
        raise ApiError(400, message, code=error.code, param=constraint.param) from None


def _says_something(body: StructuredOutputFields) -> bool:
    return any(getattr(body, name) is not None for name in StructuredOutputFields.model_fields)


def _constraints(body: StructuredOutputFields, settings: ServerSettings) -> Iterator[Constraint]:
    if body.response_format is not None:
        yield from _of_response_format(body.response_format, settings)
    if body.structured_outputs is not None:
        yield from _of_structured_outputs(body.structured_outputs, settings)
    for name, spec_of in _SPEC_OF_FIELD.items():
        value = getattr(body, name)
        if value is not None:
            yield Constraint(spec_of(value, name, settings), name)


def _of_structured_outputs(fields: StructuredOutputs, settings: ServerSettings) -> Iterator[Constraint]:
    given = {"json": fields.json_, "regex": fields.regex, "choice": fields.choice, "grammar": fields.grammar}
    for name, value in given.items():
        if value is not None:
            param = f"structured_outputs.{name}"
            yield Constraint(_SPEC_OF_FIELD[f"guided_{name}"](value, param, settings), param)
    if fields.json_object:
        yield Constraint(_of_schema(_ANY_OBJECT, "", settings), "structured_outputs.json_object")


def _of_response_format(fields: ResponseFormat, settings: ServerSettings) -> Iterator[Constraint]:
    given = _schemas(fields)
    if fields.type == "text":
        for param in given:
            raise invalid_value(param, f"'{param}' is given, but 'response_format.type' is 'text'.")
    elif fields.type == "regex":
        yield Constraint(_of_regex(_only_value(given), "", settings), "response_format.value")
    elif not given and fields.type == "json_schema":
        param = "response_format.json_schema.schema"
        raise ApiError(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    else:
        for param, schema in (given or {"response_format.type": _ANY_OBJECT}).items():
            yield Constraint(_of_schema(schema, param, settings), param)


def _schemas(fields: ResponseFormat) -> dict[str, dict[str, Any] | str]:
    """What stands where a schema may be, by the path of the field."""
    inner = None if fields.json_schema is None else fields.json_schema.schema_
    places = {
        "response_format.json_schema.schema": inner,
        "response_format.schema": fields.schema_,
        "response_format.value": fields.value,
    }
    return {param: schema for param, schema in places.items() if schema is not None}


def _only_value(given: Mapping[str, object]) -> str:
    value = given.get("response_format.value")
    if isinstance(value, str) and len(given) == 1:
        return value
    message = (
        "'response_format.type' 'regex' needs the regular expression as 'response_format.value', and nothing else."
    )
    raise invalid_value("response_format.value", message)


def _of_schema(value: Any, param: str, settings: ServerSettings) -> GrammarSpec:
    """Keys stay in their order, which is that of the answer's keys."""
    schema = _parsed(value, param, settings) if isinstance(value, str) else value
    return GrammarSpec(GrammarKind.JSON_SCHEMA, json.dumps(schema, ensure_ascii=False, separators=(",", ":")))


def _parsed(text: str, param: str, settings: ServerSettings) -> dict[str, Any]:
    try:
        schema = json_value(text, max_depth=settings.max_json_depth, max_values=settings.max_json_values)
    except (NotJsonError, TooManyValuesError) as error:
        message = f"Invalid value for '{param}': it is a string that is not valid JSON: {error}."
        raise ApiError(400, message, code="invalid_json_schema", param=param) from None
    if not isinstance(schema, dict):
        raise invalid_value(param, f"Invalid value for '{param}': expected an object, or its JSON as a string.")
    return schema


def _of_regex(value: Any, _param: str, _settings: ServerSettings) -> GrammarSpec:
    return GrammarSpec(GrammarKind.REGEX, value)


def _of_choice(value: Any, _param: str, _settings: ServerSettings) -> GrammarSpec:
    """One terminal, which the library matches several times as quickly as a rule with alternatives."""
    choices = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in dict.fromkeys(value))
    return GrammarSpec(GrammarKind.LARK, f"start: CHOICE\nCHOICE: {choices}")


def _of_grammar(value: Any, _param: str, _settings: ServerSettings) -> GrammarSpec:
    return GrammarSpec(GrammarKind.LARK, value)


_SPEC_OF_FIELD: Mapping[str, Callable[[Any, str, ServerSettings], GrammarSpec]] = {
    "guided_json": _of_schema,
    "guided_regex": _of_regex,
    "guided_choice": _of_choice,
    "guided_grammar": _of_grammar,
    "json_schema": _of_schema,
    "regex": _of_regex,
    "grammar": _of_grammar,
    "ebnf": _of_grammar,
}
