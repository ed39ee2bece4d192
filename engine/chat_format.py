"""How conversations become prompts: Gemma's turns, a transcript, or the checkpoint's own template.

Owns the choice and the words that tell it; the forms are those of ``gemma3.text``. Chosen once,
while the engine loads; any thread may render. jinja is imported only for a template that is not
Gemma's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemma3.checkpoints.checkpoint import Checkpoint
from gemma3.errors import ChatTemplateError
from gemma3.text.chat import (
    ChatPrompt,
    ChatStyle,
    Message,
    alternating,
    check_messages,
    render_chat,
    with_instructions,
)
from gemma3.text.gemma_template import is_googles, renders_as_gemma
from gemma3.text.template_files import ChatTemplates, read_text
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.tool_form import ToolForm, Tools
from gemma3.text.tool_json import GOOGLES_JSON

if TYPE_CHECKING:
    from gemma3.text.template_renderer import TemplateRenderer

_ANOTHER = "--chat-template FILE gives another"


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A form of conversations, and why it is this one.

    Attributes:
        form: one of the forms that this package has itself, or a template.
        reason: for the line in the log.
        template: the text of the checkpoint's or the given template, also where it is Gemma's own.
        is_tuned: the checkpoint was trained on turns, as far as can be told.
        tool_form: how the model writes calls of tools.
    """

    form: "ChatStyle | TemplateRenderer"
    reason: str
    template: str | None
    is_tuned: bool
    tool_form: ToolForm = GOOGLES_JSON

    @property
    def name(self) -> str:
        """``gemma-turns``, ``transcript`` or ``template``."""
        return self.form.value if isinstance(self.form, ChatStyle) else "template"

    def render(
        self,
        messages: Sequence[Message],
        tokenizer: Gemma3Tokenizer,
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tools: Tools | None = None,
    ) -> ChatPrompt:
        """The prompt of a conversation, and what ends the answer. A template shows ``tools`` itself, if it can.

        Raises:
            ChatError: the messages, or these with the flags, cannot be a prompt in this form.
            TokenizerError: a message holds a lone surrogate.
        """
        flags = {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        check_messages(messages, **flags)
        told = tools if tools and self.tool_form.instructions else None
        if told:
            messages = with_instructions(messages, self.tool_form.prompt(told))
        if isinstance(self.form, ChatStyle):
            return render_chat(messages, tokenizer, self.form, **flags)
        if told:
            return self.form.render(alternating(messages), **flags, tools=None)
        return self.form.render(messages, **flags, tools=tools)


def choose_chat_format(choice: str | None, checkpoint: Checkpoint, tokenizer: Gemma3Tokenizer) -> ChatFormat:
    """The form of the checkpoint's conversations; ``choice`` is ``--chat-template``.

    Raises:
        ChatTemplateError: a template is none, or fails for the simplest conversation.
    """
    if choice == "":
        raise ChatTemplateError("--chat-template is empty; it takes gemma, transcript or the name of a file.")
    if choice not in (None, "gemma", "transcript"):
        return _of_template(checkpoint.chat_templates().replaced(_text_of(Path(choice)), choice), tokenizer)
    templates = checkpoint.chat_templates()
    if choice is not None:
        style = ChatStyle.GEMMA_TURNS if choice == "gemma" else ChatStyle.TRANSCRIPT
        is_tuned = bool(templates.by_name) or checkpoint.tuned_mark(tokenizer) is not None
        return ChatFormat(style, f"--chat-template {choice}", templates.by_name.get("default"), is_tuned)
    if templates.default is not None:
        return _of_template(templates, tokenizer)
    mark = checkpoint.tuned_mark(tokenizer)
    if mark is not None:
        return ChatFormat(ChatStyle.GEMMA_TURNS, f"no chat template, but {mark}; {_ANOTHER}", None, is_tuned=True)
    reason = "no chat template, and nothing says that the model was tuned; --chat-template gemma|FILE overrides"
    return ChatFormat(ChatStyle.TRANSCRIPT, reason, None, is_tuned=False)


def _of_template(templates: ChatTemplates, tokenizer: Gemma3Tokenizer) -> ChatFormat:
    text, source = templates.default or "", templates.source
    if is_googles(text):
        return ChatFormat(ChatStyle.GEMMA_TURNS, f"the template in {source} is Gemma's own", text, is_tuned=True)
    from gemma3.text.template_renderer import TemplateRenderer
    from gemma3.text.tool_detection import tool_form_of

    renderer = TemplateRenderer(templates, tokenizer)
    if renders_as_gemma(text, renderer, tokenizer):
        return ChatFormat(
            ChatStyle.GEMMA_TURNS, f"the template in {source} renders as Gemma's own", text, is_tuned=True
        )
    reason = f"{source} is not Gemma's own; contents as {renderer.content_form.value}; {renderer.ends}"
    return ChatFormat(renderer, reason, text, is_tuned=True, tool_form=tool_form_of(renderer, tokenizer))


def _text_of(file: Path) -> str:
    try:
        text = read_text(file)
    except ChatTemplateError as error:
        text = str(error).removesuffix(".")
        raise ChatTemplateError(f"{text}; --chat-template takes gemma, transcript or the name of a file.") from None
    if not text:
        raise ChatTemplateError(f"the chat template {file} is empty.")
    return text
