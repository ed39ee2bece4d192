"""A small vocabulary for tests of grammars: the bytes, pieces of JSON and random longer ones; and walks through masks."""

import random

from engine.grammar.compiler import Grammar, GrammarCompiler
from gemma3.errors import TokenizerError

END, CONTROL, TEXTLESS = 1, 2, 3
_BYTES_AT = 4
_COMMON = [
    "a",
    '"',
    '{"',
    '": ',
    '", "',
    '"}',
    "[",
    "]",
    ", ",
    "true",
    "false",
    "null",
    '": "',
    "ab",
    "10",
    "\u00e9\u4e2d",
    '"}]',
    '\\"',
]


class TinyVocabulary:
    """Ids: padding, end, control, one without a text, the 256 bytes, then ``pieces``."""

    def __init__(self, *, seed: int = 0, num_random: int = 60) -> None:
        rng = random.Random(seed)
        letters = 'abcdefghijklmnop0123456789 ",:{}[]\\-.eE\u00e9\u4e2d'
        longer = ["".join(rng.choices(letters, k=rng.randint(2, 5))) for _ in range(num_random)]
        texts = [text.encode() for text in dict.fromkeys([*_COMMON, *longer])]
        self.pieces = [b"<pad>", b"<eos>", b"<control>", b"", *(bytes([b]) for b in range(256)), *texts]
        self._by_text = {piece: i for i, piece in enumerate(self.pieces) if i >= _BYTES_AT}

    def token_to_bytes(self, token_id: int) -> bytes:
        if token_id >= len(self.pieces):
            raise TokenizerError("no such token")
        return self.pieces[token_id]

    def encode(self, text: str) -> list[int]:
        data, found, at = text.encode(), [], 0
        while at < len(data):
            length = next(n for n in range(min(8, len(data) - at), 0, -1) if data[at : at + n] in self._by_text)
            found.append(self._by_text[data[at : at + length]])
            at += length
        return found

    def decode(self, token_ids: list[int]) -> bytes:
        return b"".join(self.pieces[i] for i in token_ids if i != END)

    def compiler(self) -> GrammarCompiler:
        return GrammarCompiler(
            token_to_bytes=self.token_to_bytes,
            encode=self.encode,
            special_ids=[0, END, CONTROL],
            end_token_ids=[END],
            vocab_size=len(self.pieces) + 3,
        )


def ids_of(mask: bytes) -> list[int]:
    bits = int.from_bytes(mask, "little")
    return [i for i in range(len(mask) * 8) if bits >> i & 1]


def fits(grammar: Grammar, text: str, vocabulary: TinyVocabulary) -> bool:
    """Every token of the text is in its mask, and the end behind it."""
    state = grammar.start()
    for token_id in [*vocabulary.encode(text), END]:
        if token_id not in ids_of(state.mask()):
            return False
        state.accept([token_id])
    return True


def walk(grammar: Grammar, vocabulary: TinyVocabulary, rng: random.Random, *, max_tokens: int = 300) -> bytes | None:
    """A random answer, each allowed token as likely as any other, later rather those that close; None if it ran on."""
    state = grammar.start()
    taken: list[int] = []
    closing = [i for i in range(len(vocabulary.pieces)) if set(vocabulary.pieces[i]) <= set(b'"}]')]
    while not state.is_complete and len(taken) < max_tokens:
        forced = state.forced(max_tokens)
        state.accept(forced)
        taken += forced
        if state.is_complete:
            break
        allowed = ids_of(state.mask())
        assert CONTROL not in allowed
        assert TEXTLESS not in allowed
        assert max(allowed) < len(vocabulary.pieces)
        ends = [i for i in allowed if i == END or (len(taken) > 40 and i in closing and i != TEXTLESS)]
        token_id = rng.choice(ends if ends and rng.random() < 0.7 else allowed)
        state.accept([token_id])
        taken.append(token_id)
    return vocabulary.decode(taken) if state.is_complete else None
