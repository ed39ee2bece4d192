"""Which tokens a request allows, and which log probabilities it asks for, through whole engines of every precision.

In float32 the figures are those of transformers' ``log_softmax``, within the distance between two float32 models.
"""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.errors import RequestError
from engine.loading import LoadedEngine
from engine.outputs import RequestOutput
from engine.sampling_params import MAX_ALLOWED_TOKEN_IDS, MAX_LOGPROB_TOKEN_IDS, SamplingParams, SamplingParamsError
from gemma3 import cpu
from tests.engine.engines import GREEDY, load, run, tiny_checkpoint
from tests.gemma3 import tiny

DISTANCE = 2e-4  # between float32 log probabilities of transformers and of ours
PROMPT = [2, 150, 151, 152, 153, 150, 151]
LABELS = (300, 120, 121, 362)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("choice") / "model")


@pytest.fixture(scope="module")
def float32(checkpoint: Path) -> LoadedEngine:
    return load(checkpoint)


@pytest.fixture(
    scope="module", params=[{"quantization": "int8"}, {"quantization": "int4"}, {"dtype": "float32"}], ids=str
)
def engine(request: pytest.FixtureRequest, checkpoint: Path) -> LoadedEngine:
    reason = cpu.why_unavailable()
    if "quantization" in request.param and reason is not None:
        pytest.skip(reason)
    return load(checkpoint, **{"dtype": "auto", **request.param})


@pytest.fixture(scope="module")
def oracle(checkpoint: Path) -> tiny.OracleModel:
    return tiny.OracleModel.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()


def oracle_logprobs(oracle: tiny.OracleModel, token_ids: list[int]) -> torch.Tensor:
    """(T, V): row t is of the token after ``token_ids[: t + 1]``."""
    with torch.inference_mode():
        logits: torch.Tensor = oracle(torch.tensor([token_ids])).logits[0]
    return logits.float().log_softmax(-1)


def outputs_of(engine: LoadedEngine, prompt: list[int], params: SamplingParams) -> list[RequestOutput]:
    engine.core.add_request("r", prompt, params)
    outputs = []
    while engine.core.has_unfinished_requests:
        outputs += engine.core.step().outputs
    return outputs


def test_only_allowed_tokens_are_sampled(engine: LoadedEngine) -> None:
    """Greedily and by chance, beside rows that allow all, and the same alone: rows share a thread's memory."""
    prompts = {f"{i}": [2, *range(120, 125 + i), *range(120, 125 + i)] for i in range(3)}
    greedy = replace(GREEDY, max_tokens=8)
    for settings in (greedy, replace(greedy, temperature=1.0, top_p=0.9, seed=3)):
        for name, prompt in prompts.items():
            engine.core.add_request(f"free {name}", prompt, settings)
        labels = replace(settings, allowed_token_ids=LABELS, logprobs=2)
        for name, prompt in prompts.items():
            engine.core.add_request(f"bound {name}", prompt, labels)
        said: dict[str, list[int]] = {}
        while engine.core.has_unfinished_requests:
            for output in engine.core.step().outputs:
                for delta in output.deltas:
                    said.setdefault(output.request_id, []).extend(delta.token_ids)
        for name, prompt in prompts.items():
            assert set(said[f"bound {name}"]) <= set(LABELS)
            assert said[f"bound {name}"] == run(engine, {"alone": prompt}, labels)["alone"][0].token_ids
            assert said[f"free {name}"] == run(engine, {"alone": prompt}, settings)["alone"][0].token_ids


def test_greedy_takes_the_likeliest_of_the_allowed(float32: LoadedEngine, oracle: tiny.OracleModel) -> None:
    (answer,) = run(float32, {"r": PROMPT}, replace(GREEDY, allowed_token_ids=LABELS, logprobs=0))["r"]
    rows = oracle_logprobs(oracle, PROMPT + answer.token_ids)[len(PROMPT) - 1 : -1]
    for row, token_id, entry in zip(rows, answer.token_ids, answer.logprobs, strict=True):
        assert float(row[token_id]) == pytest.approx(float(row[list(LABELS)].max()), abs=DISTANCE)
        assert entry.logprob == pytest.approx(float(row[token_id]), abs=DISTANCE)


def test_drafts_change_nothing_where_little_is_allowed(engine: LoadedEngine) -> None:
    """With two ids a text repeats itself, so that drafts come true; with an eye on the count that they do."""
    before = engine.core.scheduler.num_accepted_draft_tokens
    params = replace(GREEDY, allowed_token_ids=(150, 151), max_tokens=40, logprobs=1, logprob_token_ids=LABELS)
    (fast,) = run(engine, {"r": PROMPT}, params)["r"]
    assert engine.core.scheduler.num_accepted_draft_tokens > before
    engine.core.scheduler.config, config = (
        replace(engine.core.scheduler.config, max_draft_rows=0),
        engine.core.scheduler.config,
    )
    (slow,) = run(engine, {"r": PROMPT}, params)["r"]
    engine.core.scheduler.config = config
    assert fast.token_ids == slow.token_ids
    for entry, other in zip(fast.logprobs, slow.logprobs, strict=True):
        assert [token_id for token_id, _ in entry.top] == list(LABELS)
        assert [p for _, p in entry.top] == pytest.approx([p for _, p in other.top], abs=1e-4)


