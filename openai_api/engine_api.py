"""What this package asks of an engine: the whole of the seam between HTTP and inference.

Owns no code, only the shape, which ``engine.async_engine.AsyncLLMEngine`` has, and so has the
scripted engine of the tests. Only plain values cross: those of ``engine.outputs``,
``SamplingParams``, ``Grammar``, ``Message`` and ``ChatPrompt``. Everything is called on the event loop but ``tokenizer``,
``render_chat`` and ``compile_grammar``, which any thread may use.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Protocol

from engine.caller import Caller
from engine.engine_info import EngineStats, EngineStatus, ModelInfo
from engine.grammar.compiler import Grammar
from engine.grammar.spec import GrammarSpec
from engine.outputs import ContinuationScores, RequestOutput
from engine.request_status import RequestStatus
from engine.sampling_params import SamplingParams
from gemma3.text.chat import ChatPrompt, Message
from gemma3.text.tool_form import ToolForm, Tools


class Tokenizer(Protocol):
    """Text to token ids and back. Immutable, so any thread may use it."""

    @property
    def bos_token_id(self) -> int:
        """The id of ``<bos>``, the first token of every prompt."""

    def encode(self, text: str, *, add_bos: bool = ..., parse_special: bool = ...) -> list[int]:
        """Token ids of ``text``; names of control tokens become those tokens only with
        ``parse_special``.

        Raises:
            ValueError: a lone surrogate.
        """

    def min_num_tokens(self, text: str) -> int:
        """``encode`` gives at least so many tokens: told quickly, without tokenising."""

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = ...) -> str:
        """The text of token ids, with a replacement character for bytes that are no UTF-8."""

    def token_to_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, which may be a part of a UTF-8 character."""


class Engine(Protocol):
    """One model that serves many requests at once.

    On the event loop but for ``tokenizer``, ``render_chat`` and ``compile_grammar``.
    """

    @property
    def status(self) -> EngineStatus:
        """LOADING, READY, DRAINING or DEAD.

        READY goes back to LOADING only while an engine that has failed is built anew.
        """

    @property
    def info(self) -> ModelInfo:
        """The served model.

        Raises:
            EngineNotReadyError: before the model is loaded.
        """

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises: EngineNotReadyError before the model is loaded."""

    def stats(self) -> EngineStats:
        """A snapshot, at most one step old; counts of requests and tokens, also while loading."""

    async def request_statuses(self) -> Sequence[RequestStatus]:
        """What each request does now, oldest first; plain counts, never content. It waits for the step that runs."""

    async def start(self) -> None:
        """Load and become READY; returns when that is done. The event loop stays free meanwhile.

        Raises:
            ValueError: weights or options cannot be used, and the text says what to do.
            Exception: anything else that loading raises; the status is then DEAD.
        """

    async def failed(self) -> None:
        """Return when only a new process helps: the engine fails again and again. Else never."""

    def check_admission(self, caller: Caller) -> None:
        """Cheap: it is asked before anything is read or tokenised.

        Raises:
            QueueFullError: a request of this caller would be refused now.
        """

    @property
    def tool_form(self) -> ToolForm:
        """How the model writes calls of tools.

        Raises:
            EngineNotReadyError: before the model is loaded.
        """

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tools: Tools | None = ...,
    ) -> ChatPrompt:
        """A conversation as token ids, with what ends the answer.

        Raises:
            RequestError: they cannot be a prompt; ``param`` is ``messages``, or the flag that is
                wrong.
        """

    def compile_grammar(self, spec: GrammarSpec) -> Grammar:
        """What ``SamplingParams.grammar`` carries. It may take seconds.

        Raises:
            GrammarError: no answer can be promised to be so.
        """

    def generate(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prediction_token_ids: Sequence[int] = ...,
        caller: Caller = ...,
        is_further_prompt: bool = ...,
        is_streamed: bool = ...,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Outputs until the request has finished. Closing it early aborts the request.

        Where the output is as predicted it comes faster; what it is does not depend on the
        prediction. The first output comes when the request leaves the queue (it may have no deltas
        yet): that ends its queue time. A further prompt of a list is not refused for what waits:
        the first one was let in for all of them. Where it is not streamed, outputs behind the first
        tokens may come joined.

        Raises:
            EngineError: from the generator, before or between outputs.
        """

    async def score(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        caller: Caller = ...,
        is_further_prompt: bool = ...,
    ) -> ContinuationScores:
        """The log probabilities of known continuations; cancelled, it is aborted.

        Raises:
            EngineError: as ``generate``.
        """

    async def drain(self, timeout_s: float) -> None:
        """DRAINING at once; returns when no request is left.

        At the deadline the rest get EngineNotReadyError.
        """

    async def shutdown(self) -> None:
        """Stop the engine thread and free everything.

        Also called while loading, and after ``drain``.
        """
