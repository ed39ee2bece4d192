"""An answer with calls of tools, read as it comes: text first, then calls, the arguments in pieces.

Owns what is held back because it may open a call, and what around calls is not shown. Sees only
what the model has written in this answer, so no text of a user and no result of a tool is ever read
as a call. Knows no HTTP. For one choice of one answer; one thread uses each.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from gemma3.text.tool_form import ArgumentsScanner, CallRules, ToolForm, ToolParseError

# Tuned models like to write a call into a block of code.
_FENCE = r"\s*(?:```\w{0,12}\s*)?"
_MAX_HELD_CHARS = 128  # what opens a call is shorter, white space and all
_NAME = r"[a-zA-Z0-9_.-]{1,64}"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of call ``index``: its name, which comes once and first, or a piece of its arguments as JSON."""

    index: int
    name: str | None = None
    arguments: str = ""


ToolDelta = TextDelta | CallDelta


class ToolParser:
    """Mutable. ``num_calls`` were begun; the last one is cut off where ``is_cut``. ``stop_match`` is the
    stop string that ended the text.
    """

    def __init__(self, form: ToolForm, rules: CallRules, *, names: tuple[str, ...]) -> None:
        """``names`` are the tools that may be called."""
        self.num_calls = 0
        self.stop_match: str | None = None
        self._form = form
        self._rules = rules
        self._opening = re.compile(form.opening_regex)
        self._behind_text = re.compile(rf"{_FENCE}\Z")
        self._maybe_call = re.compile(rf"(?:\s*`{{1,2}}|{_FENCE}(?:{form.begun_opening_regex})?)\Z")
        self._head = re.compile(f"{re.escape(form.before_name)}({_NAME}){re.escape(form.before_arguments)}(?=[{{])")
        self._max_head_chars = len(form.head("")) + 64
        self._heads = tuple(form.head(name) for name in names)
        self._held = ""
        self._scanner: ArgumentsScanner | None = None
        self._read: Callable[[list[ToolDelta]], bool] = self._read_text if rules.answer is None else self._choose

    @property
    def is_cut(self) -> bool:
        """The end came within a call, if it came now."""
        return self._read in (self._read_head, self._read_arguments)

    def push(self, text: str) -> list[ToolDelta]:
        """What more of the answer tells.

        Raises:
            ToolParseError: it can be no answer in this form.
        """
        self._held += text
        deltas: list[ToolDelta] = []
        while self._read(deltas):
            pass
        return deltas

    def finish(self) -> list[ToolDelta]:
        """What was held back, where the answer ends with text."""
        held, self._held = self._held, ""
        return [TextDelta(held)] if held and self._read in (self._read_text, self._choose) else []

    def _read_text(self, deltas: list[ToolDelta]) -> bool:
        """Free text, up to the first call or the first stop string, whichever is complete first."""
        call, (stop_start, stop_end) = self._opening.search(self._held), self._first_stop()
        if call is not None and not 0 <= stop_end < call.end():
            text, self._held, self._read = self._held[: call.start()], self._held[call.end() :], self._read_head
            self._tell(self._behind_text.sub("", text), deltas)
            return True
        if stop_end >= 0:
            text, self._read = self._held[:stop_start], self._drop
            self.stop_match = self._held[stop_start:stop_end]
            self._tell(text, deltas)
            return True
        num_safe = self._num_safe()
        text, self._held = self._held[:num_safe], self._held[num_safe:]
        self._tell(text, deltas)
        return False

    def _choose(self, deltas: list[ToolDelta]) -> bool:
        """A structured answer or calls: which, is known when no call begins like this, or one has begun."""
        if any(self._held.startswith(head) for head in self._heads):
            self._held, self._read = self._held[len("".join(self._form.opening)) :], self._read_head
            return True
        if any(head.startswith(self._held) for head in self._heads):
            return False
        self._read = self._read_answer
        return True

    def _read_answer(self, deltas: list[ToolDelta]) -> bool:
        text, self._held = self._held, ""
        self._tell(text, deltas)
        return False

    def _read_head(self, deltas: list[ToolDelta]) -> bool:
        """Behind the opening, up to the arguments."""
        head = self._head.match(self._held)
        if head is None:
            if len(self._held) > self._max_head_chars:
                raise ToolParseError("the head of a call is none.")
            return False
        deltas.append(CallDelta(self.num_calls, head[1]))
        self.num_calls += 1
        self._scanner = self._form.arguments.scanner()
        self._held, self._read = self._held[head.end() :], self._read_arguments
        return True

    def _read_arguments(self, deltas: list[ToolDelta]) -> bool:
        assert self._scanner is not None
        piece = self._scanner.read(self._held)
        self._held = self._held[piece.num_read :]
        if piece.json:
            deltas.append(CallDelta(self.num_calls - 1, arguments=piece.json))
        if piece.is_complete:
            self._read = self._read_between
        return piece.is_complete

    def _read_between(self, deltas: list[ToolDelta]) -> bool:
        """Behind a call: what opens the next one; all else is no part of the answer."""
        call = self._opening.search(self._held)
        self._held = self._held[-_MAX_HELD_CHARS:] if call is None else self._held[call.end() :]
        if call is not None:
            self._read = self._read_head
        return call is not None

    def _drop(self, deltas: list[ToolDelta]) -> bool:
        """Behind a stop string."""
        self._held = ""
        return False

    def _tell(self, text: str, deltas: list[ToolDelta]) -> None:
        if text:
            deltas.append(TextDelta(text))

    def _first_stop(self) -> tuple[int, int]:
        """Where the stop string that is complete first begins and ends; (-1, -1) if none is."""
        found = ((self._held.find(stop), len(stop)) for stop in self._rules.stop)
        return min(((start, start + size) for start, size in found if start >= 0), key=_by_end, default=(-1, -1))

    def _num_safe(self) -> int:
        """The characters that are text whatever follows."""
        tail = max(0, len(self._held) - _MAX_HELD_CHARS)
        maybe_call = self._maybe_call.search(self._held, tail)
        num_safe = len(self._held) if maybe_call is None else maybe_call.start()
        for stop in self._rules.stop:
            starts = range(max(0, len(self._held) + 1 - len(stop)), num_safe)
            num_safe = next((start for start in starts if stop.startswith(self._held[start:])), num_safe)
        return num_safe


def _by_end(span: tuple[int, int]) -> tuple[int, int]:
    return span[1], span[0]
