"""Conversations in the form that a checkpoint's own chat template gives them, as token ids.

Owns what a template is told, and what is found out about it by rendering short conversations at the
start: whether it takes contents as texts or as lists of parts, which roles it drops, what ends an
answer. Knows nothing of HTTP. Made once; any thread may render.
"""

import re
from collections.abc import Sequence
from itertools import product, takewhile

from gemma3.errors import ChatError, ChatTemplateError
from gemma3.text.chat import ChatPrompt, Message, ToolCall
from gemma3.text.chat_template import ChatTemplate, TemplateFailureError
from gemma3.text.marked_text import MarkedText
from gemma3.text.template_environment import TemplateRefusalError
from gemma3.text.template_files import ChatTemplates
from gemma3.text.template_messages import (
    ContentForm,
    cut_open,
    leave_open,
    template_message,
    template_tools,
)
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.tool_form import Tools

# A template shows a message if two contents, which do not end alike, give two texts.
_USER, _OTHER_USER = Message("user", "Zebra asks"), Message("user", "Quokka asked")
_ASSISTANT, _OTHER_ASSISTANT = Message("assistant", "Zebra says"), Message("assistant", "Quokka said")
_SYSTEM = Message("system", "Zebra")
_TOOL = Message("tool", "Zebra", name="zebra", tool_call_id="zebra")
# A mark that is shorter, as the quote behind a JSON text, would end answers anywhere.
_MIN_STOP_CHARS, _MAX_STOP_CHARS = 3, 48
_TOOLS = re.compile(r"\btools\b")
# Its words may hold a message.
_MAX_ERROR_CHARS = 300


class _Marked:
    """One template of a checkpoint with its stand-ins, and the ids of what it renders."""

    def __init__(
        self, text: str, templates: ChatTemplates, tokenizer: Gemma3Tokenizer, *, makes_names_of_roles: bool
    ) -> None:
        special_tokens = {
            name: tokenizer.id_to_token(value) if isinstance(value, int) else value
            for name, value in templates.special_tokens().items()
            if isinstance(value, str) or 0 <= value < tokenizer.vocab_size  # tools write -1 for none
        }
        names = special_tokens.values()
        self.marks = MarkedText(text, tokenizer, variables=names, makes_names_of_roles=makes_names_of_roles)
        mark, mark_role = self.marks.mark, self.marks.mark_role
        self._template = ChatTemplate(text, source=templates.source, mark=mark, mark_compared=mark_role)
        self._special_tokens = {name: mark(token) for name, token in special_tokens.items()}

    def render(self, messages: list[dict[str, object]], *, opens_turn: bool, tools: Tools | None) -> str:
        """The text, with stand-ins.

        Raises:
            TemplateRefusalError: the template refuses the messages.
            TemplateFailureError: it fails.
        """
        for message in messages:
            message["role"] = self.marks.mark_role(str(message["role"]))
        variables = {"messages": messages, "tools": template_tools(tools), "documents": None}
        try:
            return self._template.render(self._special_tokens | variables | {"add_generation_prompt": opens_turn})
        except (TemplateRefusalError, TemplateFailureError) as error:
            raise type(error)(self.marks.restore(str(error))[:_MAX_ERROR_CHARS]) from None


