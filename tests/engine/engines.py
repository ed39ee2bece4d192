"""Engines for tests, over tiny random models or the real one, and a loop that runs requests to their end."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.engine_options import EngineOptions
from engine.loading import LoadedEngine, load_engine
from engine.outputs import FinishReason, TokenLogprob
from engine.sampling_params import SamplingParams
from tests.gemma3 import tiny

GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)


def tiny_checkpoint(folder: Path, seed: int = 3) -> Path:
    """Seven layers, window 16, context 512, weights flat enough that greedy text does not freeze at one token."""
    shape = tiny.random_shape(random.Random(seed)) | {
        "num_hidden_layers": 7,
        "sliding_window": 16,
        "max_position_embeddings": 512,
    }
    return tiny.save_directory(folder, tiny.oracle_model(shape, seed))


def load(path: Path, **options: object) -> LoadedEngine:
    settings: dict[str, object] = {
        "model": str(path),
        "dtype": "float32",
        "max_num_seqs": 16,
        "kv_cache_memory": 64 << 20,
    }
    return load_engine(EngineOptions(**settings | options))


@dataclass
class Answer:
    """What one of a request's sequences said."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0


def run(
    engine: LoadedEngine, prompts: Mapping[str, Iterable[int]], params: SamplingParams = GREEDY, *, check: bool = True
) -> dict[str, list[Answer]]:
    """Add all requests at once and step until none is left."""
    for request_id, prompt in prompts.items():
        engine.core.add_request(request_id, prompt, params)
    answers = {request_id: [Answer() for _ in range(params.n)] for request_id in prompts}
    while engine.core.has_unfinished_requests:
        result = engine.core.step()
        assert not result.errors, result.errors
        if check:
            engine.core.scheduler.check_integrity()
        for output in result.outputs:
            for delta in output.deltas:
                answer = answers[output.request_id][delta.index]
                answer.text += delta.text
                answer.token_ids += delta.token_ids
                answer.logprobs += delta.logprobs or ()
                answer.finish_reason = delta.finish_reason
                answer.num_cached_tokens = output.num_cached_tokens
    return answers


def same_until_unsure(expected: Answer, got: Answer, *, margin: float = 1e-3) -> bool:
    """Equal tokens wherever the likeliest leads the second by more than ``margin``; after an unsure place texts may part."""
    for want, have, entry in zip(expected.token_ids, got.token_ids, expected.logprobs, strict=False):
        if want != have:
            return entry.top[0][1] - entry.top[1][1] <= margin
    return len(expected.token_ids) == len(got.token_ids)


def with_margins(params: SamplingParams) -> SamplingParams:
    """Also report the two likeliest tokens, which ``same_until_unsure`` needs."""
    return replace(params, logprobs=2)
