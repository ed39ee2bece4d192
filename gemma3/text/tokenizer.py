"""Text to token ids and back, with the ids of Google's own ``tokenizer.json``.

Owns the vocabulary of a ``tokenizer.json``; ``gguf_vocabulary`` reads that of a GGUF file, ``bpe`` does the merging.
Knows nothing of chat turns (``gemma3.text.chat``); imports neither torch nor numpy. Nothing visible changes after construction:
any thread may use it.
"""

import json
import re
from collections.abc import Iterable
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Self

from gemma3.errors import TokenizerError
from gemma3.files.gguf import GGUFFile
from gemma3.text.bpe import BYTE_PIECES, SPACE, AddedTokens, Merger
from gemma3.text.gguf_vocabulary import vocabulary_of_gguf
from gemma3.text.length_bound import LengthBound
from gemma3.text.vocabulary import CONTROL_IDS, Vocabulary, check_is_gemma3

# A merge is a pair of strings, so this can only be the key.
_MERGES = re.compile(rb'"merges"\s*:\s*\[')
_END = re.compile(rb"\]\s*\}\s*\}\s*$")


class Gemma3Tokenizer:
    """Encodes and decodes.

    *Control tokens* (``special_ids``: ``<bos>``, ``<end_of_turn>``, ...) are found in a text only with ``parse_special``: what
    a user writes can otherwise never become one. Without arguments this is a stand-in of 262 tokens for smoke tests: the control
    tokens and the 256 bytes.
    """

    def __init__(self, vocabulary: Vocabulary | None = None, *, chat_template: str | None = None) -> None:
        vocabulary = vocabulary or Vocabulary([*CONTROL_IDS, *BYTE_PIECES], frozenset(range(6)), frozenset(range(6)))
        self.chat_template = chat_template
        self._pieces = vocabulary.pieces
        self.vocab_size = len(self._pieces)
        self._ids = dict(zip(self._pieces, range(self.vocab_size), strict=True))
        if len(self._ids) != self.vocab_size:
            raise TokenizerError(
                f"the vocabulary has {self.vocab_size} pieces, only {len(self._ids)} of them different."
            )
        if "" in self._ids:
            raise TokenizerError(f"the vocabulary is damaged: token {self._ids['']} has no text.")
        self.pad_token_id, self.eos_token_id, self.bos_token_id = (
            self._ids[text] for text in ("<pad>", "<eos>", "<bos>")
        )
        self.start_of_turn_id, self.end_of_turn_id = self._ids["<start_of_turn>"], self._ids["<end_of_turn>"]
        # By name too: a file whose flags are wrong must not let a user's text open a turn.
        self.special_ids = vocabulary.control_ids | {self._ids[piece] for piece in CONTROL_IDS}
        self._byte_of = {self._ids[piece]: bytes([byte]) for byte, piece in enumerate(BYTE_PIECES)}
        self._merger = Merger(self._ids, self._ranks(vocabulary.added_ids | vocabulary.unused_ids))
        self._added = AddedTokens({self._pieces[i]: i for i in vocabulary.added_ids})
        self._added_text_only = AddedTokens({self._pieces[i]: i for i in vocabulary.added_ids - self.special_ids})

    @classmethod
    def from_local_path(cls, path: str | Path) -> Self:
        """Read a ``tokenizer.json``, or the one in a directory, and the chat template that lies beside it.

        Raises:
            TokenizerError: the file is missing, damaged, or of another model.
        """
        file = Path(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        vocabulary = _vocabulary_of_json(_read_json_without_merges(file), source=str(file))
        return cls(vocabulary, chat_template=_read_chat_template(file.parent))

    @classmethod
    def from_gguf(cls, source: str | Path | GGUFFile) -> Self:
        """Build the same tokenizer from the pieces, scores and types of a GGUF file: its path, or the opened file.

        Raises:
            TokenizerError: the vocabulary contradicts itself or is of another model.
            GGUFError: the file is missing or damaged, or has no vocabulary.
        """
        file = source if isinstance(source, GGUFFile) else GGUFFile.open(Path(source))
        vocabulary = vocabulary_of_gguf(file)
        template = file.metadata.get("tokenizer.chat_template")
        return cls(vocabulary, chat_template=template if isinstance(template, str) else None)

    def encode(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """The token ids of ``text``.

        Raises:
            TokenizerError: ``text`` holds a lone surrogate, which has no UTF-8.
        """
        _check_encodable(text)
        token_ids = [self.bos_token_id] if add_bos else []
        for part in (self._added if parse_special else self._added_text_only).split(text):
            if isinstance(part, int):
                token_ids.append(part)
            else:
                token_ids += self._merger.encode(part)
        return token_ids

    def min_num_tokens(self, text: str) -> int:
        """``encode`` gives at least so many tokens for ``text``: told in milliseconds, without merging anything."""
        return self._length_bound.min_num_tokens(text)

    @cached_property
    def _length_bound(self) -> LengthBound:
        """40 ms, so only made when a text is long. A text may write a space as the vocabulary does, too."""
        pieces = [piece for token_id, piece in enumerate(self._pieces) if token_id not in self._byte_of]
        return LengthBound([*pieces, *(piece.replace(SPACE, " ") for piece in pieces if piece[0] == SPACE)])

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of ``token_ids``; bytes that are not UTF-8 become U+FFFD."""
        kept = (i for i in token_ids if not (skip_special and i in self.special_ids))
        return b"".join(map(self.token_to_bytes, kept)).decode("utf-8", "replace")

    def token_to_bytes(self, token_id: int) -> bytes:
        """The exact bytes one token stands for, which may be a part of a character; of a control token, its name."""
        byte = self._byte_of.get(token_id)
        return self.id_to_token(token_id).replace(SPACE, " ").encode() if byte is None else byte

    def id_to_token(self, token_id: int) -> str:
        """The piece as the vocabulary writes it.

        Raises:
            TokenizerError: there is no such token.
        """
        if not 0 <= token_id < self.vocab_size:
            raise TokenizerError(f"token id {token_id} is outside of the vocabulary [0, {self.vocab_size}).")
        return self._pieces[token_id]

    def token_to_id(self, piece: str) -> int | None:
        """The id of a piece, if the vocabulary has it."""
        return self._ids.get(piece)

    def _ranks(self, unmerged_ids: frozenset[int]) -> dict[str, int]:
        """A piece's rank is its id: in Gemma's vocabulary the pieces lie in the order in which they were learnt.

        Only runs of spaces merge before everything else, the longest first, so that they grow greedily from the left.
        """
        ranks = self._ids.copy()
        for token_id in unmerged_ids.union(self._byte_of):
            ranks.pop(self._pieces[token_id])
        for num in takewhile(lambda num: SPACE * num in self._ids, count(2)):
            ranks[SPACE * num] = -num
        return ranks


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise TokenizerError(f"the text has a lone surrogate {code} at character {error.start}.") from None


def _read_json_without_merges(file: Path) -> dict[str, Any]:
    """A ``tokenizer.json`` up to its table of merges.

    Two thirds of the file, and nothing new: the converter writes down every split of a piece into two pieces, in order of ids.
    """
    try:
        data = file.read_bytes()
        merges = _MERGES.search(data)
        is_whole = merges is not None and _END.search(data[-64:])
        content = json.loads(data[: merges.start()] + b'"merges": []}}' if merges and is_whole else data)
    except FileNotFoundError:
        raise TokenizerError(f"{file}: no such file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{file} is not a tokenizer.json: {error}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise TokenizerError(f"{file} is not a tokenizer.json: it has no model.")
    return content


def _vocabulary_of_json(content: dict[str, Any], *, source: str) -> Vocabulary:
    kind, vocab = content["model"].get("type"), content["model"].get("vocab")
    if kind != "BPE" or not isinstance(vocab, dict):
        raise TokenizerError(f"{source} holds a {kind} model; Gemma 3 has BPE.")
    try:
        added = {int(token["id"]): (str(token["content"]), bool(token["special"])) for token in content["added_tokens"]}
        by_id = {int(i): piece for piece, i in vocab.items()} | {i: piece for i, (piece, _) in added.items()}
        pieces = [by_id[i] for i in range(len(by_id))]
    except (KeyError, TypeError, ValueError):
        raise TokenizerError(f"{source} is not Gemma 3's: the ids of its tokens are not 0, 1, 2 and so on.") from None
    check_is_gemma3(pieces, source)
    return Vocabulary(pieces, frozenset(added), frozenset(i for i, (_, special) in added.items() if special))


def _read_chat_template(folder: Path) -> str | None:
    """``chat_template.jinja``, as newer checkpoints have it, or the field of ``tokenizer_config.json``."""
    try:
        if (folder / "chat_template.jinja").is_file():
            return (folder / "chat_template.jinja").read_text(encoding="utf-8")
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TokenizerError(f"the chat template in {folder} cannot be read: {error}.") from None
    template = config.get("chat_template") if isinstance(config, dict) else None
    return template if isinstance(template, str) else None
