"""The one door to ``llguidance``: the trie of a vocabulary, and grammars compiled to matchers.

Owns the options, the limits and the words of what the library refuses; the rest of the project does not know it.
It is imported at first use, so that a start does not pay for it. Any thread; construction gives the GIL free.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.errors import StepError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits


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
        """A matcher at its start.

        Raises:
            RefusedError: the library refuses the grammar, or its limits do.
        """
        from llguidance import LLMatcher

        with _no_panic(RefusedError):
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_limits())
        if matcher.is_error():
            raise RefusedError(matcher.get_error())
        return LibraryMatcher(matcher)


class RefusedError(Exception):
    """The library's own words about a grammar; may be long and hold pieces of it."""


class LibraryMatcher:
    """The library's matcher behind a guard: a panic in it is a StepError."""

    def __init__(self, matcher: "LLMatcher") -> None:
        self._matcher = matcher

    def is_error(self) -> bool:
        return self._matcher.is_error()

    def is_stopped(self) -> bool:
        with _no_panic(StepError):
            return self._matcher.is_stopped()

    def stop_reason(self) -> str:
        with _no_panic(StepError):
            return self._matcher.stop_reason()

    def rollback(self, num_tokens: int) -> bool:
        with _no_panic(StepError):
            return self._matcher.rollback(num_tokens)

    def consume_tokens(self, token_ids: list[int]) -> bool:
        with _no_panic(StepError):
            return self._matcher.consume_tokens(token_ids)

    def validate_tokens(self, token_ids: list[int]) -> int:
        with _no_panic(StepError):
            return self._matcher.validate_tokens(token_ids)

    def compute_ff_tokens(self) -> list[int]:
        with _no_panic(StepError):
            return self._matcher.compute_ff_tokens()

    def compute_bitmask(self) -> bytes:
        with _no_panic(StepError):
            return self._matcher.compute_bitmask()

    def deep_copy(self) -> "LibraryMatcher":
        with _no_panic(StepError):
            return LibraryMatcher(self._matcher.deep_copy())


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
    from llguidance import LLParserLimits

    return LLParserLimits(verbose_errors=False)
