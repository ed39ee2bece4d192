"""What a ``tokenizer.json`` holds: its pieces, its added tokens, and the settings of its pipeline.

Owns the reading of the file and every check that the ids make one vocabulary. Knows nothing of
encoding: ``own_pipeline`` says whether Gemma's merger may stand for what the file describes, and
``library_pipeline`` runs what it may not. Plain values once read, any thread.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from gemma3.errors import TokenizerError
from gemma3.files.file_kinds import impostor
from gemma3.text.vocabulary import Vocabulary

# A merge is a pair of strings, so this can only be the key.
_MERGES = re.compile(rb'"merges"\s*:\s*\[')
_END = re.compile(rb"\]\s*\}\s*\}\s*$")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A piece that is cut out of a text as it stands; the flags are those of the ``tokenizers`` library."""

    token_id: int
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class TokenizerFile:
    """An opened ``tokenizer.json``.

    ``content`` is the JSON object, its table of merges left out where that lies at the end: two thirds of the file, and
    nothing new in Gemma's own. ``merges_sha256`` is then the hash of that part.
    """

    def __init__(self, source: str, data: bytes) -> None:
        self.source = source
        self._data = data
        merges = _MERGES.search(data)
        start = merges.start() if merges is not None and _END.search(data[-64:]) else len(data)
        self._has_all = start == len(data)
        with ThreadPoolExecutor(max_workers=1) as pool:  # hashing leaves the interpreter free for the parsing
            digest = pool.submit(hashlib.sha256, memoryview(data)[start:])
            self.content = self._parse(data if self._has_all else data[:start] + b'"merges": []}}')
            self.merges_sha256 = digest.result().hexdigest()
        self.model: dict[str, Any] = self.content["model"]
        self.added = tuple(self._added_token(i, each) for i, each in enumerate(self._list("added_tokens")))
        self.model_ids = self._model_ids()
        self.pieces = self._pieces()
        # A copy is made five times as quickly as a new dict.
        self.ids = dict(self.model_ids) | {token.content: token.token_id for token in self.added}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and check a file.

        Raises:
            TokenizerError: it is missing or damaged, or its ids contradict each other.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise TokenizerError(f"{path}: no such file.") from None
        except OSError as error:
            raise TokenizerError(f"{path} cannot be read: {error.strerror}.") from None
        return cls(str(path), data)

    @cached_property
    def whole(self) -> dict[str, Any]:
        """The JSON object with its merges."""
        return self.content if self._has_all else self._parse(self._data)

    def merges(self) -> list[tuple[str, str]]:
        """The table of merges of a BPE model; older files write a pair as one text, with a space between.

        Raises:
            TokenizerError: it is no such table, or names a piece that the vocabulary lacks.
        """
        table = self.whole["model"].get("merges")
        if not isinstance(table, list):
            raise self.refusal(f"has {table!a:.60} as model.merges; it must be a list")
        pairs = [tuple(each.split(" ")) if isinstance(each, str) else each for each in table]
        return [self._merge(i, pair) for i, pair in enumerate(pairs)]

    def _merge(self, at: int, pair: Any) -> tuple[str, str]:
        try:
            left, right = pair
            known = left in self.model_ids and right in self.model_ids
        except (TypeError, ValueError):
            raise self.refusal(f"has {pair!a:.60} as model.merges[{at}]; it must be a pair of pieces") from None
        if not known:
            raise self.refusal(f"merges {left!a:.60} and {right!a:.60} (model.merges[{at}]): no such piece")
        return left, right

    def vocabulary(self) -> Vocabulary:
        """What Gemma's own pipeline needs to know."""
        return Vocabulary(
            self.pieces,
            frozenset(token.token_id for token in self.added),
            frozenset(token.token_id for token in self.added if token.special),
            late_ids=frozenset(token.token_id for token in self.added if token.normalized),
        )

    def _parse(self, data: bytes) -> dict[str, Any]:
        other = impostor(data[:32])
        if other is not None:
            raise self.refusal(f"is {other}")
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.refusal(f"is not a tokenizer.json: {str(error) or 'nested too deeply'}") from None
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise self.refusal("is not a tokenizer.json: it has no model")
        return content

    def _list(self, key: str) -> list[Any]:
        found = self.content.get(key)
        if found is not None and not isinstance(found, list):
            raise self.refusal(f"has {found!a:.60} as {key}; it must be a list")
        return found or []

    def _added_token(self, at: int, token: object) -> AddedToken:
        name = f"added_tokens[{at}]"
        if not isinstance(token, dict):
            raise self.refusal(f"has {token!a:.60} as {name}; it must be an object")
        token_id, content = token.get("id"), token.get("content")
        if type(token_id) is not int or token_id < 0:
            raise self.refusal(f"has {token_id!a:.60} as {name}.id; ids are 0, 1, 2 and so on")
        if not isinstance(content, str) or not content:
            raise self.refusal(f"has {content!a:.60} as {name}.content; it must be a text")
        flags = [token.get(flag, False) for flag in _FLAGS]
        if set(map(type, flags)) != {bool}:
            flag = next(flag for flag in _FLAGS if not isinstance(token.get(flag, False), bool))
            raise self.refusal(f"has {token[flag]!a:.60} as {name}.{flag}; it must be true or false")
        return AddedToken(token_id, content, *flags)

    def _model_ids(self) -> Mapping[str, int]:
        """Each piece of the model and its id; a Unigram model lists pieces and scores in order of ids."""
        vocab = self.model.get("vocab")
        if isinstance(vocab, list):
            names = [each[0] if isinstance(each, list) and each else None for each in vocab]
            if not all(isinstance(name, str) for name in names):
                raise self.refusal("has an entry of model.vocab that is not a piece and its score")
            ids = {name: i for i, name in enumerate(names) if name is not None}
            if len(ids) != len(names):
                raise self.refusal(f"has {len(names)} pieces, only {len(ids)} of them different")
            return ids
        if not isinstance(vocab, dict):
            raise self.refusal(f"has no vocabulary: model.vocab is {vocab!a:.60}")
        if not set(map(type, vocab.values())) <= {int}:
            piece, value = next((piece, i) for piece, i in vocab.items() if type(i) is not int)
            raise self.refusal(f"has {value!a:.60} as the id of {piece!a:.60}; it must be an integer")
        return vocab

    def _pieces(self) -> list[str]:
        """``pieces[token_id]`` of the model, then of the tokens that were added behind it."""
        pieces = list(self.model_ids)
        if list(self.model_ids.values()) != list(range(len(pieces))):  # as they lie in all files but edited ones
            pieces = self._in_order_of_ids()
        self._add(pieces)
        if "" in self.model_ids:
            raise self.refusal(f"is damaged: token {self.model_ids['']} has no text")
        try:
            "".join(pieces).encode()
        except UnicodeEncodeError:
            raise self.refusal("has a piece with a lone surrogate, which has no UTF-8") from None
        return pieces

    def _in_order_of_ids(self) -> list[str]:
        by_id = {token_id: piece for piece, token_id in self.model_ids.items()}
        if len(by_id) != len(self.model_ids):
            piece, token_id = next((piece, i) for piece, i in self.model_ids.items() if by_id[i] != piece)
            raise self.refusal(f"gives the id {token_id} both to {piece!a:.60} and to {by_id[token_id]!a:.60}")
        hole = next((i for i in range(len(by_id)) if i not in by_id), None)
        if hole is not None:
            raise self.refusal(
                f"is not Gemma 3's: {len(by_id)} pieces have the ids 0, 1, 2 and so on, but {hole} is missing"
            )
        return [by_id[token_id] for token_id in range(len(by_id))]

    def _add(self, pieces: list[str]) -> None:
        """An added token is a piece of the model under the same id, or the next one behind all others."""
        known: set[str] = set()
        for token in self.added:
            if token.content in known:
                raise self.refusal(f"has {token.content!a:.60} twice among its added tokens")
            known.add(token.content)
            expected = self.model_ids.get(token.content, len(pieces))
            if token.token_id != expected:
                other = f", which is {pieces[token.token_id]!a:.60}" if token.token_id < len(pieces) else ""
                raise self.refusal(
                    f"gives {token.content!a:.60} the id {token.token_id}{other}; its id must be {expected}"
                )
            if expected == len(pieces):
                pieces.append(token.content)

    def text(self) -> str:
        """The file as the library reads it."""
        try:
            return self._data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self.refusal("is not UTF-8") from None

    def with_added(self, token_ids: Set[int]) -> "TokenizerFile":
        """The same file with only these of its added tokens."""
        if all(token.token_id in token_ids for token in self.added):
            return self
        kept = [token for token in self.content["added_tokens"] if token["id"] in token_ids]
        return TokenizerFile(self.source, json.dumps(self.whole | {"added_tokens": kept}).encode())

    def refusal(self, words: str) -> TokenizerError:
        """An error of one line about this file."""
        return TokenizerError(f"{self.source} {words}.")
