"""Any pipeline that is not Gemma's own, run by the ``tokenizers`` library from the checkpoint's ``tokenizer.json``.

Owns what the library does not promise: a user's text never becomes a control token, long texts do
not hold the interpreter, and what would fail at the first odd text is refused when the file is
read. Imported only when a checkpoint needs it. Nothing changes after construction, any thread.
"""

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gemma3.errors import TokenizerError
from gemma3.text.json_vocabulary import AddedToken, TokenizerFile
from gemma3.text.library_bound import most_chars_per_token
from gemma3.text.library_decoder import PieceDecoder
from gemma3.text.own_pipeline import flat, has_googles_merges
from gemma3.text.vocabulary import CONTROL_IDS, REQUIRED

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Characters of many scripts, of none, and in no vocabulary: what a pipeline cannot encode shows at once.
_RARE_TEXT = "a \n\u2581\u0dfe\u16a0\u2f00\ufdfa\ufffc\U00013000\U0001f9ff\U000e0041\U0010fffd"


class LibraryPipeline:
    """Two tokenizers of the library: one finds control tokens, the other does not know them.

    ``reason``: what differs from Gemma's own pipeline.

    Raises:
        TokenizerError: the library refuses the file, or what it describes cannot be served.
    """

    def __init__(self, file: TokenizerFile, reason: str) -> None:
        self.note = f"run by the tokenizers library, because {reason}"
        # Its threads, one for each text of a list, are of no use for one text, and it warns when a process forks.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.pieces = file.pieces
        self.ids = file.ids
        self.control_ids = {name: self.ids[name] for name in CONTROL_IDS if name in self.ids}
        missing = [name for name in REQUIRED if name not in self.ids]
        if missing:
            raise file.refusal(f"is not Gemma 3's: it has no {missing[0]}")
        self.special_ids = frozenset(token.token_id for token in file.added if token.special).union(
            self.control_ids.values()
        )
        self.added_ids = self.special_ids.union(token.token_id for token in file.added)
        _check_templates(file)
        self._library = _full(file, self.control_ids)
        if self._library.get_vocab(with_added_tokens=True) != self.ids:
            raise file.refusal("has ids that the tokenizers library numbers otherwise")
        self._text_only = _text_only(file, self._library, self.special_ids)
        self._decoder = PieceDecoder(file)
        self._most_chars = most_chars_per_token(file)
        self._bos = [] if file.content.get("post_processor") else [self.ids["<bos>"]]
        self._check(file)

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        """As ``Pipeline.encode``. What begins a prompt is the post-processor's affair, or ``<bos>`` if there is none."""
        library = self._library if parse_special else self._text_only
        with _one_line("the text cannot be tokenized"):
            # For lists alone the library lets other threads run meanwhile: 4 million characters take seconds.
            [encoding] = library.encode_batch_fast([text], add_special_tokens=add_bos)
        token_ids: list[int] = encoding.ids
        return self._bos + token_ids if add_bos else token_ids

    def token_to_bytes(self, token_id: int) -> bytes:
        """As ``Pipeline.token_to_bytes``."""
        return self._decoder.inner(self.pieces[token_id])

    def first_to_bytes(self, token_id: int) -> bytes:
        """As ``Pipeline.first_to_bytes``."""
        return self._decoder.first(self.pieces[token_id])

    def min_num_tokens(self, text: str) -> int:
        """As ``Pipeline.min_num_tokens``; 0 where the pipeline may leave out any number of characters."""
        return -(-len(text) // self._most_chars) if self._most_chars else 0

    def _check(self, file: TokenizerFile) -> None:
        """What cannot be encoded is found now, and so is what ends in an id that is none."""
        for parse_special in (True, False):
            for text in ("", _RARE_TEXT, "".join(self.control_ids)):
                try:
                    token_ids = self.encode(text, add_bos=True, parse_special=parse_special)
                    num_in_text = len(self.encode(text, add_bos=False, parse_special=parse_special))
                except TokenizerError as error:
                    raise file.refusal(f"cannot encode every text: {str(error).removesuffix('.')}") from None
                if not min(num_in_text, len(token_ids)) and text == _RARE_TEXT:
                    raise file.refusal("encodes every text to nothing")
                if max(token_ids, default=0) >= len(self.pieces):
                    raise file.refusal(f"encodes a text to {max(token_ids)}; ids are below {len(self.pieces)}")


def _check_templates(file: TokenizerFile) -> None:
    """The library panics at the first text if a template has a token that the file does not explain."""
    for stage in flat(file, "post_processor"):
        single, tokens = stage.get("single"), stage.get("special_tokens")
        if isinstance(single, list) and isinstance(tokens, dict):
            named = [each["SpecialToken"] for each in single if isinstance(each, dict) and "SpecialToken" in each]
            missing = [token for token in named if not isinstance(token, dict) or str(token.get("id")) not in tokens]
            if missing:
                raise file.refusal(f"has {missing[0]!a:.60} in its post-processor, which special_tokens lacks")


def _full(file: TokenizerFile, control_names: Iterable[str]) -> "Tokenizer":
    """The library's tokenizer as the file has it, without what is for training alone.

    Gemma's control tokens are found even if the file forgot to add them: transformers adds them, too.
    """
    library = _load(file.text(), file)
    library.no_truncation()
    library.no_padding()
    if file.model.get("dropout"):
        library.model.dropout = None
    added = {token.content for token in file.added}
    library.add_special_tokens([name for name in control_names if name not in added])
    return library


def _text_only(file: TokenizerFile, library: "Tokenizer", special_ids: frozenset[int]) -> "Tokenizer":
    """The same without control tokens: neither as added tokens nor as something the model can make of a text."""
    from tokenizers import AddedToken as LibraryToken
    from tokenizers import Tokenizer

    hidden = {file.pieces[i]: _unwritable(i) for i in special_ids}
    inside = hidden.keys() & file.model_ids.keys()
    model = (
        _load(_without(file, {piece: hidden[piece] for piece in inside}), file).model
        if _can_make(file, inside)
        else None
    )
    found = Tokenizer(model or library.model)
    if library.normalizer is not None:
        found.normalizer = library.normalizer
    if library.pre_tokenizer is not None:
        found.pre_tokenizer = library.pre_tokenizer
    if library.post_processor is not None:
        found.post_processor = library.post_processor
    found.add_tokens(
        [
            LibraryToken(hidden.get(token.content, token.content), special=False, **_flags(token))
            for token in file.added
            if token.content not in inside
        ]
    )
    return found


def _flags(token: AddedToken) -> dict[str, bool]:
    return {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "normalized")}


