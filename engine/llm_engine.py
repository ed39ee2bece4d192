"""Offline use: a list of prompts in, a list of answers out, all of them batched.

from engine import LLMEngine, SamplingParams

engine = LLMEngine("270m-it")
for answer in engine.generate(["The capital of France is", ...], SamplingParams(max_tokens=32)):
    print(answer.texts[0])

Owns the loop that steps for the calling thread; ``stream`` and ``generate`` are its two readers.
"""

from collections import abc, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from engine.engine_core import EngineCore
from engine.engine_info import ModelInfo
from engine.engine_options import EngineKeywords, EngineOptions
from engine.errors import EngineError
from engine.loading import LoadedEngine, load_engine
from engine.outputs import FinishReason, RequestOutput
from engine.prefill_pace import Unpaced
from engine.sampling_params import SamplingParams
from engine.weights_check import check_in_background
from gemma3.progress import Progress, no_progress

CHECK_DELAY_S = 10.0  # a single answer is over before: the check would cost it more than it is worth

Prompt = str | abc.Sequence[int]
_News = RequestOutput | EngineError


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """What became of one prompt: its ``n`` answers, or the error that ended it."""

    prompt_token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    finish_reasons: tuple[FinishReason | None, ...]
    error: EngineError | None = None


class LLMEngine:
    """An engine of its own for the calling thread; the keywords are those of ``EngineOptions``.

    ``loaded`` has what was loaded: the model's tokenizer and its form of a chat.

    Raises:
        ValueError: no weights, damaged weights, or options that do not fit; the text says what to do.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        beside: Path | None = None,
        progress: Progress = no_progress,
        **options: Unpack[EngineKeywords],
    ) -> None:
        self.loaded: LoadedEngine = load_engine(
            EngineOptions(model=model, **options), beside=beside, progress=progress, pace=Unpaced()
        )
        self._damage: deque[ValueError] = deque()
        check_in_background(self.loaded, self._damage.append, delay_s=CHECK_DELAY_S)
        self._num_requests = 0
        self._news: dict[str, deque[_News]] = {}

    @property
    def core(self) -> EngineCore:
        """For callers that want to step by themselves."""
        return self.loaded.core

    @property
    def info(self) -> ModelInfo:
        return self.loaded.info

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> abc.Generator[RequestOutput, None, None]:
        """The outputs of one request as they come; it is queued when the first is asked for.

        Closing the generator early aborts the request. Several may be iterated in turns: they share the steps.

        Raises:
            RequestError: the prompt or a field cannot be served.
            StepError: the request failed in a step.
        """
        (request_id,) = self._add_all([self._encode(prompt)], params or SamplingParams())
        news = self._news[request_id]
        try:
            while True:
                while not news:
                    self._step()
                item = news.popleft()
                if isinstance(item, EngineError):
                    raise item
                yield item
                if item.finished:
                    return
        finally:
            del self._news[request_id]
            self.core.abort_request(request_id)

    def generate(
        self,
        prompts: abc.Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        show_progress: bool = True,
    ) -> list[GeneratedAnswer]:
        """Answer all prompts (texts, which get a BOS, or token ids), in their order.

        A progress bar shows on a terminal. A prompt that fails in its step carries the error; the others are not affected.

        Raises:
            RequestError: a prompt or a field cannot be served; nothing has been computed then.
        """
        from tqdm import tqdm  # the command line streams, and starts without it

        params = params or SamplingParams()
        token_ids = [self._encode(prompt) for prompt in prompts]
        requests = self._add_all(token_ids, params)
        with tqdm(total=len(requests), disable=None if show_progress else True, unit="prompt") as bar:
            while self.core.has_unfinished_requests:
                bar.update(self._step())
        return [
            _fold(ids, params.n, self._news.pop(request_id))
            for ids, request_id in zip(token_ids, requests, strict=True)
        ]

    def _step(self) -> int:
        """Compute a step and lay its news where each request looks for them. Returns how many requests it ended.

        Raises:
            ValueError: the weights are damaged, and what was computed may be wrong; the next start packs them anew.
        """
        if self._damage:
            raise self._damage[0]
        result = self.core.step()
        told: list[tuple[str, _News]] = [(output.request_id, output) for output in result.outputs]
        for request_id, item in [*told, *result.errors.items()]:
            if request_id in self._news:
                self._news[request_id].append(item)
        return sum(output.finished for output in result.outputs) + len(result.errors)

    def _encode(self, prompt: Prompt) -> tuple[int, ...]:
        return tuple(self.loaded.tokenizer.encode(prompt, add_bos=True) if isinstance(prompt, str) else prompt)

    def _add_all(self, prompts: abc.Sequence[abc.Sequence[int]], params: SamplingParams) -> list[str]:
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
        self._news |= {request_id: deque() for request_id in added}
        return added


def _fold(prompt: tuple[int, ...], num_answers: int, news: abc.Iterable[_News]) -> GeneratedAnswer:
    texts, token_ids = [""] * num_answers, [list[int]() for _ in range(num_answers)]
    reasons: list[FinishReason | None] = [None] * num_answers
    error = None
    for item in news:
        if isinstance(item, EngineError):
            error = item
            continue
        for delta in item.deltas:
            texts[delta.index] += delta.text
            token_ids[delta.index] += delta.token_ids
            reasons[delta.index] = delta.finish_reason
    return GeneratedAnswer(prompt, tuple(texts), tuple(map(tuple, token_ids)), tuple(reasons), error)
