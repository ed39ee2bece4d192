"""What is said of the fields of ``/v1/decisions`` and ``/v1/systemone``, and their limits.

Owns notes and numbers; the types are in ``decision_fields`` and ``system_one_fields``. Constants, so any thread
may read them.
"""

from collections.abc import Mapping

MAX_QUESTIONS = 400
MAX_OPTIONS_OF_QUESTION = 255
MAX_OPTIONS = 4096  # of all questions of a request
MAX_INPUT_ITEMS = 4096
MAX_TEMPERATURE = 100.0

_OPTIONS = f"2 to {MAX_OPTIONS_OF_QUESTION}, {MAX_OPTIONS:,} in a request"
DECISION_NOTES: Mapping[str, str] = {
    "model": "default: the served one; another name is a 404 `model_not_found`",
    "input": "required: a string, or an array of messages and calls of tools with their outputs",
    "input[].type": "`message` (the default), `function_call`, `function_call_output`, `custom_tool_call` or "
    "`custom_tool_call_output`",
    "input[].role": "of a message: `user`, `developer`, `system` or `assistant`",
    "input[].content": "of a message: a string, or parts `input_text`, `output_text`, `refusal` and `input_json`; other "
    "types are 400 `unsupported_parameter`",
    "input[].name": "of a call: the tool",
    "input[].arguments": "of a function call: a string",
    "input[].input": "of a custom tool call: a string",
    "input[].call_id": "of a call, and of its output, which must come later",
    "input[].output": "of a tool: a string or parts",
    "questions": f"required, 1 to {MAX_QUESTIONS}",
    "questions[].type": "`predicate`, `choice` or `score`",
    "questions[].instructions": "required: a string, or parts `input_text` and `input_json`",
    "questions[].name": "string, repeated in the answer",
    "questions[].choices": f"of a choice: {_OPTIONS}, all different",
    "questions[].choices[].value": "a string, or a boolean",
    "questions[].choices[].description": "string, read behind the value",
    "questions[].levels": f"of a score: {_OPTIONS}, the lowest first",
    "questions[].levels[].label": "string",
    "questions[].levels[].description": "string, read behind the label, or in place of a label that is a number",
}
DECISION_NO_EFFECT: Mapping[str, str] = {
    "prompt_cache_key": "string; equal prefixes are found by their tokens",
    "prompt_cache_options": "an object",
    "safety_identifier": "string",
    "input[].id": "anything",
    "input[].namespace": "anything",
    "input[].status": "anything",
    "input[].phase": "anything",
}

SYSTEM_ONE_NOTES: Mapping[str, str] = {
    "model": "default: the served one; another name is a 404 `model_not_found`. Without it a score has no `legend`, "
    "since gemmadecision's client, which never names one, refuses it",
    "state": "required: a string, or any JSON, which is read as its text",
    "questions": f"required: 1 to {MAX_QUESTIONS}, by name",
    "questions.*.type": "`noul`, `choice` or `score`; `box` asks for images",
    "questions.*.instructions": "what to decide: a string or any JSON",
    "questions.*.criteria": f"of a choice: an object, of a score: an array, each of 2 to {MAX_OPTIONS_OF_QUESTION}; of a "
    "noul: an object of `true` and `false`, optional",
    "temperature": f"a number from 0 to {MAX_TEMPERATURE:g}, default 1: what log likelihoods are divided by; 0 leaves "
    "the likeliest alone",
}
SYSTEM_ONE_REFUSED: Mapping[str, str] = {"assets": "text only"}
