"""What an answer must be, compiled: the seam between requests, the engine and the grammar library.

A ``GrammarSpec`` is plain data, made from a request. The ``GrammarCompiler`` of an engine makes it a ``Grammar``,
which sequences start from (``engine.grammar_state``); ``engine.grammar_library`` alone knows the library.
Any thread may compile and start; the state of a sequence belongs to the engine thread.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engine.errors import GrammarError
from engine.grammar_library import RefusedError, VocabularyTrie
from engine.grammar_state import GrammarState, Matcher, TokenRules
from gemma3.errors import TokenizerError

MAX_GRAMMAR_BYTES = 64 * 1024
MAX_CACHED_GRAMMARS = 64
MAX_MESSAGE_CHARS = 300
MAX_CACHED_BYTES = 32 * 1024 * 1024

# Compact JSON as the model knows it; no other whitespace is possible.
ITEM_SEPARATOR = ", "
KEY_SEPARATOR = ": "


class GrammarKind(StrEnum):
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"  # the library's own dialect, which may embed ``%json {...}`` and ``%regex``


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What an answer must be.

    ``text`` is the JSON of a schema, a regular expression, or a Lark grammar. The output begins with ``lead``, which
    is no part of the answer: " " after a transcript's "Assistant:".
    """

    kind: GrammarKind
    text: str
    lead: str = ""


class Grammar:
    """Compiled. Nothing changes after construction: any thread may start from it."""

    def __init__(self, spec: GrammarSpec, matcher: Matcher, rules: TokenRules) -> None:
        self.spec = spec
        self._matcher = matcher
        self._rules = rules
        self._lock = threading.Lock()  # the library lends a matcher to one caller at a time

    @property
    def end_token_ids(self) -> frozenset[int]:
        """Each of them ends an output, where the grammar allows the end."""
        return self._rules.end_token_ids

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
        self._strict_rules = TokenRules(num_mask_bytes, self._end_token_ids, never_ids, _bits(never_ids))
        self._trie: VocabularyTrie | None = None
        self._trie_lock = threading.Lock()
        self._cache: OrderedDict[GrammarSpec, Grammar] = OrderedDict()
        self._cache_lock = threading.Lock()

    def build(self) -> VocabularyTrie:
        """The trie of the vocabulary: made at the first call, which may be in a thread after the start."""
        with self._trie_lock:
            if self._trie is None:
                self._trie = VocabularyTrie(
                    [self._piece(i) for i in range(self._vocab_size)],
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
            if spec in self._cache:
                self._cache.move_to_end(spec)
                return self._cache[spec]
        if len(spec.text.encode("utf-8", "replace")) > MAX_GRAMMAR_BYTES:
            raise GrammarError(f"it is longer than {MAX_GRAMMAR_BYTES} bytes.", code=_code(spec.kind))
        grammar = Grammar(spec, self._matcher(spec), self._rules_of(spec))
        with self._cache_lock:
            self._cache[spec] = grammar
            while len(self._cache) > MAX_CACHED_GRAMMARS:
                self._cache.popitem(last=False)
        return grammar

    def _matcher(self, spec: GrammarSpec) -> Matcher:
        try:
            return self.build().compile(_library_text(spec))
        except RefusedError as error:
            raise GrammarError(_one_line(str(error)), code=_code(spec.kind)) from None

    def _rules_of(self, spec: GrammarSpec) -> TokenRules:
        # Lark alone can name a token: <eos>, <[2]>.
        return self._strict_rules if spec.kind is GrammarKind.LARK and "<" in spec.text else self._rules

    def _piece(self, token_id: int) -> bytes:
        try:
            piece = self._token_to_bytes(token_id)
        except TokenizerError:  # a row without a token
            return b""
        return b"" if piece.startswith(b"\xff") else piece  # never in UTF-8, and the library's mark of special tokens


def _code(kind: GrammarKind) -> str:
    return "invalid_json_schema" if kind is GrammarKind.JSON_SCHEMA else "invalid_grammar"


def _bits(ids: Iterable[int]) -> int:
    return sum(1 << i for i in ids)


def _library_text(spec: GrammarSpec) -> str:
    """``spec`` as the library's list of grammars: the first is the start, and names the others."""
    body: dict[str, Any] = {"name": "answer"}
    if spec.kind is GrammarKind.JSON_SCHEMA:
        body["json_schema"] = _with_options(spec.text)
    elif spec.kind is GrammarKind.REGEX:
        body["lark_grammar"] = f"start: /{_in_slashes(spec.text)}/"
    else:
        body["lark_grammar"] = spec.text
    if not spec.lead:
        return json.dumps({"grammars": [body]})
    return json.dumps({"grammars": [{"lark_grammar": f"start: {json.dumps(spec.lead)} @answer"}, body]})


def _with_options(text: str) -> Any:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise GrammarError(f"it is no JSON: {error}.", code="invalid_json_schema") from None
    if not isinstance(schema, dict):
        return schema
    options = {"whitespace_flexible": False, "item_separator": ITEM_SEPARATOR, "key_separator": KEY_SEPARATOR}
    return schema | {"x-guidance": options}


def _in_slashes(regex: str) -> str:
    from llguidance import regex_to_lark

    return regex_to_lark(regex)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_MESSAGE_CHARS else line[: MAX_MESSAGE_CHARS - 3] + "..."
