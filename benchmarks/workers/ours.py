"""This project's engine. ``--model`` is the precision, and the kernels if not the best: ``int8``, ``int4-avx2``.

``none`` is bfloat16 on the reference path.
"""

from dataclasses import replace

from engine import LLMEngine, SamplingParams
from engine.engine_core import EngineCore
from workers.protocol import Generate, Watch, serve

CONTEXT_TOKENS = 4096


def load(model: str, num_threads: int) -> Generate:
    """No prefix caching, no speculation: every run computes its prompt, and every token takes a step."""
    precision, _, isa = model.partition("-")
    engine = LLMEngine(
        quantization=precision,
        isa=isa or "auto",
        threads=num_threads,
        max_model_len=CONTEXT_TOKENS,
        prefix_caching=False,
    )
    turn_off_speculation(engine)
    return lambda prompts, num_new, watch: generate(engine.core, prompts, greedy(num_new), watch)


def turn_off_speculation(engine: LLMEngine) -> None:
    """Every token takes a step of its own from now on."""
    scheduler = engine.core.scheduler
    scheduler.config = replace(scheduler.config, max_draft_rows=0)


def greedy(num_new: int) -> SamplingParams:
    """Exactly ``num_new`` tokens, the likeliest each time."""
    return SamplingParams(temperature=0.0, max_tokens=num_new, ignore_eos=True)


def generate(core: EngineCore, prompts: list[list[int]], params: SamplingParams, watch: Watch) -> None:
    """All prompts at once; ``watch`` is told every token."""
    for i, ids in enumerate(prompts):
        core.add_request(str(i), ids, params)
    while core.has_unfinished_requests:
        result = core.step()
        assert not result.errors, result.errors
        watch.got({int(output.request_id): output.deltas[0].token_ids for output in result.outputs if output.deltas})


if __name__ == "__main__":
    serve(load)
