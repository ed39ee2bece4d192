"""Drafts in the whole engine: they change how many steps an answer takes, and nothing else."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.kv_cache_sizes import blocks_for_one_sequence
from engine.outputs import FinishReason, SequenceDelta
from engine.sampling_params import SamplingParams
from tests.engine.engines import load, run, tiny_checkpoint
from tests.engine.fakes import Setup
from tests.engine.table_engine import EOS, VOCAB_SIZE, TableEngine, random_table, reciting, told

WORKLOADS = [range(3, 6), range(6, 9), pytest.param(range(9, 200), marks=pytest.mark.slow)]
ROOMY = Setup(max_num_seqs=4, max_num_batched_tokens=64, max_model_len=256, prefill_chunk_tokens=32, max_draft_rows=24)


def random_setup(rng: random.Random) -> Setup:
    chunk, block_size, window = rng.choice((3, 8, 20)), rng.choice((1, 4, 16)), rng.choice((3, 20, 100))
    smallest = blocks_for_one_sequence(120, block_size=block_size, window=window, prefill_chunk_tokens=chunk)
    num_seqs, room = rng.choice((1, 5, 6, 6)), rng.choice((1.0, 1.0, 1.0, 6.0))
    return Setup(
        max_num_seqs=num_seqs,
        max_num_batched_tokens=num_seqs + chunk + rng.choice((0, 5, 30)),
        max_model_len=120,
        prefill_chunk_tokens=chunk,
        block_size=block_size,
        window=window,
        num_global=int(smallest.num_global * room),
        num_sliding=int(smallest.num_sliding * room),
        enable_prefix_caching=rng.random() < 0.7,
        max_draft_rows=rng.choice((8, 24, 100)),
    )


def random_params(rng: random.Random) -> SamplingParams:
    max_tokens = rng.choice((1, 20, 60))
    return SamplingParams(
        temperature=rng.choice((0.0, 0.0, 0.5, 1.0)),
        seed=rng.randrange(1_000),
        top_k=rng.choice((0, 0, 3)),
        top_p=rng.choice((1.0, 0.8)),
        repetition_penalty=rng.choice((1.0, 1.0, 1.2)),
        frequency_penalty=rng.choice((0.0, 0.0, 0.4, -0.5)),
        presence_penalty=rng.choice((0.0, 0.0, 0.5)),
        logit_bias=rng.choice(({}, {}, {EOS: 3.0})),
        n=rng.choice((1, 1, 1, 2)),
        max_tokens=max_tokens,
        min_tokens=rng.choice((0, 0, max_tokens // 2)),
        stop=rng.choice(((), (), (), ("abc", "qe"), ("ca",))),
        stop_token_ids=rng.choice(((), (), (), (5,))),
        ignore_eos=rng.random() < 0.8,
        logprobs=rng.choice((None, None, 0, 2)),
        prompt_logprobs=rng.choice((None, None, None, 1)),
        prompt_ranks=rng.random() < 0.5,
        allowed_token_ids=rng.choice(((), (), tuple(rng.sample(range(6, VOCAB_SIZE), 4)))),
    )


def random_request(rng: random.Random, shared: list[int]) -> dict[str, Any]:
    own = [rng.randrange(1, VOCAB_SIZE) for _ in range(rng.randint(1, 20))]
    return {
        "prompt_token_ids": rng.choice((own, shared + own, shared[:20] + own)),
        "params": random_params(rng),
        "prediction_token_ids": rng.choice(((), tuple(own), tuple(shared[:30]))),
    }


@pytest.mark.parametrize("seeds", WORKLOADS, ids=str)
def test_with_drafts_and_without_everyone_is_told_the_same(seeds: range) -> None:
    """Random requests of every kind in little memory, in small chunks, with prefix hits, beside one that is aborted."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        setup, logits = random_setup(rng), random_table(seed, scale=rng.choice((1.0, 6.0, 6.0)))
        shared = [rng.randrange(1, VOCAB_SIZE) for _ in range(40)]
        requests = {f"r{i}": random_request(rng, shared) for i in range(rng.randint(3, 8))}
        num_steps_of_r0 = rng.choice((0, 5, 20, 1_000))
        answers = []
        for each in (setup, replace(setup, max_draft_rows=0)):
            engine = TableEngine(each, logits)
            for request_id, request in requests.items():
                engine.core.add_request(request_id, **request)
            outputs = engine.run(abort="r0", after_steps=num_steps_of_r0)
            others = [name for name in requests if name != "r0"]
            answers.append({name: told(outputs[name], requests[name]["params"].n) for name in others})
            count(seen, engine, with_drafts=each is setup)
        assert answers[0] == answers[1], f"workload {seed}"
    assert seen["steps with drafts"] < seen["steps without"]
    for event in ("accepted", "rejected", "preemptions", "hits"):
        assert seen[event] > 0, f"the workloads are too tame: {seen}"


