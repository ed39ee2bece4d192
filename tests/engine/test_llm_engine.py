"""Offline use: prompts in, answers out, in order."""

from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest

from engine import LLMEngine, SamplingParams
from engine.engine_options import EngineKeywords, EngineOptions
from engine.errors import RequestError, StepError
from tests.engine.engines import tiny_checkpoint

PARAMS = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True, n=2)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LLMEngine:
    path = tiny_checkpoint(tmp_path_factory.mktemp("offline") / "model")
    return LLMEngine(str(path), dtype="float32", max_num_seqs=4, kv_cache_memory=64 << 20)


def test_answers_come_in_the_order_of_the_prompts(engine: LLMEngine) -> None:
    prompts = ["abc", [2, 150, 151], "", "a longer prompt than the others"]
    answers = engine.generate(prompts, PARAMS, show_progress=False)
    alone = [engine.generate([prompt], PARAMS, show_progress=False)[0] for prompt in prompts]
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in alone]
    assert answers[1].prompt_token_ids == (2, 150, 151)
    assert answers[2].prompt_token_ids == (2,), "an empty text is a BOS"
    for answer in answers:
        assert len(answer.texts) == 2
        assert answer.token_ids[0] == answer.token_ids[1]
        assert answer.finish_reasons == ("length", "length")


def test_a_bad_prompt_leaves_nothing_behind(engine: LLMEngine) -> None:
    with pytest.raises(RequestError):
        engine.generate(["fine", []], PARAMS, show_progress=False)
    assert not engine.core.has_unfinished_requests
    engine.core.scheduler.check_integrity()


def test_an_answer_ends_at_the_context_whatever_was_asked_for(engine: LLMEngine) -> None:
    room, limit = 3, engine.info.max_model_len
    (answer,) = engine.generate([[2] * (limit - room)], replace(PARAMS, max_tokens=10_000), show_progress=False)
    assert [len(token_ids) for token_ids in answer.token_ids] == [room, room]
    assert answer.finish_reasons == ("length", "length")
    with pytest.raises(RequestError, match=f"maximum context length is {limit} tokens; the prompt is too long"):
        engine.generate([[2] * limit], PARAMS, show_progress=False)


def test_options_are_checked(tmp_path: Path) -> None:
    path = str(tiny_checkpoint(tmp_path / "model"))
    for options, words in (
        ({"max_model_len": 513}, "max_model_len=513"),
        ({"max_num_batched_tokens": 40}, "max_num_batched_tokens=40"),
        ({"kv_cache_memory": 1_000}, "kv_cache_bytes=1000"),
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"device": "tpu"}, "device='tpu'"),
    ):
        with pytest.raises(ValueError, match=words):
            LLMEngine(path, **options)


def test_keywords_are_the_options() -> None:
    options = get_type_hints(EngineOptions)
    assert get_type_hints(EngineKeywords) == {name: kind for name, kind in options.items() if name != "model"}


def test_a_stream_brings_what_generate_brings(engine: LLMEngine) -> None:
    (expected,) = engine.generate(["abc"], PARAMS, show_progress=False)
    outputs = list(engine.stream("abc", PARAMS))
    assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
    for index in range(2):
        deltas = [delta for output in outputs for delta in output.deltas if delta.index == index]
        assert "".join(delta.text for delta in deltas) == expected.texts[index]
    assert not engine.core.has_unfinished_requests


def test_streams_in_turns_share_the_steps(engine: LLMEngine) -> None:
    one = replace(PARAMS, n=1)
    expected = engine.generate(["abc", "defgh"], one, show_progress=False)
    pairs = list(zip(engine.stream("abc", one), engine.stream("defgh", one), strict=False))
    for which, answer in enumerate(expected):
        token_ids = [token_id for pair in pairs for delta in pair[which].deltas for token_id in delta.token_ids]
        assert tuple(token_ids) == answer.token_ids[0][: len(token_ids)]
        assert token_ids


def test_closing_a_stream_aborts_its_request(engine: LLMEngine) -> None:
    stream = engine.stream("abc", replace(PARAMS, max_tokens=400))
    next(stream)
    assert engine.core.has_unfinished_requests
    stream.close()
    assert not engine.core.has_unfinished_requests
    engine.core.scheduler.check_integrity()
    with pytest.raises(RequestError):
        next(engine.stream([]))


def test_an_error_of_a_step_is_raised_from_its_stream(engine: LLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = engine.stream("abc", replace(PARAMS, max_tokens=40))
    next(stream)

    def fail(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(engine.core.scheduler, "update", fail)
        with pytest.raises(StepError):
            list(stream)
    assert not engine.core.has_unfinished_requests
