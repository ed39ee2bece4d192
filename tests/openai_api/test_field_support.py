"""One table of request fields: the schemas, OpenAI's own list, the capabilities and the documentation all agree with it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params
from pydantic import BaseModel

from engine.sampling_params import SETTINGS
from openai_api.request.anthropic_fields import CountTokensRequest, MessagesRequest
from openai_api.request.decision_fields import DecisionRequest
from openai_api.request.field_tables import with_tables
from openai_api.request.fields_by_endpoint import FIELDS_BY_ENDPOINT
from openai_api.request.messages import ChatMessage, FunctionCall, TextPart, ToolCallEntry
from openai_api.request.neutral_fields import IN_ANY_REQUEST
from openai_api.request.neutral_values import ANYTHING
from openai_api.request.ollama_fields import (
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaOptions,
    PullRequest,
    ShowRequest,
)
from openai_api.request.request_field import RequestField, Support
from openai_api.request.responses_fields import ResponseInputItem, ResponsesRequest, ResponseTool, TextConfig
from openai_api.request.schemas import (
    ChatCompletionRequest,
    CompletionRequest,
    Prediction,
    StreamOptions,
)
from openai_api.request.strict_model import StrictModel
from openai_api.request.structured_output_fields import NamedSchema, ResponseFormat, StructuredOutputs
from openai_api.request.system_one_fields import SystemOneRequest
from openai_api.request.tokenize_fields import DetokenizeRequest, TokenizeRequest
from tests.openai_api.harness import Asgi

DOCS = Path(__file__).resolve().parents[2] / "docs" / "api.md"
MODELS: dict[str, type[StrictModel]] = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/v1/decisions": DecisionRequest,
    "/v1/systemone": SystemOneRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": CountTokensRequest,
    "/api/chat": OllamaChatRequest,
    "/api/generate": OllamaGenerateRequest,
    "/api/show": ShowRequest,
    "/api/pull": PullRequest,
}
OLLAMA_PARTS: dict[str, type[StrictModel]] = {"options.": OllamaOptions}
PARTS: dict[str, type[StrictModel]] = {
    "messages[].tool_calls[].function.": FunctionCall,
    "messages[].tool_calls[].": ToolCallEntry,
    "messages[].function_call.": FunctionCall,
    "messages[].content[].": TextPart,
    "messages[].": ChatMessage,
    "prediction.content[].": TextPart,
    "prediction.": Prediction,
    "stream_options.": StreamOptions,
    "response_format.json_schema.": NamedSchema,
    "response_format.": ResponseFormat,
    "structured_outputs.": StructuredOutputs,
}


RESPONSES_PARTS: dict[str, type[StrictModel]] = {
    "input[].": ResponseInputItem,
    "tools[].": ResponseTool,
    "text.": TextConfig,
}


def names(fields: tuple[RequestField, ...], *supports: Support) -> set[str]:
    return {field.name for field in fields if field.support in supports}


def top_level(all_names: set[str]) -> set[str]:
    return {name for name in all_names if "." not in name and "[" not in name}


@pytest.mark.parametrize("endpoint", MODELS)
def test_the_schemas_have_just_the_fields_that_are_taken(endpoint: str) -> None:
    fields = FIELDS_BY_ENDPOINT[endpoint]
    assert len({field.name for field in fields}) == len(fields)
    taken = names(fields, Support.EXACT, Support.NO_EFFECT)
    assert own_or_any(MODELS[endpoint], taken) == top_level(taken)
    ollamas = dict.fromkeys(("/api/chat", "/api/generate"), OLLAMA_PARTS)
    parts = {"/v1/chat/completions": PARTS, "/v1/responses": RESPONSES_PARTS, **ollamas}.get(endpoint, {})
    for prefix, model in parts.items():
        inner = {name.removeprefix(prefix) for name in taken if name.startswith(prefix)}
        assert own_or_any(model, inner) == top_level(inner)


def own_or_any(model: type[StrictModel], taken: set[str]) -> set[str]:
    """The model's fields, and those of ``taken`` that may be anything and are dropped."""
    own = (field.alias or name for name, field in model.model_fields.items())
    return {*own, *(name for name in taken if model.neutral.get(name) is ANYTHING)}


@pytest.mark.parametrize(
    ("endpoint", "params"),
    [
        ("/v1/chat/completions", chat_params.CompletionCreateParamsStreaming),
        ("/v1/completions", text_params.CompletionCreateParamsStreaming),
        ("/v1/responses", response_create_params.ResponseCreateParamsStreaming),
    ],
)
def test_every_field_that_openai_defines_is_in_the_table(endpoint: str, params: type) -> None:
    assert set(get_type_hints(params)) <= top_level({field.name for field in FIELDS_BY_ENDPOINT[endpoint]})