def count(seen: Counter[str], engine: TableEngine, *, with_drafts: bool) -> None:
    scheduler = engine.core.scheduler
    seen["steps with drafts" if with_drafts else "steps without"] += len(engine.runner.num_rows_of_steps)
    seen["accepted"] += scheduler.num_accepted_draft_tokens
    seen["rejected"] += scheduler.num_draft_tokens - scheduler.num_accepted_draft_tokens
    seen["preemptions"] += scheduler.num_preemptions
    seen["hits"] += scheduler.num_prefix_hit_tokens


# The same on a model of torch, where rows are computed for real.


def test_a_tiny_model_says_the_same(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "model")
    rng = random.Random(0)
    phrase = [rng.randrange(107, 363) for _ in range(40)]
    prompts = {f"{i}": [2, *phrase[i:], *phrase, *phrase[: 5 * i]] for i in range(6)}
    with_drafts, without = load(path), load(path)
    forbid_drafts(without.core.scheduler)
    for params in (
        SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True, logprobs=2),
        SamplingParams(temperature=0.6, seed=5, max_tokens=40, ignore_eos=True, frequency_penalty=0.2, n=2),
    ):
        answers, expected = run(with_drafts, prompts, params), run(without, prompts, params)
        for name in prompts:
            for got, want in zip(answers[name], expected[name], strict=True):
                assert (got.token_ids, got.text, got.finish_reason) == (want.token_ids, want.text, want.finish_reason)
                logprobs = [entry.logprob for entry in want.logprobs]
                assert [entry.logprob for entry in got.logprobs] == pytest.approx(logprobs, abs=1e-4)
    assert with_drafts.core.scheduler.num_accepted_draft_tokens > 50
    assert without.core.scheduler.num_draft_tokens == 0


def forbid_drafts(scheduler: Any) -> None:
    scheduler.config = replace(scheduler.config, max_draft_rows=0)


# Where an answer ends inside of a step. The model recites a text that is predicted.


PROMPT = [27, 28] * 8


def letters(text: str) -> list[int]:
    return [EOS if letter == "$" else ord(letter) - ord("a") + 1 for letter in text]


def recite(text: str, *, prediction: str | None = None, **params: Any) -> tuple[TableEngine, list[SequenceDelta]]:
    """The answer of a model that says ``text`` whatever it is asked; it is predicted, unless something else is."""
    engine = TableEngine(ROOMY, reciting([*PROMPT, *letters(text)]))
    engine.core.add_request(
        "r",
        PROMPT,
        SamplingParams(temperature=0.0, **{"max_tokens": 64, **params}),
        prediction_token_ids=letters(text if prediction is None else prediction),
    )
    (seq,) = engine.core.requests["r"].sequences
    seq.lookup.settle(num_drafts=8, num_accepted=8)  # as if it had guessed well already
    outputs = engine.run()["r"]
    assert outputs[-1].finished
    deltas = [delta for output in outputs for delta in output.deltas]
    assert seq.output_token_ids == [token_id for delta in deltas for token_id in delta.token_ids]
    return engine, deltas


def test_an_end_token_among_the_accepted_drafts() -> None:
    _, deltas = recite("abcdefgh$ijklmnop")
    assert len(deltas) == 2
    assert "".join(delta.text for delta in deltas) == "abcdefgh"
    assert deltas[-1].token_ids == tuple(letters("bcdefgh$"))
    assert (deltas[-1].finish_reason, deltas[-1].stop_reason) == (FinishReason.STOP, None)
    assert (deltas[-1].num_accepted_predictions, deltas[-1].num_rejected_predictions) == (8, 7)


def test_an_end_token_is_said_like_any_other_before_min_tokens() -> None:
    """The ban of end tokens counts the drafts: the ninth token may be one, none before it."""
    for min_tokens, is_end in ((8, True), (9, False)):
        _, deltas = recite("abcdefgh$ijklmnop", min_tokens=min_tokens)
        said = [token_id for delta in deltas for token_id in delta.token_ids]
        assert said[:8] == letters("abcdefgh")
        assert (said[8:] == [EOS]) == is_end
        assert (EOS in said[:9]) == is_end


