"""Which chat templates are Gemma's own: then the id renderer of ``gemma3.text.chat`` takes their place.

Google's text is known by its hash, without jinja. Tools save it with comments, other white space or other
spelling: a template is also Gemma's if it gives the same ids for conversations that differ in all that
Google's looks at, and refuses or equally renders those that Google's refuses. Plain functions, any thread.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gemma3.errors import ChatError
from gemma3.text.chat import ChatStyle, Message, render_chat
from gemma3.text.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    from gemma3.text.template_renderer import TemplateRenderer

# Of the text in google/gemma-3-270m-it and all its sizes, without white space around it.
_GOOGLES = "8d9e3a3c114fb2053ec500184677af4f7e5f8ec2582443cd535834e68b3ade29"
# A template that has tools to show, or that tells the day, is more than Gemma's turns.
_MORE = re.compile(r"\btools?\b|\btool_\w|\bstrftime_now\b|\bdocuments\b")

_SYSTEM, _USER, _ASSISTANT = (
    Message("system", " Be\n brief. \n"),
    Message("user", "\n Who?  "),
    Message("assistant", " I. \n"),
)
_ACCEPTED = (
    (_USER,),
    (_SYSTEM, _USER),
    (_USER, _ASSISTANT),
    (_USER, _ASSISTANT, _USER),
    (_SYSTEM, _USER, _ASSISTANT, _USER, _ASSISTANT),
    (_SYSTEM, Message("user", "")),
)
_REFUSED = (
    (_ASSISTANT, _USER),
    (_USER, _USER),
    (_USER, _SYSTEM, _ASSISTANT),
    (_USER, _ASSISTANT, _ASSISTANT),
    (Message("developer", "Be brief."), _USER),
    (_SYSTEM, _SYSTEM, _USER),
)


def is_googles(template: str) -> bool:
    """Whether the text is Google's, told in microseconds."""
    return hashlib.sha256(template.strip().encode("utf-8", "replace")).hexdigest() == _GOOGLES


def renders_as_gemma(template: str, renderer: "TemplateRenderer", tokenizer: Gemma3Tokenizer) -> bool:
    """Whether a template gives what Google's gives."""
    if _MORE.search(template) or tokenizer.token_to_id("<start_of_turn>") is None:
        return False
    return all(
        _is_same(messages, renderer, tokenizer, opens_turn=opens_turn)
        for messages in (*_ACCEPTED, *_REFUSED)
        for opens_turn in (True, False)
    )


def _is_same(
    messages: Sequence[Message], renderer: "TemplateRenderer", tokenizer: Gemma3Tokenizer, *, opens_turn: bool
) -> bool:
    try:
        theirs = renderer.render(messages, add_generation_prompt=opens_turn, continue_final_message=False)
    except ChatError:
        return messages in _REFUSED
    ours = render_chat(messages, tokenizer, ChatStyle.GEMMA_TURNS, add_generation_prompt=opens_turn)
    return theirs.token_ids == ours.token_ids
