"""The grammar of an answer that may call tools, in the Lark dialect of ``llguidance``.

Owns which texts are answers; the notation is that of a ``ToolForm``. A lexeme marked ``lazy`` ends
as soon as it can, so free text never goes past what opens a call: behind that only a call is
allowed. Pure text, the library is not known here. Any thread.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma3.text.tool_form import MAX_CALLS, CallRules, ToolForm


@dataclass(frozen=True, slots=True)
class CallableTool:
    """``parameters`` is the JSON schema of its arguments, always of an object."""

    name: str
    parameters: Mapping[str, object]


def tool_grammar(form: ToolForm, tools: Sequence[CallableTool], rules: CallRules) -> str:
    """Lark whose ``start`` is every answer that ``rules`` allow with calls of ``tools``, at least one."""
    if rules.is_required:
        lines = [f"start: {_opening(form)} calls", *_calls(form, tools, rules)]
    elif rules.answer is not None:
        lines = ["start: answer | called", f"answer: {rules.answer}", *_calls_beside_an_answer(form, tools, rules)]
    else:
        lines = [*_free_text(form, rules), *_calls(form, tools, rules)]
    return "\n".join(["%llguidance {}", *lines]) + "\n"


def _free_text(form: ToolForm, rules: CallRules) -> list[str]:
    stopped = [f"stopped[lazy]: TEXT ({_any_of(rules.stop)})"] if rules.stop else []
    start = "start: TEXT | opened calls" + (" | stopped" if stopped else "")
    return [start, "TEXT: /(.|\\n)*/", f"opened[lazy]: TEXT /{form.opening_regex}/", *stopped]


def _calls(form: ToolForm, tools: Sequence[CallableTool], rules: CallRules) -> list[str]:
    """Rules for what follows the opening of the first call."""
    named = [f"{_quoted(tool.name + form.before_arguments)} {form.arguments.lark(tool.parameters)}" for tool in tools]
    call = f"call: {_quoted(form.before_name)} ({' | '.join(named)}) {_quoted(form.after_arguments)}"
    calls = _several(f"{_opening(form)} call", form, rules) if rules.is_parallel else ["calls: call"]
    return [*calls, call, *form.arguments.definitions]


def _several(further: str, form: ToolForm, rules: CallRules) -> list[str]:
    """A call, perhaps ``further`` ones, and what may stand behind the last."""
    ends = [*form.ends, *rules.ends]
    end = f" ({_any_of(ends)})?" if ends else ""
    between = 'between: "" | "\\n" | "\\n\\n"'
    return [f"calls: call (between {further}){{0,{MAX_CALLS - 1}}}{end}", between]


def _calls_beside_an_answer(form: ToolForm, tools: Sequence[CallableTool], rules: CallRules) -> list[str]:
    """The library looks at one grammar's lexemes at a time, but at those of several schemas together.

    So a call that begins like a JSON answer is a schema itself, and any other a grammar of its own.
    """
    if not form.opening[0].startswith("{"):
        inner = [f"start: {_opening(form)} calls", *_calls(form, tools, rules)]
        return ["called: %lark {", *inner, "}"]
    call = "call: " + " | ".join(f"%json {json.dumps(_whole_call(form, tool))}" for tool in tools)
    return ["called: calls", *(_several("call", form, rules) if rules.is_parallel else ["calls: call"]), call]


def _whole_call(form: ToolForm, tool: CallableTool) -> dict[str, object]:
    """The schema of the object that a call is."""
    name_key, arguments_key = json.loads(f"{form.head(tool.name)}0{form.after_arguments}")
    return {
        "type": "object",
        "properties": {
            name_key: {"const": tool.name},
            arguments_key: _moved(tool.parameters, f"#/properties/{arguments_key}"),
        },
        "required": [name_key, arguments_key],
        "additionalProperties": False,
    }


def _moved(schema: Any, root: str) -> Any:
    """``schema`` with its references, where it is no longer the root itself."""
    if isinstance(schema, list):
        return [_moved(each, root) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    moved = {"$ref": root + reference[1:]} if isinstance(reference, str) and reference.startswith("#") else {}
    return {name: _moved(value, root) for name, value in schema.items()} | moved


def _opening(form: ToolForm) -> str:
    return _quoted("".join(form.opening))


def _any_of(texts: Sequence[str]) -> str:
    return " | ".join(map(_quoted, texts))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
