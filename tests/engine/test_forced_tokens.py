"""Of each token of an answer, whether its grammar left no choice, however the answer came about."""

import random
from collections.abc import Iterable

import pytest

from engine.grammar.compiler import Grammar
from engine.outputs import RequestOutput, joined
from engine.sampling_params import SamplingParams
from tests.engine.table_engine import VOCAB_SIZE, TableEngine, random_table
from tests.engine.test_constrained import REGEXES, ROOMY, random_requests
from tests.engine.test_constrained import compiler as compiler
from tests.engine.test_constrained import grammars as grammars
from tests.engine.test_speculation import random_setup


def flags(outputs: Iterable[RequestOutput], index: int) -> tuple[list[int], bytes]:
    """A choice's token ids and what is said of each."""
    deltas = [delta for output in outputs for delta in output.deltas if delta.index == index]
    return [token_id for delta in deltas for token_id in delta.token_ids], b"".join(delta.forced for delta in deltas)


def replayed(grammar: Grammar, token_ids: list[int], *, max_tokens: int) -> bytes:
    """By the grammar alone: what must follow is forced, the token after it is chosen."""
    state, found = grammar.start(), b""
    while len(found) < len(token_ids):
        forced = [] if state.is_complete else state.forced(max_tokens - len(found))
        state.accept(forced)
        found += b"\1" * len(forced)
        if len(found) < len(token_ids):
            state.accept([token_ids[len(found)]])
            found += b"\0"
    return found[: len(token_ids)]


def test_the_flags_are_the_grammars_however_the_steps_fall(grammars: dict[str, Grammar]) -> None:
    """In little memory, with preemptions, prefix hits, drafts, stop strings and log probabilities."""
    num_forced = num_chosen = 0
    for seed in range(8):
        rng = random.Random(seed)
        requests = random_requests(rng, grammars, [rng.randrange(1, VOCAB_SIZE) for _ in range(40)])
        engine = TableEngine(random_setup(rng), random_table(seed, scale=rng.choice((1.0, 6.0))))
        for name, request in requests.items():
            engine.core.add_request(name, **request)
        for name, outputs in engine.run().items():
            params = requests[name]["params"]
            for index in range(params.n):
                token_ids, forced = flags(outputs, index)
                if params.grammar is None:
                    assert forced == b""
                    continue
                assert forced == replayed(params.grammar, token_ids, max_tokens=params.max_tokens)
                num_forced, num_chosen = num_forced + sum(forced), num_chosen + forced.count(0)
    assert num_forced > 50
    assert num_chosen > 50


@pytest.mark.parametrize("logprobs", [None, 0])
def test_outputs_that_are_joined_keep_them(grammars: dict[str, Grammar], logprobs: int | None) -> None:
    engine = TableEngine(ROOMY, random_table(0, scale=1.0))
    params = SamplingParams(grammar=grammars[REGEXES[0]], max_tokens=60, logprobs=logprobs, seed=1)
    engine.core.add_request("r", [3, 4, 5], params)
    outputs = engine.run()["r"]
    assert flags([joined(outputs)], 0) == flags(outputs, 0)
    token_ids, forced = flags(outputs, 0)
    assert len(forced) == len(token_ids)
    assert forced.startswith(b"\1\1\0"), "ab is forced, c or d is chosen"
