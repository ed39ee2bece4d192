"""Streamed text against the plain decode of all bytes, for random bytes, token lengths and stop strings."""

import random
import time
from collections.abc import Callable

import pytest

from gemma3.text.detokenizer import Detokenizer

ALPHABETS = (
    [b"a", b"b"],
    [b"a", b"b", b"c", b" ", "\u00e4".encode(), "\u20ac".encode()],
    ["\U0001f600".encode(), "\u20ac".encode(), b"\xe2", b"\x82", b"\xf0\x9f", b"\xff", b"\xc0", b"\xed\xa0\x80", b"x"],
    [bytes([byte]) for byte in range(256)],
)


def vocabulary(tokens: list[bytes]) -> Callable[[int], bytes]:
    return lambda token_id: tokens[token_id]


def detokenize(tokens: list[bytes], *, stop: tuple[str, ...] = (), min_tokens: int = 0) -> tuple[list[str], str | None]:
    """The pieces of the stream, the last one from ``finish``, and the stop string that ended it."""
    detokenizer = Detokenizer(vocabulary(tokens), stop=stop, min_tokens=min_tokens)
    pieces = []
    for token_id in range(len(tokens)):
        pieces.append(detokenizer.push(token_id))
        if detokenizer.stop_match is not None:
            break
    pieces.append(detokenizer.finish())
    return pieces, detokenizer.stop_match


def split(data: bytes, rng: random.Random) -> list[bytes]:
    tokens = []
    while data:
        size = rng.choice([0, 1, 1, 2, 3, 7, 40])
        tokens.append(data[:size])
        data = data[size:]
    return tokens


def reference(tokens: list[bytes], stop: tuple[str, ...], min_tokens: int) -> tuple[str, str | None]:
    """Quadratic and obvious: after each character, does the text end with a stop string?"""
    text = ""
    num_characters = 0
    for number in range(1, len(tokens) + 1):
        text = decode_complete(b"".join(tokens[:number]))
        for end in range(num_characters + 1, len(text) + 1):
            ending = [s for s in stop if text[:end].endswith(s)]
            if ending and number > min_tokens:
                longest = max(ending, key=len)
                return text[: end - len(longest)], longest
        num_characters = len(text)
    return b"".join(tokens).decode(errors="replace"), None


def decode_complete(data: bytes) -> str:
    """Without a character at the end that more bytes could still complete."""
    for num_open in range(1, min(3, len(data)) + 1):
        head, tail = data[:-num_open], data[-num_open:]
        if any(is_character(tail + rest) for rest in CONTINUATIONS):
            return head.decode(errors="replace")
    return data.decode(errors="replace")


CONTINUATIONS = [b"\x80", b"\x90", b"\xa0"]
CONTINUATIONS += [first + b"\x80" for first in CONTINUATIONS] + [b"\x80\x80\x80", b"\x90\x80\x80"]


def is_character(data: bytes) -> bool:
    """A surrogate counts: the incremental decoder calls it invalid only when it has all three bytes."""
    try:
        return len(data.decode(errors="surrogatepass")) == 1
    except UnicodeDecodeError:
        return False


def random_stop(rng: random.Random, text: str) -> str:
    if text and rng.random() < 0.7:
        start = rng.randrange(len(text))
        return text[start : start + rng.choice([1, 2, 3, 5, 12])]
    return "".join(rng.choice("ab \u20ac\ufffd") for _ in range(rng.randint(1, 5)))


