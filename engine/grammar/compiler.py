"""What an answer must be, compiled: the seam between requests, the engine and the grammar library.

A ``GrammarSpec`` is plain data, made from a request. The ``GrammarCompiler`` of an engine makes it a ``Grammar``,
which sequences start from (``engine.grammar.state``); ``engine.grammar.library`` alone knows the library.
Any thread may compile and start; the state of a sequence belongs to the engine thread.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from engine.errors import GrammarError
from engine.grammar.closing import CLOSING_CHARS
from engine.grammar.library import LibraryMatcher, RefusedError, VocabularyTrie
from engine.grammar.schema_faults import located
from engine.grammar.spec import GrammarKind, GrammarSpec, check_size, library_text, schemas_of
from engine.grammar.state import GrammarState, TokenRules
from engine.token_mask import mask_of
from gemma3.errors import TokenizerError

MAX_CACHED_GRAMMARS = 64
MAX_CACHED_BYTES = 64 * 1024 * 1024
MAX_GRAMMAR_BYTES_IN_USE = 8 * 1024 * 1024  # a larger one is compiled afresh for the next request
MAX_CLOSING_TOKENS = 2048
MAX_MESSAGE_CHARS = 300


class Grammar:
    """Compiled. Nothing changes after construction: any thread may start from it."""

    def __init__(self, spec: GrammarSpec, matcher: LibraryMatcher, rules: TokenRules) -> None:
        self.spec = spec
        self._matcher = matcher
        self._rules = rules
        self._lock = threading.Lock()  # the library lends a matcher to one caller at a time

    @property
    def end_token_ids(self) -> frozenset[int]:
        """Each of them ends an output, where the grammar allows the end."""
        return self._rules.end_token_ids

    @property
    def num_bytes(self) -> int:
        """Of memory, at most, about."""
        return self._matcher.wear.num_bytes

    @property
    def is_worn(self) -> bool:
        """Nobody should start from it any more."""
        return self._matcher.wear.is_broken or self.num_bytes > MAX_GRAMMAR_BYTES_IN_USE

    def check_closes(self, max_tokens: int) -> None:
        """For ``x_close``: an answer that begins here can be made to end within ``max_tokens``. Any thread.

        Raises:
            GrammarError: no way to an end was found, or none that is as short.
        """
        way = self.start().closing(MAX_CLOSING_TOKENS)
        if way is None:
            words = f"x_close: no way was found to end the answer within {MAX_CLOSING_TOKENS} tokens."
            raise GrammarError(words, param="x_close", code=self.spec.kind.error_code)
        if len(way) > max_tokens:
            words = f"x_close: the answer needs {len(way)} tokens to end; max_tokens is {max_tokens}."
            raise GrammarError(words, param="max_tokens", code="invalid_value")

    def start(self) -> GrammarState:
        """The state of a sequence that has no token yet."""
        with self._lock:
            return GrammarState(self._matcher.deep_copy(), self._rules)


class GrammarCompiler:
    """Of one engine. It keeps the latest grammars."""

    def __init__(
        self,
        *,
        token_to_bytes: Callable[[int], bytes],
        encode: Callable[[str], list[int]],
        special_ids: Iterable[int],
        end_token_ids: Iterable[int],
        vocab_size: int,
    ) -> None:
        """``special_ids`` can be in no answer, but ``end_token_ids`` end one. The masks have ``vocab_size`` bits."""
        self._token_to_bytes = token_to_bytes
        self._encode = encode
        self._end_token_ids = frozenset(end_token_ids)
        self._special_ids = frozenset(i for i in special_ids if i < vocab_size)
        self._vocab_size = vocab_size
        num_mask_bytes = (vocab_size + 31) // 32 * 4
        never_ids = self._special_ids - self._end_token_ids
        self._rules = TokenRules(num_mask_bytes, self._end_token_ids)
        self._strict_rules = replace(
            self._rules, never_ids=never_ids, never_bits=mask_of(never_ids).ljust(num_mask_bytes, b"\0")
        )
        self._closing_ids: tuple[int, ...] = ()
        self._trie: VocabularyTrie | None = None
        self._trie_lock = threading.Lock()
        self._cache: OrderedDict[GrammarSpec, Grammar] = OrderedDict()
        self._cache_lock = threading.Lock()

    def build(self) -> VocabularyTrie:
        """The trie of the vocabulary: made at the first call, which may be in a thread after the start."""
        with self._trie_lock:
            if self._trie is None:
                self._closing_ids = tuple(ids[0] for c in CLOSING_CHARS if len(ids := self._encode(c)) == 1)
                self._trie = VocabularyTrie(
                    self._pieces(),
                    encode=self._encode,
                    special_ids=self._special_ids | self._end_token_ids,
                    end_token_ids=self._end_token_ids,
                )
            return self._trie

    def compile(self, spec: GrammarSpec) -> Grammar:
        """The grammar of ``spec``, maybe one made before.

        Raises:
            GrammarError: it is too large, not supported, or can have no answer.
        """
        with self._cache_lock:
            cached = self._cache.get(spec)
            if cached is not None and not cached.is_worn:
                self._cache.move_to_end(spec)
                return cached
        check_size(spec)
        grammar = Grammar(spec, self._matcher(spec), self._rules_of(spec))
        with self._cache_lock:
            self._cache[spec] = grammar
            self._cache.move_to_end(spec)
            self._shrink()
        return grammar

    def _shrink(self) -> None:
        num_bytes = sum(grammar.num_bytes for grammar in self._cache.values())
        while len(self._cache) > MAX_CACHED_GRAMMARS or num_bytes > MAX_CACHED_BYTES:
            num_bytes -= self._cache.popitem(last=False)[1].num_bytes

    def _matcher(self, spec: GrammarSpec) -> LibraryMatcher:
        text, trie = library_text(spec), self.build()
        try:
            return trie.compile(text)
        except RefusedError as error:
            message = str(error)
        for schema in schemas_of(spec):
            words = _refusal(trie, schema)
            if words is not None:
                raise located(schema, words, lambda part: _refusal(trie, part))
        raise GrammarError(f"the grammar cannot be used: {_one_line(message)}", code=spec.kind.error_code)

    def _rules_of(self, spec: GrammarSpec) -> TokenRules:
        # Lark alone can name a token: <eos>, <[2]>.
        rules = self._strict_rules if spec.kind is GrammarKind.LARK and "<" in spec.text else self._rules
        return replace(rules, closing_ids=self._closing_ids)

    def _pieces(self) -> list[bytes]:
        """By id; of two ids with one text the one stays that a text is encoded to."""
        pieces = [self._piece(i) for i in range(self._vocab_size)]
        first: dict[bytes, int] = {}
        for token_id, piece in enumerate(pieces):
            other = first.setdefault(piece, token_id)
            if piece and other != token_id and not self._special_ids & {other, token_id}:
                spare = other if self._encode(piece.decode("utf-8", "replace")) == [token_id] else token_id
                pieces[spare] = b""
                first[piece] = other + token_id - spare
        return pieces

    def _piece(self, token_id: int) -> bytes:
        try:
            piece = self._token_to_bytes(token_id)
        except TokenizerError:  # a row without a token
            return b""
        return b"" if piece.startswith(b"\xff") else piece  # never in UTF-8, and the library's mark of special tokens


def _refusal(trie: VocabularyTrie, schema: dict[str, Any]) -> str | None:
    try:
        trie.compile(json.dumps({"grammars": [{"json_schema": schema}]}))
    except RefusedError as error:
        return str(error)
    return None


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_MESSAGE_CHARS else line[: MAX_MESSAGE_CHARS - 3] + "..."
