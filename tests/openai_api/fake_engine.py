"""A scripted engine: answers with a known text, at a known pace, and fails where it is told to.

It has the shape of ``openai_api.engine_api.Engine``. Its tokens are bytes (the stand-in of ``Gemma3Tokenizer``), so every
character beyond ASCII is split over tokens. It remembers what it was asked and what was aborted.
"""

import asyncio
import codecs
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace

from engine.caller import ANYBODY, Caller
from engine.engine_info import EngineStats, EngineStatus, ModelInfo
from engine.errors import ContextLengthError, EngineNotReadyError, GrammarError, QueueFullError, RequestError
from engine.grammar.spec import GrammarKind, GrammarSpec
from engine.outputs import ContinuationScores, FinishReason, RequestOutput, SequenceDelta, TokenLogprob
from engine.request_status import RequestStatus
from engine.sampling_params import SamplingParams
from engine.step_sizes import StepSizes
from gemma3.text.chat import ChatPrompt, Message
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.tool_form import ToolForm, Tools
from gemma3.text.tool_json import GOOGLES_JSON

EOS_ID = 1
END_OF_TURN_ID = 5
TEXT = "Hello, w\u00f6rld! \U0001f642 The end."
MODEL_ID = "gemma-3-270m-it"


@dataclass(frozen=True)
class Script:
    """What happens to a request. ``fail`` is raised in place of the token ``fail_at``."""

    text: str = TEXT
    queue_s: float = 0.0
    prefill_s: float = 0.0
    token_s: float = 0.0
    fail: Exception | None = None
    fail_at: int = 0
    num_cached_tokens: int = 0
    tokens_per_output: int = 1
    num_accepted_predictions: int = 0  # in every choice's first output
    num_rejected_predictions: int = 0
    hold: threading.Event | None = None  # awaited in the middle of the answer
    forced: bytes = b""  # as in ``SequenceDelta``, of the first choice


@dataclass(frozen=True)
class Call:
    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    prediction_token_ids: tuple[int, ...] = ()
    caller: Caller = ANYBODY


@dataclass(frozen=True)
class FakeGrammar:
    """It constrains nothing; the script is the answer."""

    spec: GrammarSpec


