"""What a request lets its answer call: the tools, and the choice among them.

Owns how the fields go together, in the new form and in the old one of ``functions``, and the 400s
of those that do not. Knows no form of a call and no grammar. Pure; the event loop calls it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma3.text.tool_form import Tools
from openai_api.errors import ApiError, invalid_value
from openai_api.request.tool_fields import FunctionDefinition, ToolFields

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_CHOICES = "'none', 'auto', 'required', or an object that names a function or lists allowed tools"
_WORDS: Mapping[str, str] = {
    "none": "none",
    "auto": "auto",
    "required": "required",
    "any": "required",
}  # Mistral's word


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What can be called.

    Attributes:
        functions: those that the model is shown.
        names: those of them that may be called.
        is_required: the answer is a call.
        is_parallel: it may have several; ``None`` leaves that to the form of calls.
        is_old: asked for by ``functions``, to be answered so.
    """

    functions: tuple[FunctionDefinition, ...]
    names: frozenset[str]
    is_required: bool
    is_parallel: bool | None
    is_old: bool

    @property
    def callable(self) -> list[FunctionDefinition]:
        """Those that may be called, in their order."""
        return [function for function in self.functions if function.name in self.names]

    def param_of(self, index: int) -> str:
        """The field of the parameters of a function."""
        return f"functions[{index}].parameters" if self.is_old else f"tools[{index}].function.parameters"

    @property
    def shown(self) -> Tools:
        """As chat templates take them, which expect all members."""
        return [{"type": "function", "function": _shown(function)} for function in self.functions]


def tool_choice(body: ToolFields) -> ToolChoice | None:
    """What the answer to ``body`` may call, ``None`` for nothing.

    Raises:
        ApiError: 400, a name is none or comes twice, or the choice is for no tool that is there.
    """
    if body.tools and body.functions:
        raise invalid_value("functions", "'functions' is the older name of 'tools'; give one of them.")
    is_old = bool(body.functions)
    functions = tuple(body.functions or ()) if is_old else tuple(tool.function for tool in body.tools or ())
    for index, function in enumerate(functions):
        _check(function, functions[:index], f"functions[{index}]" if is_old else f"tools[{index}].function")
    param = "function_call" if is_old or (body.function_call is not None and not functions) else "tool_choice"
    asked = _read(body.function_call if param == "function_call" else body.tool_choice, param)
    if not functions:
        if asked.names:  # "required" among no tools asks for nothing: LlamaIndex sends it beside a prompt
            where = "functions" if param == "function_call" else "tools"
            raise _wrong(param, f"'{param}' is only allowed when '{where}' are specified.")
        return None
    _check_known(asked, functions, param)
    if asked.is_none:
        return None
    return ToolChoice(
        functions,
        names=frozenset(asked.names or [function.name for function in functions]),
        is_required=asked.is_required,
        is_parallel=False if is_old or (asked.is_named and not body.parallel_tool_calls) else body.parallel_tool_calls,
        is_old=is_old,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """``names`` are those that the choice is restricted to, all if there are none."""

    is_none: bool = False
    is_required: bool = False
    is_named: bool = False
    names: tuple[str, ...] = ()


def _read(value: object, param: str) -> _Asked:
    """A word, or an object of one of OpenAI's shapes; Anthropic writes its words as objects."""
    kind = value.get("type") if isinstance(value, dict) else value
    if value is None:
        return _Asked()
    if param == "function_call" and isinstance(value, dict):
        return _Asked(is_required=True, is_named=True, names=(_name(value, f"{param}.name"),))
    if isinstance(kind, str) and kind in _WORDS and not (param == "function_call" and _WORDS[kind] == "required"):
        return _Asked(is_none=kind == "none", is_required=_WORDS[kind] == "required")
    if isinstance(value, dict) and kind == "function":
        at = f"{param}.function.name" if "function" in value else f"{param}.name"
        return _Asked(is_required=True, is_named=True, names=(_name(value.get("function", value), at),))
    if isinstance(value, dict) and kind == "allowed_tools":
        return _allowed(value.get("allowed_tools", value), f"{param}.allowed_tools")
    words = "'none', 'auto' or an object with a 'name'" if param == "function_call" else _CHOICES
    raise _wrong(param, f"expected {words}.")


def _allowed(value: object, param: str) -> _Asked:
    mode, tools = (value.get("mode"), value.get("tools")) if isinstance(value, dict) else (None, None)
    if mode not in ("auto", "required"):
        raise _wrong(f"{param}.mode", "expected 'auto' or 'required'.")
    if not isinstance(tools, list) or not tools:
        raise _wrong(f"{param}.tools", "expected an array of at least one tool.")
    inner = [tool.get("function", tool) if isinstance(tool, dict) else tool for tool in tools]
    names = tuple(_name(tool, f"{param}.tools[{i}].function.name") for i, tool in enumerate(inner))
    return _Asked(is_required=mode == "required", names=names)


def _name(value: object, param: str) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise _wrong(param, "expected the name of a function.")
    return name


def _check(function: FunctionDefinition, before: Sequence[FunctionDefinition], param: str) -> None:
    if not _NAME.fullmatch(function.name):
        raise _wrong(f"{param}.name", "expected 1 to 64 of the characters a-z, A-Z, 0-9, '_', '.' and '-'.")
    if any(function.name == other.name for other in before):
        raise _wrong(f"{param}.name", "expected a name that no other function has.")
    kind = (function.parameters or {}).get("type", "object")
    if "object" not in (kind if isinstance(kind, list) else [kind]):
        param = f"{param}.parameters"
        text = f"Invalid value for '{param}': arguments are an object, so 'type' must be 'object'."
        raise ApiError(400, text, code="invalid_json_schema", param=param)


def _check_known(asked: _Asked, functions: Sequence[FunctionDefinition], param: str) -> None:
    if set(asked.names) - {function.name for function in functions}:
        raise _wrong(param, f"expected the name of one of the {'functions' if param == 'function_call' else 'tools'}.")


def _shown(function: FunctionDefinition) -> dict[str, Any]:
    parameters = function.parameters or {"type": "object", "properties": {}}
    return {"name": function.name, "description": function.description or "", "parameters": parameters}


def _wrong(param: str, expected: str) -> ApiError:
    return invalid_value(param, f"Invalid value for '{param}': {expected}")
