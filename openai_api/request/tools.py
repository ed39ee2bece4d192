"""From the tools that an answer may call to its grammar, and to how its calls are read.

Owns what becomes of stop strings and of a structured answer beside tools; the form of a call is the
checkpoint's (``gemma3.text.tool_form``). Runs on the event loop; grammars are compiled in a thread.
"""

import json
from dataclasses import dataclass

from engine.errors import GrammarError
from engine.grammar.compiler import Grammar
from engine.grammar.spec import GrammarKind, GrammarSpec, regex_rule
from gemma3.text.chat import ChatPrompt
from gemma3.text.tool_form import CallRules, ToolForm
from gemma3.text.tool_grammar import CallableTool, tool_grammar
from openai_api.app_state import AppState
from openai_api.errors import ApiError
from openai_api.request.schemas import ChatCompletionRequest
from openai_api.request.structured_outputs import Constraint, constraint_of
from openai_api.request.tool_choice import ToolChoice
from openai_api.request.tool_schemas import arguments_schema


@dataclass(frozen=True, slots=True)
class CallPlan:
    """How an answer calls: what the engine must obey, and how the calls are read and told.

    Attributes:
        names: the tools that may be called.
        is_old: they are told as one ``function_call``.
    """

    grammar: Grammar
    form: ToolForm
    rules: CallRules
    names: tuple[str, ...]
    is_old: bool


async def call_plan(
    body: ChatCompletionRequest, choice: ToolChoice, app_state: AppState, prompt: ChatPrompt
) -> CallPlan:
    """Of an answer that may call tools. Its stop strings are in the grammar: they end text, never a call.

    Raises:
        ApiError: 400, the arguments of a tool cannot be promised, or the answer beside them cannot.
    """
    return await app_state.off_loop.compile(lambda: _compiled(body, choice, app_state, prompt))


def _compiled(body: ChatCompletionRequest, choice: ToolChoice, app_state: AppState, prompt: ChatPrompt) -> CallPlan:
    answer, form = constraint_of(body), app_state.engine.tool_form
    ends = () if body.ignore_eos else tuple(prompt.stop)
    rules = CallRules(
        is_required=choice.is_required,
        is_parallel=form.writes_several if choice.is_parallel is None else choice.is_parallel,
        stop=(*(body.stop or ()), *ends),
        ends=ends,
        answer=None if answer is None or choice.is_required else _embedded(answer),
    )
    tools = [CallableTool(each.name, arguments_schema(each.parameters)) for each in choice.callable]
    is_free = rules.answer is None and not rules.is_required  # text begins with the space itself
    spec = GrammarSpec(GrammarKind.LARK, tool_grammar(form, tools, rules), "" if is_free else prompt.answer_lead)
    try:
        grammar = app_state.engine.compile_grammar(spec)
    except GrammarError as error:
        raise _refusal(error, choice, answer, app_state) from None
    return CallPlan(grammar, form, rules, tuple(tool.name for tool in tools), is_old=choice.is_old)


def _embedded(answer: Constraint) -> str:
    """Lark for a structured answer within another grammar."""
    match answer.spec.kind:
        case GrammarKind.JSON_SCHEMA:
            return f"%json {answer.spec.text}"
        case GrammarKind.REGEX:
            return f"%lark {{\nstart: {regex_rule(answer.spec.text)}\n}}"
        case GrammarKind.LARK:
            return f"%lark {{\n{answer.spec.text}\n}}"


def _refusal(error: GrammarError, choice: ToolChoice, answer: Constraint | None, app_state: AppState) -> ApiError:
    """It names the part that is to blame, if one alone is."""
    parts = [] if answer is None else [(answer.param, answer.spec)]
    for index, function in enumerate(choice.functions):
        schema = json.dumps(arguments_schema(function.parameters))
        parts.append((choice.param_of(index), GrammarSpec(GrammarKind.JSON_SCHEMA, schema)))
    for param, spec in parts:
        try:
            app_state.engine.compile_grammar(spec)
        except GrammarError as own:
            return ApiError(400, f"Invalid value for '{param}': {own}", code=own.code, param=param)
    param = "functions" if choice.is_old else "tools"
    return ApiError(400, f"Invalid value for '{param}': {error}", code=error.code, param=param)
