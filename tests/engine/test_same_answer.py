"""The same greedy answer every way: alone, in a batch, after a prefix hit, in any chunks, preempted, as one of n.

On a tiny model by default, on the real weights (prompts up to 3,000 tokens) in the tests marked slow: int8, the default, with all
prompts, the others with a dozen, and all of them in the soak. Torch's sums depend on what else is in the batch, so there texts
may part where two tokens are as good as equal; the native core's answers are equal, always.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from engine.loading import LoadedEngine
from engine.prefill_pace import Unpaced
from engine.sampling_params import SamplingParams
from gemma3 import cpu
from tests.engine.engines import GREEDY, Answer, load, run, same_until_unsure, tiny_checkpoint, with_margins
from tests.gemma3 import texts

Prompts = dict[str, list[int]]


@dataclass(frozen=True)
class Case:
    """A checkpoint, prompts, and each prompt's answer when it is alone in a fresh engine."""

    path: Path
    options: dict[str, object]
    prompts: Prompts
    alone: dict[str, Answer]
    params: SamplingParams = GREEDY

    def load(self, **options: object) -> LoadedEngine:
        return load(self.path, **self.options | options)

    @property
    def is_exact(self) -> bool:
        return self.options.get("quantization", "none") != "none"

    def check(self, answers: dict[str, list[Answer]]) -> None:
        for name, expected in self.alone.items():
            for got in answers[name]:
                is_same = got.token_ids == expected.token_ids if self.is_exact else same_until_unsure(expected, got)
                assert is_same, name


PRECISIONS: dict[str, dict[str, object]] = {
    "float32": {"quantization": "none", "dtype": "float32"},
    "int8": {"quantization": "int8", "dtype": "auto"},
    "int4": {"quantization": "int4", "dtype": "auto"},
}
DEFAULT = "int8"


def options_for(precision: object) -> dict[str, object]:
    options = PRECISIONS[str(precision)]
    reason = cpu.why_unavailable()
    if options["quantization"] != "none" and reason is not None:
        pytest.skip(reason)
    return options


def answer_alone(path: Path, options: dict[str, object], prompts: Prompts) -> dict[str, Answer]:
    engine = load(path, prefix_caching=False, **options)
    return {name: run(engine, {name: prompt}, with_margins(GREEDY))[name][0] for name, prompt in prompts.items()}


def small_case(path: Path, options: dict[str, object]) -> Case:
    rng = random.Random(0)
    lengths = [1, 2, 15, 16, 17, 31, 32, 33, 100, 300, *(rng.randint(1, 200) for _ in range(10))]
    prompts = {f"{i}": [2] + [rng.randrange(107, 363) for _ in range(n - 1)] for i, n in enumerate(lengths)}
    return Case(path, options, prompts, answer_alone(path, options, prompts))


def real_case(path: Path, options: dict[str, object], *, takes_all: bool) -> Case:
    options = options | {"max_model_len": 4_096, "kv_cache_memory": 1 << 30}
    engine = load(path, **options)
    ids = engine.tokenizer.encode(texts.MIXED * 12, add_bos=True)
    prompts = {text: engine.tokenizer.encode(text, add_bos=True) for text in texts.SHORT_PROMPTS}
    rng = random.Random(0)
    for length in (511, 512, 513, 1_023, 1_024, 1_025, 3_000, *(rng.randint(20, 250) for _ in range(26))):
        first = rng.randrange(len(ids) - length)
        prompts[f"{length} from {first}"] = [2, *ids[first + 1 : first + length]]
    assert len(prompts) == 40
    if not takes_all:  # those around the window and the chunk among them
        prompts = {name: prompts[name] for name in sorted(prompts, key=lambda name: len(prompts[name]))[3:-1:3]}
    return Case(path, options, prompts, answer_alone(path, options, prompts))


@pytest.fixture(scope="module")
def small_cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The small case of a precision; each is made once, for all tests."""
    path = tiny_checkpoint(tmp_path_factory.mktemp("same") / "model")
    return cache(lambda precision: small_case(path, options_for(precision)))


@pytest.fixture(scope="module", params=PRECISIONS)
def small(request: pytest.FixtureRequest, small_cases: Callable[[str], Case]) -> Case:
    return small_cases(request.param)


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(("small", name), id=f"small-{name}") for name in PRECISIONS),
        *(pytest.param(("real", name), id=f"real-{name}", marks=pytest.mark.slow) for name in PRECISIONS),
        *(
            pytest.param(("all real", name), id=f"all-real-{name}", marks=pytest.mark.soak)
            for name in PRECISIONS
            if name != DEFAULT
        ),
    ],
)
def case(request: pytest.FixtureRequest, small_cases: Callable[[str], Case]) -> Case:
    size, precision = request.param
    if size == "small":
        return small_cases(precision)
    takes_all = size == "all real" or precision == DEFAULT
    return real_case(request.getfixturevalue("embedded_gguf"), options_for(precision), takes_all=takes_all)


def test_in_a_batch(case: Case) -> None:
    case.check(run(case.load(), case.prompts))


@pytest.mark.parametrize("threads", [1, 3])
def test_on_any_number_of_threads(small: Case, threads: int) -> None:
    small.check(run(small.load(threads=threads), small.prompts))


def test_after_a_prefix_hit(case: Case) -> None:
    engine = case.load()
    run(engine, case.prompts)
    again = run(engine, case.prompts)
    case.check(again)
    longest = max(case.prompts, key=lambda name: len(case.prompts[name]))
    assert again[longest][0].num_cached_tokens >= len(case.prompts[longest]) // 2


@pytest.mark.parametrize("chunk", [37, 250])
def test_in_chunks(case: Case, chunk: int) -> None:
    case.check(run(case.load(max_num_batched_tokens=16 + chunk, max_num_seqs=16), case.prompts))


def test_in_the_smallest_chunks(small: Case) -> None:
    small.check(run(small.load(max_num_batched_tokens=4 + 16, max_num_seqs=4), small.prompts))


def test_after_preemption(case: Case) -> None:
    """Memory for the longest prompt and little more: the younger ones are computed again and again."""
    longest = max(len(prompt) for prompt in case.prompts.values()) + GREEDY.max_tokens + 8
    smallest = {"max_model_len": longest, "max_num_batched_tokens": 16 + 128, "max_num_seqs": 16}
    engine = case.load(**smallest, kv_cache_memory=_least_memory(case, smallest))
    engine.core.scheduler.pace = Unpaced()  # by the clock, what is in memory together would be chance
    case.check(run(engine, case.prompts))
    assert engine.core.scheduler.num_preemptions > 0


def _least_memory(case: Case, options: dict[str, int]) -> int:
    """The engine refuses less and says what it needs."""
    with pytest.raises(ValueError, match="that needs") as caught:
        case.load(**options, kv_cache_memory=1)
    return int(str(caught.value).partition("that needs ")[2].split()[0])


def test_as_two_of_n(case: Case) -> None:
    case.check(run(case.load(), case.prompts, replace(case.params, n=2)))


def test_two_of_n_share_the_prefill_without_prefix_caching(small: Case) -> None:
    engine = small.load(prefix_caching=False)
    small.check(run(engine, small.prompts, replace(small.params, n=2)))


def test_a_seed_gives_the_same_text_in_any_company(small: Case) -> None:
    params = replace(small.params, temperature=1.0, seed=11)
    engine = small.load()
    together = run(engine, small.prompts, params)
    names = list(small.prompts)[:8]
    for name in names:
        assert run(engine, {name: small.prompts[name]}, params)[name][0].token_ids == together[name][0].token_ids
