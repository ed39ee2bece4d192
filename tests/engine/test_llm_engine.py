"""Offline use: prompts in, answers out, in order."""

from pathlib import Path

import pytest

from engine import LLMEngine, SamplingParams
from engine.errors import RequestError
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
