"""The teaching loop and the engine make the same greedy text of the same tokens, wherever these end."""

import random
from collections.abc import Iterator

import pytest

from engine.sampling_params import SamplingParams
from gemma3 import Gemma3Generator
from tests.engine import table_engine
from tests.engine.fakes import Setup
from tests.engine.table_engine import EOS, VOCAB_SIZE, TableEngine, reciting

PROMPT = [1, 2]


class Reciter(Gemma3Generator):
    """The teaching loop of a model that says the same tokens whatever it is asked."""

    def __init__(self, pieces: list[bytes], token_ids: list[int]) -> None:
        self.tokenizer, self._pieces, self._said = self, pieces, token_ids  # type: ignore[assignment]
        self.device, self.eos_token_id = "cpu", EOS  # type: ignore[assignment]

    def token_to_bytes(self, token_id: int) -> bytes:
        return self._pieces[token_id]

    def _tokens(self, token_ids: list[int], max_new_tokens: int, sampler: object) -> Iterator[int]:
        yield from self._said[:max_new_tokens]


def engine_text(
    pieces: list[bytes], token_ids: list[int], stop: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(table_engine, "token_to_bytes", pieces.__getitem__)
    engine = TableEngine(Setup(), reciting([*PROMPT, *token_ids]))
    engine.core.add_request("r", PROMPT, SamplingParams(temperature=0.0, stop=stop, max_tokens=len(token_ids)))
    return "".join(delta.text for output in engine.run()["r"] for delta in output.deltas)


def test_the_stop_string_that_is_complete_first_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one token or in three, "xabc" is "xa" with the stops "abc" and "b"."""
    pieces = [b"", b"xabc", b"xa", b"b", b"c"] + [b""] * (VOCAB_SIZE - 5)
    for token_ids in ([1], [2, 3, 4]):
        assert Reciter(pieces, token_ids).generate(PROMPT, stop=("abc", "b")) == "xa"
        assert engine_text(pieces, token_ids, ("abc", "b"), monkeypatch) == "xa"


@pytest.mark.parametrize("seed", range(40))
def test_random_tokens_and_stops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    parts = [b"a", b"b", b"ab", "\u00e4".encode(), b"\xc3", b"\xa4", b"\xf0\x9f"]
    pieces = [b"", *(b"".join(rng.choices(parts, k=rng.randint(0, 4))) for _ in range(VOCAB_SIZE - 1))]
    stop = tuple("".join(rng.choices("ab\u00e4", k=rng.randint(1, 5))) for _ in range(rng.randint(0, 3)))
    token_ids = [*rng.choices(range(1, VOCAB_SIZE), k=rng.randint(1, 12)), *rng.choices((EOS, 1), k=1)]
    loop = Reciter(pieces, token_ids)
    assert loop.generate(PROMPT, stop=stop) == engine_text(pieces, token_ids, stop, monkeypatch)
    assert "".join(token.text for token in loop.stream(PROMPT, stop=stop)) == loop.generate(PROMPT, stop=stop)
