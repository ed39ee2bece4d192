"""A grammar that counts the seconds that its sequences spend in it."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from engine.grammar.compiler import Grammar
from engine.grammar.state import GrammarState

T = TypeVar("T")


class TimedGrammar:
    """In the place of ``grammar``, whose values it has."""

    def __init__(self, grammar: Grammar) -> None:
        self.seconds = 0.0
        self._grammar = grammar

    def __getattr__(self, name: str) -> object:
        return getattr(self._grammar, name)

    def start(self) -> "TimedState":
        return TimedState(self.timed(self._grammar.start), self)

    def timed(self, ask: Callable[[], T]) -> T:
        began_s = time.perf_counter()
        answer = ask()
        self.seconds += time.perf_counter() - began_s
        return answer


class TimedState:
    """In the place of ``state``."""

    def __init__(self, state: GrammarState, grammar: TimedGrammar) -> None:
        self._state = state
        self._grammar = grammar

    @property
    def is_complete(self) -> bool:
        return self._grammar.timed(lambda: self._state.is_complete)

    def accept(self, token_ids: Sequence[int]) -> None:
        self._grammar.timed(lambda: self._state.accept(token_ids))

    def forced(self, limit: int) -> list[int]:
        return self._grammar.timed(lambda: self._state.forced(limit))

    def mask(self) -> bytes:
        return self._grammar.timed(self._state.mask)

    def masks(self, draft_token_ids: Sequence[int]) -> list[bytes]:
        return self._grammar.timed(lambda: self._state.masks(draft_token_ids))
