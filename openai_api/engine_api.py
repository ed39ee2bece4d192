"""What this package asks of an engine: the whole of the seam between HTTP and inference.

``engine.async_engine.AsyncLLMEngine`` has this shape, and so has the scripted engine of the tests. Everything is called
on the event loop but ``tokenizer`` and ``render_chat``, which any thread may use.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Protocol

from engine.engine_info import EngineStats, EngineStatus, ModelInfo
from engine.outputs import RequestOutput
from engine.sampling_params import SamplingParams
from gemma3.text.chat import ChatPrompt


class Tokenizer(Protocol):
    @property
    def bos_token_id(self) -> int: ...

    def encode(self, text: str, *, add_bos: bool = ..., parse_special: bool = ...) -> list[int]: ...

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = ...) -> str: ...

    def token_to_bytes(self, token_id: int) -> bytes: ...


class Engine(Protocol):
    @property
    def status(self) -> EngineStatus: ...

    @property
    def info(self) -> ModelInfo:
        """Known once the status is READY, as is ``tokenizer``."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def stats(self) -> EngineStats: ...

    async def start(self) -> None:
        """Load and become READY. Returns or raises when that is done; the event loop stays free meanwhile."""

    def check_admission(self) -> None:
        """Raise QueueFullError if a request would be refused now. Cheap: it is asked before anything is tokenised."""

    def render_chat(
        self, messages: Sequence[tuple[str, str]], *, add_generation_prompt: bool, continue_final_message: bool
    ) -> ChatPrompt:
        """Pairs of role and content as token ids. RequestError with ``param="messages"`` if they cannot be a prompt."""

    def generate(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prediction_token_ids: Sequence[int] = ...,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Outputs until the request has finished; EngineErrors are raised from it. Closing it early aborts the request.

        Where the output is as predicted it comes faster; what it is does not depend on the prediction.
        The first output comes when the request leaves the queue (it may have no deltas yet): that ends its queue time.
        """

    async def drain(self, timeout_s: float) -> None:
        """DRAINING at once; returns when no request is left. At the deadline the rest get EngineNotReadyError."""

    async def shutdown(self) -> None:
        """Stop the engine thread and free everything. Also called while loading, and after ``drain``."""
