"""Chat messages to the token ids of a prompt, and what ends the answer.

Control tokens are put in as ids and every text is encoded without them, so nothing that a user writes can open or close a turn.
Knows nothing of HTTP or of sampling; plain Python, so any thread may use it.
"""

import enum
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from gemma3.errors import ChatError
from gemma3.text.tokenizer import Gemma3Tokenizer

_SYSTEM_ROLES = ("system", "developer")
_USER_ROLES = ("user", "tool", "function")
_ROLES = (*_SYSTEM_ROLES, *_USER_ROLES, "assistant")
_GEMMA_NAMES = {"user": "user", "assistant": "model"}

# Chosen among a dozen heads on the real base model. Behind a blank line it went on to repeat the first line, and answers
# take up the subject of the example ("Why is the sky blue?" - "Jupiter is ..."), so that is a dull one.
_TRANSCRIPT_HEAD = (
    "A dialog between a User and an Assistant. The Assistant is helpful, kind and honest, and answers precisely.\n"
    "User: At what temperature does water boil?\n"
    "Assistant: Water boils at 100 degrees Celsius (212 degrees Fahrenheit) at sea level.\n"
)
_LABEL = re.compile(r"\n(?=(?:User|Assistant):)")


class ChatStyle(enum.Enum):
    """How a model was taught to see a conversation."""

    GEMMA_TURNS = "gemma-turns"  # instruction-tuned checkpoints
    TRANSCRIPT = "transcript"  # base checkpoints, which were never trained on turns


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What an assistant's turn asked a tool for; ``arguments`` is JSON text as the model wrote it."""

    name: str
    arguments: str
    call_id: str = ""

    def parsed_arguments(self) -> object:
        """The object that the arguments are, or the text itself where it is none that has UTF-8."""
        try:
            arguments = json.loads(self.arguments)
            # In as many brackets as a template or a form of ours may put around them.
            json.dumps([[[[[[[[arguments]]]]]]]], ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return self.arguments
        return arguments if isinstance(arguments, dict) else self.arguments


@dataclass(frozen=True, slots=True)
class Message:
    """``role``: system, developer, user, assistant, tool or function. The rest is for formats that show it."""

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """``stop`` and ``stop_token_ids`` end the answer, in addition to what the request asks for.

    ``answer_lead``: what the model puts before an answer where the prompt ends; a grammar has it in front.
    """

    token_ids: tuple[int, ...]
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    answer_lead: str = ""


def render_chat(
    messages: Sequence[Message],
    tokenizer: Gemma3Tokenizer,
    style: ChatStyle,
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> ChatPrompt:
    """The prompt of a conversation.

    ``add_generation_prompt`` opens the assistant's turn. ``continue_final_message`` leaves the last message, which must be the
    assistant's, open instead, so that the model goes on with it.

    Raises:
        ChatError: no messages, an unknown role, or flags that contradict each other or the last message.
        TokenizerError: a message holds a lone surrogate.
    """
    check_messages(messages, add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message)
    turns = _alternating(messages)
    adds_prompt, leaves_open = add_generation_prompt, continue_final_message
    if style is ChatStyle.TRANSCRIPT:
        text = _transcript(turns, add_generation_prompt=adds_prompt, leave_open=leaves_open)
        token_ids = tokenizer.encode(text, add_bos=True)
        begins_anew = adds_prompt or (leaves_open and not turns[-1].text)
        lead = " " if begins_anew else ""
        return ChatPrompt(tuple(token_ids), ("\nUser:",), (tokenizer.eos_token_id,), answer_lead=lead)
    turn_ids = _gemma_turns(turns, tokenizer, add_generation_prompt=adds_prompt, leave_open=leaves_open)
    return ChatPrompt(tuple(turn_ids), (), (tokenizer.end_of_turn_id, tokenizer.eos_token_id))


def with_instructions(messages: Sequence[Message], text: str) -> list[Message]:
    """``text`` as the last of the system's messages in front."""
    num_leading = sum(1 for _ in takewhile(lambda message: message.role in _SYSTEM_ROLES, messages))
    return [*messages[:num_leading], Message("system", text), *messages[num_leading:]]


def alternating(messages: Sequence[Message]) -> list[Message]:
    """The same conversation as texts of a user and of an assistant in turn, which every form can show."""
    return [Message(turn.role, turn.text) for turn in _alternating(messages)]


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str  # user or assistant
    text: str


def check_messages(messages: Sequence[Message], *, add_generation_prompt: bool, continue_final_message: bool) -> None:
    """Raises: ChatError as ``render_chat``; every form asks for it."""
    if not messages:
        raise ChatError("messages is empty; at least one message is needed.")
    for i, message in enumerate(messages):
        if message.role not in _ROLES:
            raise ChatError(f"messages[{i}].role is {message.role[:40]!a}; allowed are {', '.join(_ROLES)}.")
    if continue_final_message and add_generation_prompt:
        text = "continue_final_message and add_generation_prompt are both true; only one of them can be."
        raise ChatError(text, param="continue_final_message")
    if continue_final_message and messages[-1].role != "assistant":
        at = f"messages[{len(messages) - 1}].role"
        raise ChatError(f"{at} is {messages[-1].role!a}; continue_final_message needs 'assistant'.")


def _alternating(messages: Sequence[Message]) -> list[_Turn]:
    """User and assistant in turn, the user first: the only form that Gemma's own template accepts.

    System texts at the front go before the first user turn; later ones are a user's words where they stand. A conversation
    that the assistant opens gets a user turn before it, which holds the system texts or nothing.
    """
    leading = list(takewhile(lambda message: message.role in _SYSTEM_ROLES, messages))
    system, spoken = [message.content for message in leading], messages[len(leading) :]
    turns = [_Turn(role, _joined(group)) for role, group in groupby(spoken, key=_turn_role)]
    if not turns or turns[0].role == "assistant":
        return [_Turn("user", "\n\n".join(system).strip()), *turns]
    return [_Turn("user", "\n\n".join([*system, turns[0].text])), *turns[1:]]


def _turn_role(message: Message) -> str:
    return "assistant" if message.role == "assistant" else "user"


def _joined(messages: Iterable[Message]) -> str:
    """Their texts, trimmed as the template trims them; an empty one leaves no blank line behind."""
    texts = (text for message in messages for text in (message.content.strip(), *map(_call_text, message.tool_calls)))
    return "\n\n".join(text for text in texts if text)


def _call_text(call: ToolCall) -> str:
    """A call of a tool as Google's guide to function calling has Gemma write it."""
    return json.dumps({"name": call.name, "parameters": call.parsed_arguments()}, ensure_ascii=False)


def _gemma_turns(
    turns: Sequence[_Turn], tokenizer: Gemma3Tokenizer, *, add_generation_prompt: bool, leave_open: bool
) -> list[int]:
    """``<bos>``, then for each turn ``<start_of_turn>role\\ntext<end_of_turn>\\n``.

    What lies between two control tokens is encoded as one string, as the official tokenizer sees it: the line break behind
    the role may merge with the text.
    """
    token_ids = [tokenizer.bos_token_id]
    for i, turn in enumerate(turns):
        token_ids.append(tokenizer.start_of_turn_id)
        token_ids += tokenizer.encode(f"{_GEMMA_NAMES[turn.role]}\n{turn.text}")
        if leave_open and i == len(turns) - 1:
            return token_ids
        token_ids.append(tokenizer.end_of_turn_id)
        token_ids += tokenizer.encode("\n")
    if add_generation_prompt:
        token_ids.append(tokenizer.start_of_turn_id)
        token_ids += tokenizer.encode(f"{_GEMMA_NAMES['assistant']}\n")
    return token_ids


def _transcript(turns: Sequence[_Turn], *, add_generation_prompt: bool, leave_open: bool) -> str:
    """Plain text without a space at its end: the model's own next token begins with one."""
    lines = [_line(turn) for turn in turns if turn.text or turn.role == "assistant"]
    if add_generation_prompt:
        lines.append("Assistant:")
    text = _TRANSCRIPT_HEAD + "\n".join(lines)
    return text if add_generation_prompt or leave_open else text + "\n"


def _line(turn: _Turn) -> str:
    """``User: text``. A line of the text that itself begins like a turn is set in by a space, so it does not read as one."""
    label = f"{turn.role.capitalize()}:"
    return f"{label} {_LABEL.sub(chr(10) + ' ', turn.text)}" if turn.text else label
