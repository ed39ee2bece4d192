"""The one door to ``llguidance``: the trie of a vocabulary, and grammars compiled to matchers.

Owns the options, the limits and the words of what the library refuses; the rest of the project does not know it.
It is imported at first use, so that a start does not pay for it. Any thread; making the trie holds the GIL.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from engine.errors import StepError
from engine.grammar.matcher import is_too_complex

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits

T = TypeVar("T")

COMPILE_STACK_BYTES = 256 * 1024 * 1024  # of address space: only what is used becomes memory
PROBED_TOKENS = 64
_STACK_LOCK = threading.Lock()


class VocabularyTrie:
    """The pieces of a vocabulary as the library needs them: made once, some seconds of work at 262,144 pieces."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        *,
        encode: Callable[[str], list[int]],
        special_ids: frozenset[int],
        end_token_ids: frozenset[int],
    ) -> None:
        """``pieces`` by id; an id with an empty piece is in no mask."""
        from llguidance import LLTokenizer

        source = _TokenizerSource(pieces, encode, special_ids=special_ids, end_token_ids=end_token_ids)
        self._tokenizer = LLTokenizer(source, eos_token=sorted(end_token_ids))  # type: ignore[arg-type]

    def compile(self, grammar: str) -> "LibraryMatcher":
        """A matcher at its start, which has an answer to begin.

        Raises:
            RefusedError: the library refuses the grammar, or its limits do.
        """
        return on_large_stack(lambda: self._compile(grammar))

    def _compile(self, grammar: str) -> "LibraryMatcher":
        from llguidance import LLMatcher

        with _no_panic(RefusedError):
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_limits())
            # The first step shows an empty language, and what is too complex to go on with.
            first = matcher.deep_copy() if not matcher.is_error() else matcher
            first.consume_tokens(first.compute_ff_tokens()[:PROBED_TOKENS])
            first.compute_bitmask()
        if first.is_error():
            raise RefusedError(_first_words(first) if first is not matcher else matcher.get_error())
        return LibraryMatcher(matcher, Wear(num_bytes_at_start=100_000 + 200 * len(grammar)))


def _first_words(matcher: "LLMatcher") -> str:
    """Why the first step failed."""
    return "it is too complex" if is_too_complex(matcher.get_error()) else "no answer fits it"


def on_large_stack(call: Callable[[], T]) -> T:
    """``call()`` in a thread of its own: the library recurses, some kilobytes for each level of rules or references,
    and 64 KiB of text have levels enough to leave a usual stack, which ends the process."""
    with _STACK_LOCK:
        usual = threading.stack_size(COMPILE_STACK_BYTES)
        try:
            done: Future[T] = Future()
            thread = threading.Thread(target=_run, args=(call, done), name="grammar", daemon=True)
            thread.start()
        finally:
            threading.stack_size(usual)
    return done.result()


def _run(call: Callable[[], T], done: "Future[T]") -> None:
    try:
        done.set_result(call())
    except BaseException as error:  # told to the caller
        done.set_exception(error)


class RefusedError(Exception):
    """The library's own words about a grammar; may be long and hold pieces of it."""


@dataclass(slots=True)
class Wear:
    """Of a grammar: all its matchers share one lexer, which only grows, and once it has failed fails for each of them.

    Mutable; engine thread. The library does not tell its size, but the states it adds take time: at most 40 kB are
    added in a millisecond (measured over expressions made to explode).
    """

    num_bytes_at_start: int
    seconds: float = 0.0
    is_broken: bool = False

    @property
    def num_bytes(self) -> int:
        """At most, about."""
        return self.num_bytes_at_start + int(self.seconds * 40e6)


class LibraryMatcher:
    """The library's matcher behind a guard: a panic in it is a StepError."""

    def __init__(self, matcher: "LLMatcher", wear: Wear) -> None:
        self._matcher = matcher
        self.wear = wear

    def is_error(self) -> bool:
        if not self._matcher.is_error():
            return False
        self.wear.is_broken = True
        return True

    def is_stopped(self) -> bool:
        return self._asked(self._matcher.is_stopped)

    def is_accepting(self) -> bool:
        return self._asked(self._matcher.is_accepting)

    def get_error(self) -> str:
        return self._asked(self._matcher.get_error)

    def rollback(self, num_tokens: int) -> bool:
        return self._asked(lambda: self._matcher.rollback(num_tokens))

    def consume_tokens(self, token_ids: list[int]) -> bool:
        return self._asked(lambda: self._matcher.consume_tokens(token_ids))

    def validate_tokens(self, token_ids: list[int]) -> int:
        return self._asked(lambda: self._matcher.validate_tokens(token_ids))

    def compute_ff_tokens(self) -> list[int]:
        return self._asked(self._matcher.compute_ff_tokens)

    def compute_bitmask(self) -> bytes:
        return self._asked(self._matcher.compute_bitmask)

    def deep_copy(self) -> "LibraryMatcher":
        return LibraryMatcher(self._asked(self._matcher.deep_copy), self.wear)

    def _asked(self, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        with _no_panic(StepError):
            answer = call()
        self.wear.seconds += time.perf_counter() - began
        return answer


class _no_panic:  # noqa: N801 (reads as the statement it is)
    """A panic of the library, which is no ``Exception``, becomes ``kind``."""

    def __init__(self, kind: type[Exception]) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise self._kind(f"the grammar library failed: {type(error).__name__}.") from error


class _TokenizerSource:
    """The shape in which the library reads a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self,
        pieces: Sequence[bytes],
        encode: Callable[[str], list[int]],
        *,
        special_ids: frozenset[int],
        end_token_ids: frozenset[int],
    ) -> None:
        self.tokens = pieces
        self.special_token_ids = sorted(special_ids)
        self.eos_token_id = min(end_token_ids)
        self._encode = encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text.decode() if isinstance(text, bytes) else text)


def _limits() -> "LLParserLimits":
    """The library's own, but for the states of a lexer, about 1 kB each, which are 250,000 there, and the items of a row,
    2,000 there, which cost their square.

    A mask spends at most ``step_lexer_fuel``, some 40 ms, or ``step_max_items``, at most 60 ms, without the GIL; a
    construction at most ``initial_lexer_fuel``, under a second.
    """
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_items_in_row=1_000,
        max_lexer_states=65_536,
        verbose_errors=False,
    )