@dataclass
class FakeEngine:
    """Set ``script`` (or ``scripts``, by a word of the prompt) at any time; read ``calls``, ``aborted``, ``running``."""

    script: Script = field(default_factory=Script)
    scripts: dict[str, Script] = field(default_factory=dict)
    status: EngineStatus = EngineStatus.READY
    load_s: float = 0.0
    load_error: Exception | None = None
    max_running: int = 64
    max_waiting: int = 64
    implicit_stop: tuple[str, ...] = ()
    answer_lead: str = ""
    calls: list[Call] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    compiled: list[GrammarSpec] = field(default_factory=list)
    rendered: list[list[Message]] = field(default_factory=list)
    was_shut_down: bool = False
    tool_form: ToolForm = GOOGLES_JSON
    shown_tools: Tools | None = None  # with the messages rendered last
    fails_after_s: float = 1e6
    statuses: list[RequestStatus] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokenizer = Gemma3Tokenizer()
        self.info = ModelInfo(
            model_id=MODEL_ID,
            created=1_700_000_000,
            owned_by="google",
            max_model_len=4096,
            vocab_size=self.tokenizer.vocab_size,
            quantization="none",
            dtype="float32",
            is_instruction_tuned=True,
            system_fingerprint="fp_fake",
            default_sampling={"top_k": 64, "top_p": 0.95},
            chat_template="{{ messages }}",
            cache_config={"block_size": "16", "num_gpu_blocks": "7"},
        )
        self._cut_off = False

    def stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self.running),
            num_waiting=len(self.waiting),
            kv_cache_usage=0.25,
            num_preemptions=3,
            prefix_cache_queries=20,
            prefix_cache_hits=11,
            num_drafts=2,
            num_draft_tokens=9,
            num_accepted_draft_tokens=7,
            step_sizes=StepSizes((1, 0, 2) + (0,) * 10, 33),
        )

    async def request_statuses(self) -> list[RequestStatus]:
        return self.statuses

    async def start(self) -> None:
        if self.status is EngineStatus.LOADING:
            await asyncio.sleep(self.load_s)
            if self.load_error is not None:
                self.status = EngineStatus.DEAD
                raise self.load_error
            if self.status is EngineStatus.LOADING:
                self.status = EngineStatus.READY

    async def failed(self) -> None:
        await asyncio.sleep(self.fails_after_s)

    def check_admission(self, caller: Caller = ANYBODY) -> None:
        if len(self.waiting) >= self.max_waiting:
            raise QueueFullError("Too many requests are waiting.", retry_after_s=7)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tools: Tools | None = None,
    ) -> ChatPrompt:
        self.rendered.append(list(messages))
        self.shown_tools = tools
        if add_generation_prompt and continue_final_message:
            raise RequestError("Both flags are true.", param="continue_final_message")
        if any("unrenderable" in message.content for message in messages):
            raise RequestError("The messages cannot be a prompt.", param="messages")
        text = "".join(f"{message.role}: {message.content}\n" for message in messages)
        text = text.rstrip("\n") if continue_final_message else text + ("model: " if add_generation_prompt else "")
        token_ids = self.tokenizer.encode(text, add_bos=True)
        return ChatPrompt(tuple(token_ids), self.implicit_stop, (END_OF_TURN_ID,), self.answer_lead)

    def compile_grammar(self, spec: GrammarSpec) -> "FakeGrammar":
        """Anything but what is called "impossible"."""
        self.compiled.append(spec)
        if "impossible" in spec.text:
            is_schema = spec.kind is GrammarKind.JSON_SCHEMA
            raise GrammarError("it is impossible.", code="invalid_json_schema" if is_schema else "invalid_grammar")
        return FakeGrammar(spec)

    async def generate(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prediction_token_ids: Sequence[int] = (),
        caller: Caller = ANYBODY,
        is_further_prompt: bool = False,
        is_streamed: bool = True,
    ) -> AsyncGenerator[RequestOutput, None]:
        self.calls.append(Call(request_id, tuple(prompt_token_ids), params, tuple(prediction_token_ids), caller))
        self._check(prompt_token_ids, params)
        if params.max_tokens is not None:
            params = replace(params, max_tokens=min(params.max_tokens, self.info.max_model_len - len(prompt_token_ids)))
        self.waiting.add(request_id)
        has_finished = False
        try:
            script = self._script_for(prompt_token_ids)
            await self._pause(script.queue_s)
            while len(self.running) >= self.max_running:
                await self._pause(0.01)
            self.waiting.discard(request_id)
            self.running.add(request_id)
            yield RequestOutput(request_id, (), finished=False, num_prompt_tokens=len(prompt_token_ids))
            await self._pause(script.prefill_s)
            async for output in self._outputs(request_id, prompt_token_ids, params, script):
                yield output
            has_finished = True
        finally:
            self.waiting.discard(request_id)
            self.running.discard(request_id)
            if not has_finished:
                self.aborted.append(request_id)

    async def score(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        caller: Caller = ANYBODY,
        is_further_prompt: bool = False,
    ) -> ContinuationScores:
        """A continuation is the likelier the more of its words are in the prompt."""
        self.calls.append(Call(request_id, tuple(prompt_token_ids), SamplingParams(max_tokens=0), (), caller))
        script = self._script_for(prompt_token_ids)
        self.running.add(request_id)
        try:
            self._check(prompt_token_ids, SamplingParams(max_tokens=0))
            await self._pause(script.prefill_s)
            if script.fail is not None:
                raise script.fail
        except BaseException:
            self.aborted.append(request_id)
            raise
        finally:
            self.running.discard(request_id)
        told = set(self.tokenizer.decode(prompt_token_ids).lower().split())
        scores = []
        for tokens in continuations:
            num_told = sum(word in told for word in self.tokenizer.decode(tokens).lower().split())
            scores.append((float(num_told), *[-1.0] * (len(tokens) - 1)))
        return ContinuationScores(tuple(scores), script.num_cached_tokens)

    async def drain(self, timeout_s: float) -> None:
        self.status = EngineStatus.DRAINING
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (self.running or self.waiting) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        self._cut_off = True
        while self.running or self.waiting:
            await asyncio.sleep(0.01)

    async def shutdown(self) -> None:
        self.was_shut_down = True

    def _check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        if self.status is not EngineStatus.READY:
            raise EngineNotReadyError("The engine takes no requests now.")
        num_new = 0 if params.max_tokens == 0 else 1
        if len(prompt_token_ids) + num_new > self.info.max_model_len:
            raise ContextLengthError(self.info.max_model_len, len(prompt_token_ids))

    def _script_for(self, prompt_token_ids: Sequence[int]) -> Script:
        if not self.scripts:
            return self.script
        prompt = self.tokenizer.decode(prompt_token_ids)
        return next((script for word, script in self.scripts.items() if word in prompt), self.script)

    async def _pause(self, seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        await asyncio.sleep(0)
        while not self._cut_off and (left_s := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left_s, 0.05))
        if self._cut_off:
            raise EngineNotReadyError("The server is shutting down.")

    async def _outputs(
        self, request_id: str, prompt_token_ids: Sequence[int], params: SamplingParams, script: Script
    ) -> AsyncGenerator[RequestOutput, None]:
        plans = [self._plan(index, params, script) for index in range(params.n)]
        num_steps = max(map(len, plans))
        for step in range(num_steps):
            await self._pause(script.token_s)
            while step == num_steps // 2 and script.hold is not None and not script.hold.is_set():
                await self._pause(0.01)
            if script.fail is not None and step == script.fail_at:
                raise script.fail
            yield RequestOutput(
                request_id,
                tuple(plan[step] for plan in plans if step < len(plan)),
                finished=step == num_steps - 1,
                num_prompt_tokens=len(prompt_token_ids),
                num_cached_tokens=script.num_cached_tokens if step == 0 else 0,
                prompt_logprobs=self._prompt_logprobs(prompt_token_ids, params) if step == 0 else None,
            )

    def _plan(self, index: int, params: SamplingParams, script: Script) -> list[SequenceDelta]:
        """The deltas of one sequence. Knowing the future, it holds text back just before a stop string begins."""
        text = script.text if index == 0 else f"{index}. {script.text}"
        token_ids = [*self.tokenizer.encode(text), EOS_ID]
        if params.ignore_eos:
            token_ids = token_ids[:-1] * (1 + (params.max_tokens or 1) // (len(token_ids) - 1))
        room = len(token_ids) if params.max_tokens is None else params.max_tokens
        if room == 0:
            return [SequenceDelta(index, "", (), finish_reason=FinishReason.LENGTH)]
        deltas = _deltas(index, token_ids[:room], params, self.tokenizer, script.tokens_per_output)
        first, *others = _with_forced(deltas, script.forced if index == 0 else b"")
        predicted = replace(
            first,
            num_accepted_predictions=script.num_accepted_predictions,
            num_rejected_predictions=script.num_rejected_predictions,
        )
        return [predicted, *others]

    def _prompt_logprobs(
        self, prompt_token_ids: Sequence[int], params: SamplingParams
    ) -> tuple[TokenLogprob | None, ...] | None:
        if params.prompt_logprobs is None:
            return None
        rank = 2 if params.prompt_ranks else 0
        entries = [_logprob(token_id, params.prompt_logprobs) for token_id in prompt_token_ids[1:]]
        return (None, *(replace(entry, rank=rank) for entry in entries))


def _with_forced(deltas: list[SequenceDelta], forced: bytes) -> list[SequenceDelta]:
    flagged = []
    for delta in deltas:
        flagged.append(replace(delta, forced=forced[: len(delta.token_ids)]))
        forced = forced[len(delta.token_ids) :]
    return flagged


def _deltas(
    index: int, token_ids: list[int], params: SamplingParams, tokenizer: Gemma3Tokenizer, tokens_per_output: int
) -> list[SequenceDelta]:
    pieces, reason, stop_reason = _visible(token_ids, params, tokenizer)
    token_ids = token_ids[: len(pieces)]
    deltas = []
    for begin in range(0, len(pieces), tokens_per_output):
        end = min(begin + tokens_per_output, len(pieces))
        ids, is_last = tuple(token_ids[begin:end]), end == len(pieces)
        deltas.append(
            SequenceDelta(
                index,
                "".join(pieces[begin:end]),
                ids,
                None if params.logprobs is None else tuple(_sampled_logprob(i, params) for i in ids),
                reason if is_last else None,
                stop_reason if is_last else None,
            )
        )
    return deltas


def _visible(
    token_ids: list[int], params: SamplingParams, tokenizer: Gemma3Tokenizer
) -> tuple[list[str], FinishReason, str | int | None]:
    """The text each token shows, up to the token that ends the sequence."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces: list[str] = []
    text = ""
    for token_id in token_ids:
        if token_id == EOS_ID or token_id in params.stop_token_ids:
            return [*pieces, ""], FinishReason.STOP, None if token_id == EOS_ID else token_id
        pieces.append(decoder.decode(tokenizer.token_to_bytes(token_id)))
        text += pieces[-1]
        for stop in params.stop:
            at = text.find(stop, max(0, len(text) - len(stop) - 4))
            if at >= 0:
                return _cut(pieces, at), FinishReason.STOP, stop
    pieces[-1] += decoder.decode(b"", final=True)
    return pieces, FinishReason.LENGTH, None


def _cut(pieces: list[str], num_chars: int) -> list[str]:
    """The same number of pieces with only the first ``num_chars`` characters."""
    kept = []
    for piece in pieces:
        kept.append(piece[:num_chars])
        num_chars -= len(kept[-1])
    return kept


def _sampled_logprob(token_id: int, params: SamplingParams) -> TokenLogprob:
    asked = tuple((other, _logprob(other, 0).logprob) for other in params.logprob_token_ids)
    return (
        TokenLogprob(token_id, _logprob(token_id, 0).logprob, asked)
        if asked
        else _logprob(token_id, params.logprobs or 0)
    )


def _logprob(token_id: int, num_top: int) -> TokenLogprob:
    logprob = -0.125 * (1 + token_id % 7)
    return TokenLogprob(token_id, logprob, tuple(((token_id + i) % 262, logprob - i) for i in range(num_top)))