def _can_make(file: TokenizerFile, pieces: Set[str]) -> bool:
    """Whether the model may give one of these ``pieces`` for a text in which no added token was found."""
    if not pieces or file.model.get("type") != "BPE":
        return bool(pieces)
    if file.model.get("ignore_merges") or min(map(len, pieces)) == 1:
        return True
    return not has_googles_merges(file) and any(_result(file, merge) in pieces for merge in file.merges())


def _result(file: TokenizerFile, merge: tuple[str, str]) -> str:
    return merge[0] + merge[1].removeprefix(file.model.get("continuing_subword_prefix") or "")


def _without(file: TokenizerFile, renamed: Mapping[str, str]) -> str:
    """The file's model with other names for some pieces, which keep their ids."""
    model = file.whole["model"] | {"dropout": None}
    vocab = model["vocab"]
    if isinstance(vocab, list):
        model["vocab"] = [[renamed.get(piece, piece), *rest] for piece, *rest in vocab]
    else:
        model["vocab"] = {renamed.get(piece, piece): i for piece, i in vocab.items()}
    if "merges" in model:
        merges = ((merge, {*merge, _result(file, merge)}) for merge in file.merges())
        model["merges"] = [merge for merge, names in merges if names.isdisjoint(renamed)]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = renamed.get(model["unk_token"], model["unk_token"])
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model})


def _unwritable(token_id: int) -> str:
    """A name that no text has, because nobody can guess it."""
    return f"{secrets.token_hex(16)}-{token_id}"


def _load(text: str, file: TokenizerFile) -> "Tokenizer":
    from tokenizers import Tokenizer

    _check_prefix(file)
    with _one_line(f"{file.source} is refused by the tokenizers library"):
        return Tokenizer.from_str(text)


def _check_prefix(file: TokenizerFile) -> None:
    """The library takes as many bytes off the second piece of a merge as the prefix has, whatever
    they are: in the middle of a character it aborts the process.
    """
    prefix = file.model.get("continuing_subword_prefix")
    if not prefix or not isinstance(prefix, str) or "merges" not in file.model:
        return
    without = next((right for _, right in file.merges() if not right.startswith(prefix)), None)
    if without is not None:
        raise file.refusal(
            f"merges {without!a:.60}, which does not begin with the continuing_subword_prefix {prefix!a:.60}"
        )


@contextmanager
def _one_line(words: str) -> Iterator[None]:
    """The library has no exceptions of its own; a panic of its Rust is not even an ``Exception``."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{words}: {' '.join(str(error).split())[:300].rstrip('.')}.") from None
