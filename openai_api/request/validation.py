"""From JSON to a request model; from pydantic's findings to an ``ApiError`` in our words.

Owns the words of the errors; knows nothing of what a field does. Only the first finding is told,
with the field and the range it may have. Nothing of pydantic's text, and no value of the client's,
goes into a message. Pure: the event loop calls it, or a worker thread for a large body.
"""

import re
from collections.abc import Mapping
from typing import TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from engine.sampling_params import Setting
from openai_api.errors import MAX_PARAM_CHARS, ApiError, invalid_value
from openai_api.request.neutral_values import ONLY_NULL, in_words
from openai_api.request.request_field import RequestField, Support
from openai_api.request.strict_model import StrictModel

_PART_TYPE = re.compile(r"content\[\d+\]\.type$")

M = TypeVar("M", bound=StrictModel)

# By pydantic's name of the finding; the braces are filled from its context.
EXPECTED: Mapping[str, str] = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "literal_error": "one of {expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number from {ge}",
    "less_than_equal": "a number up to {le}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "prompt_type": "a string, an array of token ids, or an array of either",
    "prompt_count": "1 to {most} prompts",
    "choice_value": "a string, true or false",
    "object_type": "an object, or its JSON as a string",
    "json_text": "an object, or its JSON as a string, but this string is no JSON: {why}",
    "tool_type": "'function', or 'namespace' for a group of functions; this server has no tools of its own",
    "includable": "one of {names}",
    "too_many_fields": "at most {most} fields",
    "format_type": "'json' or a JSON schema, which is an object",
    "duration": "a number of seconds, or a duration such as '5m'",
}
# Fields that take one string in place of an array.
EXPECTED_LIST: Mapping[str, str] = {
    "stop": "a string or an array of strings",
    "content": "a string or an array of text parts",
    "input": "a string or an array of messages and calls",
    "instructions": "a string or an array of text parts",
    "output": "a string or an array of text parts",
    "system": "a string or an array of text blocks",
}


def validate(value: object, model: type[M], fields: tuple[RequestField, ...]) -> M:
    """``value`` as a ``model``; ``fields`` tell a field that is refused from one that nobody has.

    Raises:
        ApiError: 400, naming the field as ``messages[0].content``.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    raise _to_api_error(first, model, fields)


def _to_api_error(finding: ErrorDetails, model: type[StrictModel], fields: tuple[RequestField, ...]) -> ApiError:
    param = _path(finding["loc"])
    match finding["type"]:
        case "extra_forbidden":
            return _not_a_field(param, model, fields)
        case "missing":
            message = f"Missing required parameter: '{param}'."
            return ApiError(400, message, code="missing_required_parameter", param=param)
        case "json_text":
            message = f"Invalid value for '{param}': expected {_expected(finding)}."
            return ApiError(400, message, code="invalid_json_schema", param=param)
        case "unsupported" | "literal_error" if message := _unsupported(finding, param):
            return ApiError(400, message, code="unsupported_parameter", param=param)
    if not param:
        return invalid_value(None, f"Invalid request body: expected {_expected(finding)}.")
    setting = _setting(param, model)
    expected = _expected(finding) if setting is None else setting.allowed
    return invalid_value(param, f"Invalid value for '{param}': expected {expected}.")


def _unsupported(finding: ErrorDetails, param: str) -> str:
    """The words for a type that exists elsewhere, none for another wrong word."""
    if finding["type"] == "unsupported":
        return f"Unsupported value for '{param}': only {finding['ctx']['only']}."
    is_part = _PART_TYPE.search(param)
    return "Only content parts of type 'text' are supported; the model reads nothing else." if is_part else ""


def _innermost(param: str, model: type[StrictModel]) -> type[StrictModel] | None:
    """The model that a field is of, also one within an object, as ``options.temperature`` is; within
    arrays nothing is looked for.
    """
    outer, _, inner = param.partition(".")
    if not inner:
        return model
    kinds = get_args(model.model_fields[outer].annotation) if outer in model.model_fields else ()
    parts = (each for each in kinds if isinstance(each, type) and issubclass(each, StrictModel))
    return next((_innermost(inner, part) for part in parts), None)


def _setting(param: str, model: type[StrictModel]) -> Setting | None:
    inner = _innermost(param, model)
    field = None if inner is None else inner.model_fields.get(param.rpartition(".")[2])
    return next((each for each in field.metadata if isinstance(each, Setting)), None) if field else None


def _not_a_field(param: str, model: type[StrictModel], fields: tuple[RequestField, ...]) -> ApiError:
    name = re.sub(r"\[\d+\]", "[]", param)
    inner = _innermost(name, model)
    neutral = None if inner is None else inner.neutral.get(name.rpartition(".")[2])
    if neutral is not None or any(field.name == name and field.support is Support.REFUSED for field in fields):
        message = f"Unsupported parameter: '{param}'; only {in_words(neutral or ONLY_NULL)} can be given."
        return ApiError(400, message, code="unsupported_parameter", param=param)
    return ApiError(400, f"Unknown parameter: '{param}'.", code="unknown_parameter", param=param)


def _path(location: tuple[str | int, ...]) -> str:
    """``("messages", 0, "name")`` as ``messages[0].name``, cut to what an error body has room for."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return path.removeprefix(".")[:MAX_PARAM_CHARS]


def _expected(finding: ErrorDetails) -> str:
    kind, location = finding["type"], finding["loc"]
    if kind == "list_type" and location[-1] in EXPECTED_LIST:
        return EXPECTED_LIST[str(location[-1])]
    context = {name: _plain(value) for name, value in finding.get("ctx", {}).items()}
    return EXPECTED.get(kind, "another value").format(**context)


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
