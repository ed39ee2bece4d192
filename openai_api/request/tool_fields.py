"""The request fields about tools: OpenAI's, and the older ones about functions.

Owns their names, types and notes; what becomes of them is in ``tools``. Knows no engine. Immutable;
large bodies are parsed in a worker thread.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from openai_api.request.neutral_values import any_value
from openai_api.request.strict_model import StrictModel

MAX_TOOLS = 128

TOOL_NOTES: Mapping[str, str] = {
    "tools": f"up to {MAX_TOOLS} functions that the answer may call; a checkpoint is shown them in its own form, or in "
    "Google's for Gemma 3",
    "tools[].type": "`function`; other types are 400",
    "tools[].function": "what can be called",
    "tools[].function.name": "1 to 64 of `a-z A-Z 0-9 _ . -`; no two may be equal",
    "tools[].function.description": "string, shown to the model",
    "tools[].function.parameters": "a JSON schema of an object; without one the arguments are `{}`. Arguments have no "
    "keys beside those that it names, unless it says which",
    "tools[].function.strict": "boolean; arguments obey the schema in any case",
    "tool_choice": "`none`, `auto` (the default), `required`, a function's name as `{type: function, function: {name}}`, "
    "or `allowed_tools` with a `mode`; `required` without tools asks for nothing",
    "parallel_tool_calls": "boolean: whether an answer may have several calls; default true where the checkpoint's "
    "template writes calls, else false, and false where one function is named",
    "functions": "the older name of `tools`; the answer then has one `function_call`",
    "functions[].name": "as `tools[].function.name`",
    "functions[].description": "as `tools[].function.description`",
    "functions[].parameters": "as `tools[].function.parameters`",
    "function_call": "`none`, `auto` (the default), or `{name}`",
}
"""By name what each field does."""

_OF_FUNCTIONS = "annotations cache_control defer_loading examples output_schema response return returns title"
_CHOICE_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "object"}]}

Choice = Annotated[Any, WithJsonSchema(_CHOICE_SCHEMA)]
"""Words or an object; ``tools`` reads it."""


class FunctionDefinition(StrictModel):
    """A function; ``parameters`` is a JSON schema."""

    neutral = any_value(_OF_FUNCTIONS)

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolEntry(StrictModel):
    """A tool that can be called."""

    neutral = any_value(_OF_FUNCTIONS)

    type: Literal["function"] | None = None
    function: FunctionDefinition


class ToolFields(StrictModel):
    """``None`` where nothing is asked for."""

    tools: Annotated[list[ToolEntry], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Choice = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionDefinition], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    function_call: Choice = None
