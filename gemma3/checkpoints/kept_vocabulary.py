"""The vocabulary of the embedded default, kept in a form that is read in less than half the time.

Owns the file beside the joined weights: a line that says what it is of and what its bytes sum up
to, a line of JSON with the ids, then the pieces with a NUL between two. Building the vocabulary from
the GGUF file anew is a quarter of a start that only continues a text. Other checkpoints are read as
they are: only the default is named by all its bytes. Any thread, and any number of processes.
"""

import json
import logging
import zlib
from pathlib import Path

from gemma3.checkpoints.checkpoint import Checkpoint
from gemma3.checkpoints.embedded_weights import SHA256, is_joined_gguf
from gemma3.checkpoints.gguf_checkpoint import GGUFCheckpoint
from gemma3.files.atomic_write import atomic_write
from gemma3.files.cache_folders import is_trusted
from gemma3.text.gguf_vocabulary import vocabulary_of_gguf
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.vocabulary import Vocabulary

# To be raised whenever the same file would give another vocabulary.
FORMAT_VERSION = 1
FILE_NAME = "vocabulary"
_BETWEEN = "\0"

log = logging.getLogger("gemma3")


def load_tokenizer(checkpoint: Checkpoint, cache_dir: Path | None = None) -> Gemma3Tokenizer:
    """The checkpoint's tokenizer; that of the embedded default from what was kept.

    Raises:
        TokenizerError, GGUFError: as the checkpoint's ``load_tokenizer``.
    """
    weights = checkpoint.weight_files[0]
    if not is_joined_gguf(weights, cache_dir):
        return checkpoint.load_tokenizer()
    path = weights.with_name(FILE_NAME)
    kept = _read(path)
    if kept is not None:
        return Gemma3Tokenizer(kept)
    assert isinstance(checkpoint, GGUFCheckpoint)
    vocabulary = vocabulary_of_gguf(checkpoint.file).with_rows(checkpoint.config.vocab_size)
    _keep(path, vocabulary)
    return Gemma3Tokenizer(vocabulary)


def _read(path: Path) -> Vocabulary | None:
    """``None`` if it is not there, or is not to be believed."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    first, _, rest = content.partition(b"\n")
    if first != _first_line(rest) or not is_trusted(path, path.parent.parent):
        return None
    ids, _, pieces = rest.partition(b"\n")
    added, control, unused, late = map(frozenset, json.loads(ids))
    return Vocabulary(
        pieces.decode().split(_BETWEEN), added_ids=added, control_ids=control, unused_ids=unused, late_ids=late
    )


def _keep(path: Path, vocabulary: Vocabulary) -> None:
    """Where that cannot be done, the next start builds it anew, a tenth of a second."""
    pieces = _BETWEEN.join(vocabulary.pieces)
    if pieces.count(_BETWEEN) != len(vocabulary.pieces) - 1:
        return
    ids = (vocabulary.added_ids, vocabulary.control_ids, vocabulary.unused_ids, vocabulary.late_ids)
    rest = json.dumps([sorted(each) for each in ids]).encode() + b"\n" + pieces.encode()
    try:
        with atomic_write(path) as file:
            file.write(_first_line(rest) + b"\n" + rest)
    except OSError as error:
        log.debug("The vocabulary cannot be kept in %s (%s).", path.parent, error.strerror)


def _first_line(rest: bytes) -> bytes:
    return f"{FORMAT_VERSION} {SHA256} {zlib.crc32(rest):08x}".encode()