def test_the_inner_fields_that_openai_defines_are_in_the_table() -> None:
    known = {field.name for field in FIELDS_BY_ENDPOINT["/v1/chat/completions"]}
    hints = get_type_hints(chat_params.CompletionCreateParamsStreaming)
    (message_union,) = get_args(hints["messages"])
    for message in get_args(message_union):
        for name in get_type_hints(message):
            assert f"messages[].{name}" in known, (message, name)
    prediction = next(arg for arg in get_args(hints["prediction"]) if get_origin(arg) is None)
    assert {f"prediction.{name}" for name in get_type_hints(prediction)} <= known
    stream_options = next(arg for arg in get_args(hints["stream_options"]) if get_origin(arg) is None)
    assert {f"stream_options.{name}" for name in get_type_hints(stream_options)} <= known


def test_capabilities_are_the_table(asgi: Asgi) -> None:
    answer = asgi.get("/v1/capabilities").json
    assert answer["object"] == "capabilities"
    assert set(answer["endpoints"]) == set(FIELDS_BY_ENDPOINT)
    for endpoint, fields in FIELDS_BY_ENDPOINT.items():
        listed = answer["endpoints"][endpoint]
        assert listed == {s.value: {f.name: f.note for f in fields if f.support is s} for s in Support}
    assert answer["neutral_values"]["mirostat"] == "null, 0"
    assert set(answer["neutral_values"]) == set(IN_ANY_REQUEST)


@pytest.mark.parametrize("endpoint", MODELS)
def test_the_documentation_has_the_table(endpoint: str) -> None:
    """``docs/api.md`` has a section of this name with a table of just these rows."""
    section = re.search(rf"^### Fields of `{re.escape(endpoint)}`\n(.*?)(?=^#|\Z)", DOCS.read_text(), re.M | re.S)
    assert section is not None
    rows = [line for line in section[1].splitlines() if line.startswith("| `")]
    assert rows == [f"| `{field.name}` | {word(field)} | {field.note} |" for field in FIELDS_BY_ENDPOINT[endpoint]]


def word(field: RequestField) -> str:
    return {Support.EXACT: "exact", Support.NO_EFFECT: "no effect", Support.REFUSED: "refused"}[field.support]


def test_the_tables_of_the_documentation_are_written_by_a_program() -> None:
    document = DOCS.read_text()
    assert with_tables(document) == document
    damaged = document.replace("| `top_k` | exact | an integer", "| `top_k` | exact | a word").replace(
        "| `echo` |", "| x |"
    )
    assert damaged != document
    assert with_tables(damaged) == document
    with pytest.raises(ValueError, match="### Fields of `/tokenize`"):
        with_tables(document.replace("### Fields of `/tokenize`", ""))


@pytest.mark.parametrize("model", [ChatCompletionRequest, CompletionRequest])
def test_a_setting_is_a_field_with_the_range_of_the_table(model: type[BaseModel]) -> None:
    shared = set(SETTINGS) - {"max_tokens", "logprobs", "prompt_logprobs"}
    assert shared <= set(model.model_fields)
    for name in shared:
        setting, field = SETTINGS[name], model.model_json_schema()["properties"][name]
        number = next(each for each in field["anyOf"] if each["type"] != "null")
        low = "exclusiveMinimum" if setting.open_low else "minimum"
        kind = "integer" if setting.kind is int else "number"
        assert number == {"type": kind, low: setting.low, "maximum": setting.high}
        assert field["description"] == setting.does


NEW_SETTING = """
import types
import engine.sampling_params as table
new = table.Setting(kind=float, default=0.0, low=0.0, high=9.0, does="a test", from_checkpoint=True)
table.SETTINGS = types.MappingProxyType({**table.SETTINGS, "top_n_sigma": new})
from openai_api.errors import ApiError
from openai_api.request.field_support import CHAT_FIELDS
from openai_api.request.sampling_params import _settings
from openai_api.request.schemas import ChatCompletionRequest
from openai_api.request.validation import validate
body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
def settings(**fields):
    return _settings(validate({**body, **fields}, ChatCompletionRequest, CHAT_FIELDS), {"top_n_sigma": 2})
print(settings(), settings(top_n_sigma=1), settings(top_n_sigma=None))
try:
    settings(top_n_sigma=10)
except ApiError as error:
    print(error.message)
print(next(field.note for field in CHAT_FIELDS if field.name == "top_n_sigma"))
"""


def test_a_new_setting_in_the_engine_is_a_new_field_here() -> None:
    """Range, error, documentation and the way to the engine: no file of this package names a setting."""
    run = [sys.executable, "-c", NEW_SETTING]
    done = subprocess.run(run, cwd=DOCS.parents[1], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "{'top_n_sigma': 2.0} {'top_n_sigma': 1.0} {'top_n_sigma': 2.0}",
        "Invalid value for 'top_n_sigma': expected a number from 0 to 9.",
        "a number from 0 to 9, default 0 or the checkpoint's: a test",
    ]