@pytest.mark.parametrize("seed", range(4))
def test_streamed_text_is_the_decode_of_all_bytes(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        alphabet = rng.choice(ALPHABETS)
        data = b"".join(rng.choice(alphabet) for _ in range(rng.randint(0, 60)))
        pieces, stop_match = detokenize(split(data, rng))
        assert "".join(pieces) == data.decode(errors="replace")
        assert stop_match is None


@pytest.mark.parametrize("seed", range(8))
def test_stop_strings_agree_with_the_obvious_search(seed: int) -> None:
    rng = random.Random(100 + seed)
    num_stopped = 0
    for _ in range(400):
        data = b"".join(rng.choice(rng.choice(ALPHABETS[:3])) for _ in range(rng.randint(0, 40)))
        text = data.decode(errors="replace")
        stop = tuple(random_stop(rng, text) for _ in range(rng.randint(1, 4)))
        tokens = split(data, rng)
        min_tokens = rng.choice([0, 0, 0, 1, 5, 20])
        pieces, stop_match = detokenize(tokens, stop=stop, min_tokens=min_tokens)
        assert ("".join(pieces), stop_match) == reference(tokens, stop, min_tokens), (tokens, stop, min_tokens)
        num_stopped += stop_match is not None
    assert 100 < num_stopped < 390


def test_the_split_into_tokens_makes_no_difference() -> None:
    rng = random.Random(7)
    for _ in range(500):
        data = bytes(rng.choice(b"ab ") for _ in range(30))
        stop = tuple(random_stop(rng, data.decode()) for _ in range(3))
        results = {
            ("".join(pieces), match) for pieces, match in (detokenize(split(data, rng), stop=stop) for _ in range(4))
        }
        assert len(results) == 1


def test_text_is_held_only_while_it_may_become_a_stop_string() -> None:
    """Nothing shown is part of a stop string, and nothing is held that cannot be the start of one."""
    rng = random.Random(11)
    for _ in range(1000):
        text = "".join(rng.choice("ab") for _ in range(30))
        stop = tuple("".join(rng.choice("ab") for _ in range(rng.randint(6, 9))) for _ in range(2))
        pieces, stop_match = detokenize([c.encode() for c in text], stop=stop)
        for number in range(1, len(pieces) - (1 if stop_match is None else 2)):
            shown, seen = "".join(pieces[:number]), text[:number]
            held = seen[len(shown) :]
            assert seen.startswith(shown)
            assert not held or any(s.startswith(held) for s in stop)
            assert not any(s.startswith(seen[i:]) for s in stop for i in range(len(shown)))


def test_a_stop_string_over_three_tokens_never_leaks() -> None:
    assert detokenize([b"one ", b"<e", b"n", b"d>", b"two"], stop=("<end>",)) == (["one ", "", "", "", ""], "<end>")


def test_a_broken_off_stop_string_is_given_back() -> None:
    assert detokenize([b"a<e", b"x<", b"e"], stop=("<end>",)) == (["a", "<ex", "", "<e"], None)


def test_the_first_complete_stop_string_wins_and_of_two_the_longer() -> None:
    assert detokenize([b"xabcd"], stop=("abcd", "bc")) == (["xa", ""], "bc")
    assert detokenize([b"xabc"], stop=("bc", "abc")) == (["x", ""], "abc")
    assert detokenize([b"xabc"], stop=("a", "abc")) == (["x", ""], "a")


def test_min_tokens_lets_early_stop_strings_pass() -> None:
    tokens = [b"end ", b"e", b"nd", b" end"]
    assert detokenize(tokens, stop=("end",), min_tokens=0) == (["", ""], "end")
    assert detokenize(tokens, stop=("end",), min_tokens=1) == (["end ", "", "", ""], "end")
    assert detokenize(tokens, stop=("end",), min_tokens=2) == (["end ", "", "", ""], "end"), (
        "it begins before, ends after"
    )
    assert detokenize(tokens, stop=("end",), min_tokens=3) == (["end ", "", "end", " ", ""], "end")
    assert detokenize(tokens, stop=("end",), min_tokens=4) == (["end ", "", "end", " end", ""], None)


def test_half_characters_wait_and_end_as_one_replacement() -> None:
    assert detokenize([b"\xf0\x9f", b"\x98\x80", b"\xe2\x82"]) == (["", "\U0001f600", "", "\ufffd"], None)


def test_a_long_output_costs_microseconds_per_token() -> None:
    """Also against stop strings made to be almost met all the time; ten times as many tokens cost no more each."""
    stop = ("a" * 255 + "c", "ab" * 127 + "c", "b" + "a" * 250 + "c", "</answer>")
    tokens = [b"aaaa", b"abab", b" the", b"\xf0\x9f", b"\x98\x80", b"</an"]
    rng = random.Random(3)

    def cost_us(num_tokens: int) -> float:
        detokenizer = Detokenizer(vocabulary(tokens), stop=stop)
        token_ids = [rng.randrange(len(tokens)) for _ in range(num_tokens)]
        start_s = time.process_time()
        for token_id in token_ids:
            detokenizer.push(token_id)
        return (time.process_time() - start_s) / num_tokens * 1e6

    short_us = min(cost_us(2_000) for _ in range(5))
    long_us = min(cost_us(20_000) for _ in range(5))
    assert long_us < 50
    assert long_us < 3 * short_us