def test_a_stop_string_among_the_accepted_drafts() -> None:
    _, deltas = recite("abcdefghijklmnop", stop=("fg",))
    assert "".join(delta.text for delta in deltas) == "abcde"
    assert deltas[-1].token_ids == tuple(letters("bcdefg"))
    assert (deltas[-1].finish_reason, deltas[-1].stop_reason) == (FinishReason.STOP, "fg")


def test_a_stop_token_among_the_accepted_drafts() -> None:
    _, deltas = recite("abcdefghijklmnop", stop_token_ids=tuple(letters("d")), logprobs=1)
    assert "".join(delta.text for delta in deltas) == "abc"
    assert (deltas[-1].finish_reason, deltas[-1].stop_reason) == (FinishReason.STOP, letters("d")[0])
    assert [entry.token_id for entry in deltas[-1].logprobs or ()] == letters("bcd")


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 8, 16, 17, 18])
def test_the_limit_of_tokens_is_met_exactly(max_tokens: int) -> None:
    engine, deltas = recite("abcdefghijklmnopqrstuv", max_tokens=max_tokens)
    assert [token_id for delta in deltas for token_id in delta.token_ids] == letters(
        "abcdefghijklmnopqrstuv"[:max_tokens]
    )
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == [FinishReason.LENGTH]
    num_drafted_for = max_tokens - 1  # the first comes with the prompt
    assert engine.runner.num_rows_of_steps[1:2] == ([min(16, num_drafted_for)] if num_drafted_for else [])


def test_every_token_of_a_step_has_its_logprob() -> None:
    _, deltas = recite("abcdefghijklmnop", logprobs=0, max_tokens=16)
    assert len(deltas) == 2
    for delta in deltas:
        assert [entry.token_id for entry in delta.logprobs or ()] == list(delta.token_ids)


def test_what_was_said_in_one_step_is_found_as_a_prefix_and_what_was_dropped_harms_nobody() -> None:
    text = "abcdefghijklmnopqrstuv"
    engine, _ = recite(text, stop=("pq",))
    engine.core.add_request("again", [*PROMPT, *letters(text[:18])], SamplingParams(temperature=0.0, max_tokens=4))
    outputs = engine.run()["again"]
    assert outputs[-1].num_cached_tokens >= 16
    assert "".join(delta.text for output in outputs for delta in output.deltas) == text[18:22]


# What is counted.


def test_predictions_are_counted_and_other_drafts_are_not() -> None:
    _, deltas = recite("abcdefghijklmnop", prediction="abcdefgzzzzzzzzz", max_tokens=16)
    assert sum(delta.num_accepted_predictions for delta in deltas) == 6
    assert sum(delta.num_rejected_predictions for delta in deltas) >= 8
    engine, deltas = recite("abcdefgh" * 4, prediction="", max_tokens=32)
    assert engine.core.scheduler.num_accepted_draft_tokens > 8
    assert {(delta.num_accepted_predictions, delta.num_rejected_predictions) for delta in deltas} == {(0, 0)}


def test_copying_reaches_4_tokens_a_step() -> None:
    """An answer that repeats a text of the prompt, in words of its own before and after."""
    rng = random.Random(3)
    source = [rng.randrange(1, VOCAB_SIZE) for _ in range(120)]
    answer = [3, 4, *source, 7, 8, 9]
    prompt = [*source, 1, 2]
    engine = TableEngine(ROOMY, reciting([*prompt, *answer, EOS, EOS]))
    engine.core.add_request("r", prompt, SamplingParams(temperature=0.0, max_tokens=None))
    deltas = [delta for output in engine.run()["r"] for delta in output.deltas]
    assert [token_id for delta in deltas for token_id in delta.token_ids] == [*answer, EOS]
    assert len(answer) / len(deltas) >= 4


def test_random_text_costs_next_to_no_rows() -> None:
    """Pairs repeat in a text of 28 letters, and mean nothing: drafts that come true pay for themselves."""
    setup = replace(ROOMY, max_model_len=2_048, num_global=512)
    engine = TableEngine(setup, random_table(0, scale=0.0))
    for i in range(4):
        params = SamplingParams(temperature=1.0, seed=i, max_tokens=400, ignore_eos=True)
        engine.core.add_request(f"r{i}", [1, 2, 3 + i], params)
    engine.run()
    scheduler = engine.core.scheduler
    num_rejected = scheduler.num_draft_tokens - scheduler.num_accepted_draft_tokens
    assert num_rejected <= 4 * 15 + 0.03 * 4 * 400 + 4 * scheduler.num_accepted_draft_tokens