def test_reported_ids_have_the_model_s_log_probabilities(float32: LoadedEngine, oracle: tiny.OracleModel) -> None:
    params = replace(
        GREEDY, temperature=1.3, seed=5, logprobs=0, logprob_token_ids=(*LABELS, 1), repetition_penalty=1.3
    )
    (answer,) = run(float32, {"r": PROMPT}, params)["r"]
    rows = oracle_logprobs(oracle, PROMPT + answer.token_ids)[len(PROMPT) - 1 : -1]
    for row, entry in zip(rows, answer.logprobs, strict=True):
        assert [token_id for token_id, _ in entry.top] == [*LABELS, 1]
        assert [p for _, p in entry.top] == pytest.approx(row[[*LABELS, 1]].tolist(), abs=DISTANCE)


def test_a_prompt_has_the_model_s_log_probabilities_and_ranks(
    float32: LoadedEngine, engine: LoadedEngine, oracle: tiny.OracleModel
) -> None:
    """Whole and in chunks, also after the same prompt: a cached prefix has no log probabilities."""
    rng = random.Random(1)
    prompt = [2, *(rng.randrange(107, 363) for _ in range(80))]
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=3, prompt_ranks=True)
    rows = oracle_logprobs(oracle, prompt)
    for _ in range(2):
        first, *entries = outputs_of(float32, prompt, params)[0].prompt_logprobs or ()
        assert first is None
        for row, token_id, entry in zip(rows, prompt[1:], entries, strict=False):
            assert entry.token_id == token_id
            assert entry.logprob == pytest.approx(float(row[token_id]), abs=DISTANCE)
            assert [p for _, p in entry.top] == pytest.approx(row.topk(3).values.tolist(), abs=DISTANCE)
            surely_before = int((row > row[token_id] + DISTANCE).sum())
            assert surely_before < entry.rank <= 1 + int((row > row[token_id] - DISTANCE).sum())
    for entry in (outputs_of(engine, prompt, params)[0].prompt_logprobs or ())[1:]:
        tops = [token_id for token_id, _ in entry.top]
        assert (entry.rank <= 3) == (entry.token_id in tops)
        assert entry.token_id not in tops or tops[entry.rank - 1] == entry.token_id


def test_ranks_are_only_counted_for_those_who_ask(engine: LoadedEngine) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, logprobs=0)
    (output, *_) = outputs_of(engine, PROMPT, params)
    assert {entry.rank for entry in (output.prompt_logprobs or ())[1:]} == {0}


def test_sixty_four_answers_of_one_prompt(engine: LoadedEngine) -> None:
    """More than there are seats; each as if it were alone with its index, and nothing stays behind."""
    params = SamplingParams(temperature=1.0, seed=9, n=64, max_tokens=4, ignore_eos=True)
    answers = run(engine, {"r": PROMPT}, params)["r"]
    assert [len(answer.token_ids) for answer in answers] == [4] * 64
    assert len({tuple(answer.token_ids) for answer in answers}) > 32
    few = run(engine, {"r": PROMPT}, replace(params, n=3))["r"]
    assert [answer.token_ids for answer in answers[:3]] == [answer.token_ids for answer in few]
    assert engine.core.scheduler.num_running == engine.core.scheduler.num_waiting == 0


def test_what_leaves_nothing_to_choose_is_the_request_s_fault(float32: LoadedEngine) -> None:
    """Before ``min_tokens`` no end token may come, and a step without a choice would be our failure."""
    for allowed, stops, is_fine in (((1,), (), False), ((1, 9), (9,), False), ((1, 9), (), True)):
        params = SamplingParams(min_tokens=2, max_tokens=4, allowed_token_ids=allowed, stop_token_ids=stops, seed=1)
        if is_fine:
            assert run(float32, {"r": PROMPT}, params)["r"][0].token_ids[:2] == [9, 9]
            continue
        with pytest.raises(RequestError, match="min_tokens=2 forbids") as caught:
            float32.core.add_request("r", PROMPT, params)
        assert caught.value.param == "allowed_token_ids"
    assert not float32.core.has_unfinished_requests


def test_bounds() -> None:
    for fields, param in (
        ({"allowed_token_ids": tuple(range(MAX_ALLOWED_TOKEN_IDS + 1))}, "allowed_token_ids"),
        ({"logprob_token_ids": tuple(range(MAX_LOGPROB_TOKEN_IDS + 1)), "logprobs": 1}, "logprob_token_ids"),
        ({"logprob_token_ids": (1,)}, "logprob_token_ids"),
    ):
        with pytest.raises(SamplingParamsError) as caught:
            SamplingParams(**fields)  # type: ignore[arg-type]
        assert caught.value.param == param
    kept = SamplingParams(allowed_token_ids=(9, 3, 9), logprob_token_ids=(9, 3, 9), logprobs=0)
    assert (kept.allowed_token_ids, kept.logprob_token_ids) == ((3, 9), (9, 3))