class TemplateRenderer:
    """``content_form``, ``stop`` and ``stop_token_ids`` were found by looking at what the template
    renders.
    """

    def __init__(self, templates: ChatTemplates, tokenizer: Gemma3Tokenizer) -> None:
        """Raises: ChatTemplateError, a template is none, or fails for the simplest conversation."""
        self.source, self.template, self._tokenizer = templates.source, templates.default or "", tokenizer
        self._developer, self.content_form = "developer", ContentForm.TEXT
        self._opening: tuple[Message, ...] = ()
        for makes_names_of_roles in (False, True):
            self._compile(templates, makes_names_of_roles=makes_names_of_roles)
            self.content_form = self._find_content_form()
            if self._is_exact():
                break
        else:
            text = "makes names of control tokens out of parts; they must be whole, or a role in brackets."
            raise ChatTemplateError(f"{self.source} {text}")
        if self._drops("developer") and not self._drops("system"):
            self._developer = "system"
        self.stop, self.stop_token_ids = self._find_stops()

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tools: Tools | None = None,
    ) -> ChatPrompt:
        """The prompt of a conversation.

        Raises:
            ChatError: the template refuses the messages, in its own words, or fails for them.
            TokenizerError: a message holds a lone surrogate.
        """
        template = self._default if tools is None else self._tool_use
        shown = [self._shown(message) for message in messages]
        if continue_final_message:
            leave_open(shown[-1])
        try:
            text = template.render(shown, opens_turn=add_generation_prompt, tools=tools)
        except TemplateRefusalError as error:
            raise ChatError(f"The chat template refuses these messages: {error}") from None
        except TemplateFailureError as error:
            raise ChatError(f"The chat template {self.source} fails for these messages: {error}.") from None
        text = cut_open(text) if continue_final_message else text
        token_ids = tuple(template.marks.encode(text))
        if not token_ids:
            raise ChatError(f"The chat template {self.source} makes an empty prompt of these messages.")
        return ChatPrompt(token_ids, self.stop, self.stop_token_ids)

    def written_call(self, call: ToolCall) -> str:
        """What the template writes for an assistant's call, between what opens and what ends its turn;
        nothing where it does not show it.
        """
        asked, called = [self._shown(_USER)], self._shown(Message("assistant", "", tool_calls=(call,)))
        try:
            opening = self._tool_use.render(asked, opens_turn=True, tools=None)
            text = self._tool_use.render([*asked, called], opens_turn=False, tools=None)
        except (TemplateRefusalError, TemplateFailureError):
            return ""
        if not text.startswith(opening):
            return ""
        return self._tool_use.marks.restore(text[len(opening) :].removesuffix(self._behind_assistant()))

    def _compile(self, templates: ChatTemplates, *, makes_names_of_roles: bool) -> None:
        default, with_tools = (
            _Marked(text, templates, self._tokenizer, makes_names_of_roles=makes_names_of_roles)
            for text in (self.template, templates.by_name.get("tool_use", self.template))
        )
        self._default, self._tool_use = default, with_tools
        self.takes_tools = _TOOLS.search(templates.by_name.get("tool_use", self.template)) is not None

    @property
    def ends(self) -> str:
        """What ends an answer, in words."""
        names = [self._tokenizer.id_to_token(token_id) for token_id in self.stop_token_ids]
        return f"answers end with {' or '.join([*map(repr, self.stop), *names])}"

    def _shown(self, message: Message) -> dict[str, object]:
        role = self._developer if message.role == "developer" else message.role
        return template_message(message, self.content_form, role=role)

    def _probe(self, *messages: Message, opens_turn: bool = True) -> str:
        """What the template makes of a short conversation; raises what it does."""
        shown = [self._shown(each) for each in (*self._opening, *messages)]
        return self._default.render(shown, opens_turn=opens_turn, tools=None)

    def _probe_or_nothing(self, *messages: Message, opens_turn: bool = True) -> str:
        try:
            return self._probe(*messages, opens_turn=opens_turn)
        except (TemplateRefusalError, TemplateFailureError):
            return ""

    def _find_content_form(self) -> ContentForm:
        """The first form in which the template shows what a user says, to a system message if it
        must be.
        """
        errors: list[Exception] = []
        for self._opening, self.content_form in product(((), (_SYSTEM,)), ContentForm):
            try:
                if self._probe(_USER) != self._probe(_OTHER_USER):
                    return self.content_form
            except (TemplateRefusalError, TemplateFailureError) as error:
                errors.append(error)
        if errors:
            raise ChatTemplateError(f"{self.source} fails for one message of a user: {errors[0]}.")
        raise ChatTemplateError(f"{self.source} does not show the message of a user.")

    def _drops(self, role: str) -> bool:
        """Whether messages of this role are left out without a word."""
        text, other = (
            self._probe_or_nothing(Message(role, message.content), _USER) for message in (_ASSISTANT, _OTHER_ASSISTANT)
        )
        return bool(text) and text == other

    def _is_exact(self) -> bool:
        """Whether all control tokens that the template writes are found."""
        conversations = (_USER,), (_USER, _ASSISTANT, _USER), (_SYSTEM, _USER), (_USER, _TOOL)
        texts = [self._probe_or_nothing(*messages) for messages in conversations]
        return all(self._default.marks.is_exact(text) for text in texts)

    def _find_stops(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """What the template writes behind an assistant's words: a control token, or the text before
        the next turn.
        """
        eos = self._tokenizer.eos_token_id
        last, before_user = (self._behind_assistant(*messages) for messages in ((), (_USER,)))
        before_user = before_user.partition(_USER.content)[0]
        for text in (last, before_user):
            control_ids = (part for part in self._default.marks.split(text) if isinstance(part, int))
            if (first := next(control_ids, None)) is not None:
                return (), tuple(dict.fromkeys((first, eos)))
        stop = _first_line(before_user)
        return (stop,) if stop else (), (eos,)

    def _behind_assistant(self, *more: Message) -> str:
        """What follows an assistant's words; nothing where the template does not show them."""
        texts = [
            self._probe_or_nothing(_USER, said, *more, opens_turn=False) for said in (_ASSISTANT, _OTHER_ASSISTANT)
        ]
        if texts[0] == texts[1]:
            return ""
        pairs = zip(reversed(texts[0]), reversed(texts[1]), strict=False)
        num_shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return texts[0][len(texts[0]) - num_shared :]


def _first_line(text: str) -> str:
    """The first line that is not blank, with the line breaks before it; nothing if it is too short
    or too long to be a mark.
    """
    line = text[: len(text) - len(text.lstrip())] + text.strip().partition("\n")[0]
    return line.rstrip() if len(line) <= _MAX_STOP_CHARS and len(line.rstrip()) >= _MIN_STOP_CHARS else ""
