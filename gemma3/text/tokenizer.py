"""Text to token ids and back, with the ids of the checkpoint's own ``tokenizer.json`` or GGUF vocabulary.

Owns the face of both pipelines (``gemma3.text.pipeline``) and the choice between them; ``json_vocabulary`` and
``gguf_vocabulary`` read the files. Knows nothing of chat turns (``gemma3.text.chat``); imports neither torch nor numpy.
Nothing visible changes after construction: any thread may use it.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gemma3.errors import TokenizerError
from gemma3.files.gguf import GGUFFile
from gemma3.text.bpe import BYTE_PIECES
from gemma3.text.gemma_pipeline import GemmaPipeline
from gemma3.text.gguf_vocabulary import vocabulary_of_gguf
from gemma3.text.pipeline import Pipeline
from gemma3.text.vocabulary import CONTROL_IDS, REQUIRED, Vocabulary, check_control_ids

if TYPE_CHECKING:
    from gemma3.text.json_vocabulary import TokenizerFile

log = logging.getLogger("gemma3")

_STAND_IN = Vocabulary([*CONTROL_IDS, *BYTE_PIECES], frozenset(range(6)), frozenset(range(6)))


class Gemma3Tokenizer:
    """Encodes and decodes.

    *Control tokens* (``special_ids``: ``<bos>``, ``<end_of_turn>``, ...) are found in a text only with ``parse_special``: what
    a user writes can otherwise never become one. Without arguments this is a stand-in of 262 tokens for smoke tests: the control
    tokens and the 256 bytes.
    """

    def __init__(self, vocabulary: Vocabulary | None = None, *, pipeline: Pipeline | None = None) -> None:
        """``pipeline`` is Gemma's own over ``vocabulary`` if it is not given."""
        self._pipeline = pipeline or GemmaPipeline(vocabulary or _STAND_IN)
        self._pieces = self._pipeline.pieces
        self.vocab_size = len(self._pieces)
        self.special_ids = self._pipeline.special_ids
        self.pipeline_note = self._pipeline.note
        # Found in a text as they stand: the control tokens with ``parse_special`` alone, the others always.
        self.added_ids = self._pipeline.added_ids
        self.pad_token_id, self.eos_token_id, self.bos_token_id = (
            self._pipeline.control_ids[name] for name in REQUIRED
        )

    @property
    def start_of_turn_id(self) -> int:
        """Of ``<start_of_turn>``. Raises: TokenizerError if the vocabulary has none, as one of another pipeline may."""
        return self._known_id("<start_of_turn>")

    @property
    def end_of_turn_id(self) -> int:
        """Of ``<end_of_turn>``. Raises: TokenizerError as ``start_of_turn_id``."""
        return self._known_id("<end_of_turn>")

    def token_to_id(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary writes it, if there is one."""
        return self._pipeline.ids.get(piece)

    @classmethod
    def from_local_path(cls, path: str | Path, *, num_rows: int | None = None) -> Self:
        """Read a ``tokenizer.json``, or the one in a directory.

        Gemma's own pipeline merges here; any other is run by the ``tokenizers`` library, and
        ``pipeline_note`` says why. With the ``num_rows`` of the embedding, no text is encoded to
        an added token without a row; the log says so.

        Raises:
            TokenizerError: the file is missing, damaged, or of another model.
        """
        from gemma3.text.json_vocabulary import TokenizerFile  # a GGUF file is read without it

        path = Path(path)
        file = TokenizerFile.open(path / "tokenizer.json" if path.is_dir() else path)
        return cls(pipeline=_pipeline_of(file, num_rows))

    @classmethod
    def from_gguf(cls, source: str | Path | GGUFFile, *, num_rows: int | None = None) -> Self:
        """Build the same tokenizer from the pieces, scores and types of a GGUF file: its path, or the opened file.

        ``num_rows`` is as for ``from_local_path``.

        Raises:
            TokenizerError: the vocabulary contradicts itself or is of another model.
            GGUFError: the file is missing or damaged, or has no vocabulary.
        """
        file = source if isinstance(source, GGUFFile) else GGUFFile.open(Path(source))
        return cls(_with_rows(vocabulary_of_gguf(file), num_rows))

    def encode(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """The token ids of ``text``.

        Raises:
            TokenizerError: ``text`` holds a lone surrogate, which has no UTF-8.
        """
        _check_encodable(text)
        return self._pipeline.encode(text, add_bos=add_bos, parse_special=parse_special)

    def min_num_tokens(self, text: str) -> int:
        """``encode`` gives at least so many tokens for ``text``: told in milliseconds."""
        return self._pipeline.min_num_tokens(text)

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of ``token_ids``; bytes that are not UTF-8 become U+FFFD."""
        kept = [i for i in token_ids if not (skip_special and i in self.special_ids)]
        if not kept:
            return ""
        self._check_id(kept[0])
        parts = [self._pipeline.first_to_bytes(kept[0]), *map(self.token_to_bytes, kept[1:])]
        return b"".join(parts).decode("utf-8", "replace")

    def token_to_bytes(self, token_id: int) -> bytes:
        """The exact bytes one token adds within a text, maybe a part of a character; of a control token, its name.

        Raises:
            TokenizerError: there is no such token.
        """
        if not 0 <= token_id < self.vocab_size:  # as ``_check_id``, in place: this is called for each token
            self._check_id(token_id)
        return self._pipeline.token_to_bytes(token_id)

    def id_to_token(self, token_id: int) -> str:
        """The piece as the vocabulary writes it.

        Raises:
            TokenizerError: there is no such token.
        """
        self._check_id(token_id)
        return self._pieces[token_id]

    def _check_id(self, token_id: int) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise TokenizerError(f"token id {token_id} is outside of the vocabulary [0, {self.vocab_size}).")

    def _known_id(self, piece: str) -> int:
        token_id = self.token_to_id(piece)
        if token_id is None:
            raise TokenizerError(f"the vocabulary of this checkpoint has no {piece}, which Gemma's chat turns need.")
        return token_id


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise TokenizerError(f"the text has a lone surrogate {code} at character {error.start}.") from None


def _with_rows(vocabulary: Vocabulary, num_rows: int | None) -> Vocabulary:
    if num_rows is None:
        return vocabulary
    found = vocabulary.with_rows(num_rows)
    rowless = sorted(vocabulary.added_ids - found.added_ids)
    if rowless:
        log.warning(
            "Tokenizer: added tokens without a row of the embedding are read as plain text: %d, the first is %.60a",
            len(rowless),
            vocabulary.pieces[rowless[0]],
        )
    return found


def _pipeline_of(file: "TokenizerFile", num_rows: int | None) -> Pipeline:
    from gemma3.text.own_pipeline import merges_follow, what_differs

    vocabulary = _with_rows(file.vocabulary(), num_rows)
    difference = what_differs(file)
    if difference is None:
        check_control_ids(file.pieces, file.source)
        pipeline = GemmaPipeline(vocabulary, ids=file.ids)
        if merges_follow(file, pipeline):
            return pipeline
        difference = "its merges do not follow from its pieces"
    from gemma3.text.library_pipeline import LibraryPipeline

    return LibraryPipeline(file.with_added(vocabulary.added_ids), difference)
