"""Offline use: a list of prompts in, a list of answers out, all of them batched.

from engine import LLMEngine, SamplingParams

engine = LLMEngine("270m-it")
for answer in engine.generate(["The capital of France is", ...], SamplingParams(max_tokens=32)):
    print(answer.texts[0])
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from engine.engine_core import EngineCore
from engine.engine_info import ModelInfo
from engine.errors import EngineError
from engine.loading import EngineOptions, load_engine
from engine.outputs import FinishReason, RequestOutput
from engine.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """What became of one prompt: its ``n`` answers, or the error that ended it."""

    prompt_token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    finish_reasons: tuple[FinishReason | None, ...]
    error: EngineError | None = None


class LLMEngine:
    """An engine of its own for the calling thread; the options are those of ``EngineOptions``.

    Raises:
        ValueError: no weights, damaged weights, or options that do not fit; the text says what to do.
    """

    def __init__(self, model: str | None = None, **options: object) -> None:
        self._loaded = load_engine(EngineOptions(model=model, **options))  # type: ignore[arg-type]
        self._num_requests = 0

    @property
    def core(self) -> EngineCore:
        """For callers that want to step by themselves."""
        return self._loaded.core

    @property
    def info(self) -> ModelInfo:
        return self._loaded.info

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        params: SamplingParams | None = None,
        *,
        show_progress: bool = True,
    ) -> list[GeneratedAnswer]:
        """Answer all prompts (texts, which get a BOS, or token ids), in their order.

        A progress bar shows on a terminal. A prompt that fails in its step carries the error; the others are not affected.

        Raises:
            RequestError: a prompt or a field cannot be served; nothing has been computed then.
        """
        params = params or SamplingParams()
        token_ids = [self._encode(prompt) for prompt in prompts]
        requests = self._add_all(token_ids, params)
        news: dict[str, list[RequestOutput]] = {request_id: [] for request_id in requests}
        errors: dict[str, EngineError] = {}
        with tqdm(total=len(requests), disable=None if show_progress else True, unit="prompt") as bar:
            while self.core.has_unfinished_requests:
                result = self.core.step()
                errors.update(result.errors)
                for output in result.outputs:
                    news[output.request_id].append(output)
                bar.update(sum(output.finished for output in result.outputs) + len(result.errors))
        return [
            _fold(ids, params.n, news[request_id], errors.get(request_id))
            for ids, request_id in zip(token_ids, requests, strict=True)
        ]

    def _encode(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        return tuple(self._loaded.tokenizer.encode(prompt, add_bos=True) if isinstance(prompt, str) else prompt)

    def _add_all(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[str]:
        """Queue every prompt, or none."""
        added: list[str] = []
        try:
            for prompt in prompts:
                request_id = f"offline-{self._num_requests}"
                self._num_requests += 1
                self.core.add_request(request_id, prompt, params)
                added.append(request_id)
        except EngineError:
            for request_id in added:
                self.core.abort_request(request_id)
            raise
        return added


def _fold(
    prompt: tuple[int, ...], num_answers: int, outputs: list[RequestOutput], error: EngineError | None
) -> GeneratedAnswer:
    texts, token_ids = [""] * num_answers, [list[int]() for _ in range(num_answers)]
    reasons: list[FinishReason | None] = [None] * num_answers
    for output in outputs:
        for delta in output.deltas:
            texts[delta.index] += delta.text
            token_ids[delta.index] += delta.token_ids
            reasons[delta.index] = delta.finish_reason
    return GeneratedAnswer(prompt, tuple(texts), tuple(map(tuple, token_ids)), tuple(reasons), error)
