"""How a model writes calls of tools: what opens a call, what stands around its parts, the notation of arguments.

A ``ToolForm`` is data. ``gemma3.text.tool_grammar`` makes the grammar of an answer from it,
``gemma3.text.tool_parser`` reads the answer by it. Knows nothing of HTTP, of token ids or of a
grammar library. Immutable; any thread.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gemma3.errors import ChatError

Tools = Sequence[Mapping[str, object]]
"""Each ``{"type": "function", "function": {"name", "description", "parameters"}}``, as templates take them."""

MAX_CALLS = 128  # in one answer: as many as a message that is handed back may have
_GAP = r"\s{0,16}"


class ToolParseError(ValueError):
    """An output that was to be calls is none; a grammar that was obeyed makes it impossible."""


@dataclass(frozen=True, slots=True)
class ArgumentsPiece:
    """What a scanner made of a text: JSON, how many characters it took, and whether the arguments end there."""

    json: str
    num_read: int
    is_complete: bool


class ArgumentsScanner(Protocol):
    """Of one call: finds the end of its arguments, and gives them as JSON."""

    def read(self, text: str) -> ArgumentsPiece:
        """What it does not take now it must be given again, with more.

        Raises:
            ToolParseError: this is no object in the form's notation.
        """


class ArgumentsNotation(Protocol):
    """How arguments are written: as JSON, or otherwise. ``definitions`` are lines that its Lark needs once."""

    @property
    def definitions(self) -> tuple[str, ...]: ...

    def lark(self, schema: Mapping[str, object]) -> str:
        """An expression in the grammar library's Lark for every object of ``schema``."""

    def scanner(self) -> ArgumentsScanner: ...


@dataclass(frozen=True, slots=True)
class ToolForm:
    """One call is ``opening``, ``before_name``, the name, ``before_arguments``, arguments, ``after_arguments``.

    Attributes:
        opening: opens a call wherever it stands in an answer, white space between its parts or not.
        ends: what the model may write behind its last call; it is no part of the answer.
        instructions: the prompt in front of the tools, where no template shows them.
        writes_several: the model was taught to write several calls in an answer, and when to end.
    """

    name: str
    opening: tuple[str, ...]
    before_name: str
    before_arguments: str
    after_arguments: str
    arguments: ArgumentsNotation
    ends: tuple[str, ...] = ()
    instructions: str | None = None
    writes_several: bool = True

    def prompt(self, tools: Tools) -> str:
        """What tells the model of the tools, for the place of the system's text.

        Raises:
            ChatError: a lone surrogate in their words.
        """
        functions = [tool["function"] for tool in tools]
        text = f"{self.instructions}\n{json.dumps(functions, ensure_ascii=False)}"
        if re.search("[\ud800-\udfff]", text):
            raise ChatError("tools hold a lone surrogate, which has no UTF-8.", param="tools")
        return text

    def head(self, name: str) -> str:
        """A call of ``name`` up to its arguments."""
        return "".join(self.opening) + self.before_name + name + self.before_arguments

    @property
    def opening_regex(self) -> str:
        """For Python and for Lark alike."""
        return _GAP.join(map(_escaped, self.opening))

    @property
    def begun_opening_regex(self) -> str:
        """Of each text that an opening begins with."""
        begun = ""
        for part in reversed(self.opening):
            for char in reversed(part):
                begun = f"(?:{_escaped(char)}{begun})?"
            begun = _GAP + begun
        return begun.removeprefix(_GAP).removesuffix("?")


def _escaped(text: str) -> str:
    """As both dialects read it; Lark's regexes end at a slash."""
    return re.escape(text).replace("/", r"\/").replace(r"\"", '"')


@dataclass(frozen=True, slots=True)
class CallRules:
    """What an answer with tools may be.

    Attributes:
        is_required: calls and nothing else.
        is_parallel: several calls, not only one.
        stop: what ends free text, but never a call.
        ends: what may follow the last call, as the next turn of a transcript.
        answer: Lark of what an answer without a call must be; else it is free text.
    """

    is_required: bool = False
    is_parallel: bool = True
    stop: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    answer: str | None = None
