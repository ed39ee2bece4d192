"""Which form of tool calls a checkpoint was taught: found by having its template write a call.

Owns the choice; the forms are those of ``tool_json`` and ``tool_functiongemma``. A template without
tools gets Google's form for Gemma 3. Runs once, while the engine loads.
"""

import re
from dataclasses import replace

from gemma3.text.chat import ToolCall
from gemma3.text.template_renderer import TemplateRenderer
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.tool_form import ToolForm
from gemma3.text.tool_functiongemma import FUNCTIONGEMMA
from gemma3.text.tool_json import GOOGLES_JSON

_NAME = "zebra_call"
_CALL = ToolCall(_NAME, '{"quokka": "lynx"}', "zebra1234")
_OBJECT = re.compile(rf'\{{\s*"name"\s*:\s*"{_NAME}"\s*,\s*"\w+"\s*:\s*(\{{[^{{}}]*\}})\s*\}}')


def tool_form_of(renderer: TemplateRenderer, tokenizer: Gemma3Tokenizer) -> ToolForm:
    """The form of a checkpoint with a template of its own."""
    if not renderer.takes_tools:
        return GOOGLES_JSON
    written = renderer.written_call(_CALL)
    if not _is_plain(written, tokenizer):
        # Such tokens are in no text that a grammar allows.
        return replace(GOOGLES_JSON, instructions=None)
    if FUNCTIONGEMMA.opening[0] in written:
        return FUNCTIONGEMMA
    found = _OBJECT.search(written)
    return replace(GOOGLES_JSON, instructions=None) if found is None else _form_around(written, found)


def _is_plain(text: str, tokenizer: Gemma3Tokenizer) -> bool:
    return not tokenizer.special_ids.intersection(tokenizer.encode(text, parse_special=True))


def _form_around(written: str, found: re.Match[str]) -> ToolForm:
    """As the template writes a call, to the letter; white space around all of it is not part of it."""
    before_name, _, before_arguments = written[found.start() : found.start(1)].partition(_NAME)
    mark = written[: found.start()].strip()
    if mark:
        before_name = written[written.index(mark) + len(mark) : found.start()] + before_name
    else:
        before_name = before_name[before_name.index(":") + 1 :]
    return replace(
        GOOGLES_JSON,
        name="template",
        opening=(mark,) if mark else GOOGLES_JSON.opening,
        before_name=before_name,
        before_arguments=before_arguments,
        after_arguments=written[found.end(1) :].rstrip(),
        ends=() if mark else GOOGLES_JSON.ends,
        writes_several=True,
        instructions=None,
    )
