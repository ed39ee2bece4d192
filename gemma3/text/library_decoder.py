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
from typing import Any

from gemma3.errors import TokenizerError
from gemma3.text.own_pipeline import names

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ALONE = frozenset(("Replace", "Strip", "Metaspace", "WordPiece"))  # these change a token by itself
_LETTER = "a"


class PieceDecoder:
    """``stages`` are those of the file.

    Raises:
        TokenizerError: a stage cannot be followed token by token.
    """

    def __init__(self, stages: Sequence[dict[str, Any]], *, source: str) -> None:
        kinds = [stage.get("type") for stage in stages]
        num_alone = next((i for i, kind in enumerate(kinds) if kind not in _ALONE), len(kinds))
        ends = list(stages[num_alone:])
        if ends and ends[-1].get("type") == "Strip" and "Fuse" in kinds:
            self._start = _stripped_start(ends.pop(), source)
        else:
            self._start = b""
        rest = [stage.get("type") for stage in ends]
        if rest not in ([], ["Fuse"], ["ByteFallback"], ["ByteFallback", "Fuse"], ["ByteLevel"], ["ByteLevel", "Fuse"]):
            raise TokenizerError(f"{source}: its decoder, {names(stages)}, cannot be followed token by token.")
        self._has_byte_fallback, self._bytes = (
            "ByteFallback" in rest,
            _bytes_of_letters() if "ByteLevel" in rest else {},
        )
        # Without a decoder the library puts a space between tokens.
        self._separator = "" if stages else " "
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
        if self._bytes and all(letter in self._bytes for letter in piece):
            return bytes(self._bytes[letter] for letter in piece)
        return piece.encode()


def _stripped_start(strip: dict[str, Any], source: str) -> bytes:
    """What the last stage takes off the beginning of a text: a character at most. At the end it is not known in time."""
    start, stop, content = strip.get("start"), strip.get("stop"), strip.get("content")
    if start not in (0, 1) or stop != 0 or not isinstance(content, str):
        raise TokenizerError(
            f"{source}: its decoder strips {start} characters before a text and {stop} behind; 1 and 0 are."
        )
    return content.encode() if start else b""


def _library_decoder(stages: Sequence[dict[str, Any]]) -> Any:
    """The library makes a decoder of JSON only as a part of a tokenizer."""
    from tokenizers import Tokenizer

    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    decoder = {"type": "Sequence", "decoders": stages}
    return Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": [], "decoder": decoder, "model": model})
    ).decoder


def _bytes_of_letters() -> dict[str, int]:
    """How GPT-2's byte-level vocabularies write bytes: the printable ones of Latin-1 as they are, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
