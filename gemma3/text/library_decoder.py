"""What each token adds to a text when the decoder of a ``tokenizer.json`` is not Gemma's.

Owns which decoders can be followed token by token: a token is streamed once and never taken back,
so a decoder that looks at a token's neighbours is refused by name. What the stages do is as in the
``tokenizers`` library (tokenizers/src/decoders). Nothing changes after construction, any thread.

A decoder is a row of stages. The first ones change each token by itself and are run by the library
behind a token of one letter, because the first token of a text may be changed otherwise. Then bytes
may be put together (``ByteFallback``, ``ByteLevel``), and ``Strip`` may take a space off the text.
"""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gemma3.text.json_vocabulary import TokenizerFile
from gemma3.text.own_pipeline import flat, names

if TYPE_CHECKING:
    from tokenizers.decoders import Decoder

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ALONE = frozenset(("Replace", "Strip", "Metaspace", "WordPiece"))  # these change a token by itself
_TOGETHER: tuple[list[str], ...] = (
    [],
    ["Fuse"],
    ["ByteFallback"],
    ["ByteFallback", "Fuse"],
    ["ByteLevel"],
    ["ByteLevel", "Fuse"],
)
_LETTER = "a"


class PieceDecoder:
    """Of the decoder in ``file``.

    Raises:
        TokenizerError: a stage cannot be followed token by token.
    """

    def __init__(self, file: TokenizerFile) -> None:
        stages = flat(file, "decoder")
        kinds = [stage["type"] for stage in stages]
        num_alone = next((i for i, kind in enumerate(kinds) if kind not in _ALONE), len(kinds))
        ends = stages[num_alone:]
        strips = bool(ends) and ends[-1]["type"] == "Strip" and "Fuse" in kinds
        self._start = _stripped_start(ends.pop(), file) if strips else b""
        rest = [stage["type"] for stage in ends]
        if rest not in _TOGETHER:
            raise file.refusal(f"has a decoder, {names(stages)}, that cannot be followed token by token")
        self._has_byte_fallback = "ByteFallback" in rest
        self._byte_of_letter = _bytes_of_letters() if "ByteLevel" in rest else {}
        # Without a decoder the library puts a space between tokens.
        self._separator = " " if file.content.get("decoder") is None else ""
        self._alone = _library_decoder(stages[:num_alone]) if num_alone else None
        self._num_letters = len(self._alone.decode([_LETTER])) if self._alone else 0

    def inner(self, piece: str) -> bytes:
        """What a token adds behind another one."""
        if self._alone is not None:
            piece = self._alone.decode([_LETTER, piece])[self._num_letters :]
        return self._to_bytes(self._separator + piece)

    def first(self, piece: str) -> bytes:
        """What a token is at the beginning of a text."""
        if self._alone is not None:
            piece = self._alone.decode([piece])
        return self._to_bytes(piece).removeprefix(self._start)

    def _to_bytes(self, piece: str) -> bytes:
        if self._has_byte_fallback and (byte := _BYTE.fullmatch(piece)):
            return bytes.fromhex(byte[1])
        if self._byte_of_letter and all(letter in self._byte_of_letter for letter in piece):
            return bytes(self._byte_of_letter[letter] for letter in piece)
        return piece.encode()


def _stripped_start(strip: dict[str, Any], file: TokenizerFile) -> bytes:
    """What the last stage takes off the beginning of a text: a character at most. Its end is not known in time."""
    start, stop, content = strip.get("start"), strip.get("stop"), strip.get("content")
    if start not in (0, 1) or stop != 0 or not isinstance(content, str):
        raise file.refusal(
            f"has a decoder that strips {start} characters before a text and {stop} behind; 1 and 0 are run"
        )
    return content.encode() if start else b""


def _library_decoder(stages: Sequence[dict[str, Any]]) -> "Decoder":
    """The library makes a decoder of JSON only as a part of a tokenizer."""
    from tokenizers import Tokenizer

    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    content = {"added_tokens": [], "decoder": {"type": "Sequence", "decoders": stages}, "model": model}
    decoder: Decoder = Tokenizer.from_str(json.dumps(content | {"version": "1.0"})).decoder
    return decoder


def _bytes_of_letters() -> dict[str, int]:
    """How GPT-2's byte-level vocabularies write bytes: the printable ones of Latin-1 as they are, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
