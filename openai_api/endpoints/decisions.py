"""``POST /v1/decisions`` and ``POST /v1/systemone``: questions about an input, answered with probabilities.

Nothing is generated: the engine says how likely each option's text is. Owns the order of the steps and how many
questions are asked at a time; wording and arithmetic are ``decision_prompts`` and ``option_probabilities``. Runs on the
event loop; long texts are tokenised in a worker thread.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from engine.caller import Caller
from openai_api.answer.decision_models import (
    Decision,
    SystemOneAnswer,
    SystemOneUsage,
    decision_answer,
    decision_usage,
    system_one_answer,
)
from openai_api.answer.event_stream import request_deadline
from openai_api.answer.models import Answer
from openai_api.answer.option_probabilities import log_likelihoods, probabilities
from openai_api.answer.writer import new_head
from openai_api.app_state import AppState, app_state_of, caller_of
from openai_api.calibrations import calibration_key
from openai_api.disconnects import unless_disconnected
from openai_api.metrics import RequestTimer, Totals
from openai_api.request.body import read_body
from openai_api.request.decision_fields import DecisionRequest, json_text
from openai_api.request.decision_input import input_text
from openai_api.request.decision_prompts import ScoredQuestion, scored_questions
from openai_api.request.fields_by_endpoint import FIELDS_BY_ENDPOINT
from openai_api.request.questions import Question, of_decisions, of_system_one
from openai_api.request.system_one_fields import SystemOneRequest
from openai_api.request.validation import validate

B = TypeVar("B", DecisionRequest, SystemOneRequest)

DECISIONS = "/v1/decisions"
MAX_QUESTIONS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class _Found:
    """The probabilities of each question's options; the tokens that were read, and of those the cached ones."""

    probabilities: Sequence[Sequence[float]]
    num_tokens: int
    num_cached_tokens: int


async def create_decision(request: Request) -> Response:
    """Raises: ApiError, EngineError or ClientDisconnect, as ``generate.answer``."""

    return await _answer(request, DECISIONS, DecisionRequest, _decide)


async def decide(value: object, *, app_state: AppState, caller: Caller) -> Answer:
    """The answer of ``/v1/decisions`` to a body that came as a JSON value, not by HTTP.

    Raises:
        ApiError: the body or the model is not what this server takes.
        EngineError: the engine refuses the request, or fails on it.
    """
    body = validate(value, DecisionRequest, FIELDS_BY_ENDPOINT[DECISIONS])
    return await _decide(body, _asking(body, app_state, caller))


async def _decide(body: DecisionRequest, asking: "_Asking") -> Answer:
    found = await asking.ask(input_text(body.input), of_decisions(body.questions), temperature=1.0)
    answers = [decision_answer(*each) for each in zip(body.questions, found.probabilities, strict=True)]
    usage = decision_usage(found.num_tokens, found.num_cached_tokens)
    return Decision(model=asking.model, answers=answers, usage=usage)


async def system_one(request: Request) -> Response:
    """Raises: ApiError, EngineError or ClientDisconnect, as ``generate.answer``."""

    async def respond(body: SystemOneRequest, asking: "_Asking") -> Answer:
        state = "" if body.state is None else json_text(body.state)
        temperature = 1.0 if body.temperature is None else body.temperature
        found = await asking.ask(state, of_system_one(body.questions), temperature=temperature)
        answers = {
            name: system_one_answer(question, each, has_legend=body.model is not None)
            for (name, question), each in zip(body.questions.items(), found.probabilities, strict=True)
        }
        usage = SystemOneUsage(input_tokens=found.num_tokens, total_tokens=found.num_tokens)
        return SystemOneAnswer(model=asking.model, answers=answers, usage=usage)

    return await _answer(request, "/v1/systemone", SystemOneRequest, respond)


async def _answer(
    request: Request, endpoint: str, model: type[B], respond: Callable[[B, "_Asking"], Coroutine[Any, Any, Answer]]
) -> Response:
    app_state, caller = app_state_of(request), caller_of(request)
    app_state.check_admission(caller)
    with app_state.body_budget.share(caller) as share:
        fields = FIELDS_BY_ENDPOINT[endpoint]
        body = await read_body(request, model, fields=fields, app_state=app_state, share=share)
        asking = _asking(body, app_state, caller)
        deadline_s = asyncio.get_running_loop().time() + app_state.settings.request_timeout_s

        async def work() -> Answer:
            async with request_deadline(deadline_s):
                return await respond(body, asking)

        answer = await unless_disconnected(request.receive, work())
    return Response(answer.model_dump_json(), media_type="application/json")


def _asking(body: DecisionRequest | SystemOneRequest, app_state: AppState, caller: Caller) -> "_Asking":
    name = app_state.served_name(body.model)
    return _Asking(new_head("decision-", app_state.engine.info, model=name).id, name, caller, app_state)


@dataclass(frozen=True, slots=True)
class _Asking:
    """Asks the engine, for one request; ``model`` is the name that the answer carries."""

    request_id: str
    model: str
    caller: Caller
    app_state: AppState

    async def ask(self, text: str, questions: Sequence[Question], *, temperature: float) -> _Found:
        """All questions about one text; if one fails, the others are aborted."""
        scored = await scored_questions(text, questions, self.app_state)
        timer, outcome = RequestTimer(self.app_state.metrics), "abort"
        try:
            found = await self._ask_all(scored, temperature=temperature)
            outcome = "stop"
            return found
        except Exception:
            outcome = "error"
            raise
        finally:
            timer.finish(
                Totals(
                    prompt_tokens=sum(each.num_tokens for each in scored),
                    completion_tokens=0,
                    n=1,
                    max_tokens=0,
                    reasons=[outcome] * len(scored),
                )
            )

    async def _ask_all(self, scored: Sequence[ScoredQuestion], *, temperature: float) -> _Found:
        gate = asyncio.Semaphore(MAX_QUESTIONS_AT_ONCE)

        async def ask(index: int) -> tuple[list[float], int]:
            async with gate:
                return await self._ask_one(index, scored[index], temperature=temperature)

        asking = [asyncio.ensure_future(ask(index)) for index in range(len(scored))]
        try:
            told = await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        num_tokens = sum(each.num_tokens for each in scored)
        return _Found([each for each, _ in told], num_tokens, sum(num_cached for _, num_cached in told))

    async def _ask_one(self, index: int, scored: ScoredQuestion, *, temperature: float) -> tuple[list[float], int]:
        """The first question waits its turn; once it was let in, so are the others."""
        engine, request_id = self.app_state.engine, f"{self.request_id}-{index}"
        told = await engine.score(
            request_id, scored.prompt, scored.options, caller=self.caller, is_further_prompt=index > 0
        )
        usual = await self._usual(request_id, scored)
        likelihoods = log_likelihoods(told.logprobs)
        return probabilities(likelihoods, usual, temperature=temperature), told.num_cached_tokens

    async def _usual(self, request_id: str, scored: ScoredQuestion) -> tuple[float, ...]:
        """What the options are without an input, remembered from an earlier request if it asked the same."""
        prompt, engine = scored.prompt_without_input, self.app_state.engine

        async def measure() -> tuple[float, ...]:
            told = await engine.score(
                f"{request_id}-calibration", prompt, scored.options, caller=self.caller, is_further_prompt=True
            )
            return log_likelihoods(told.logprobs)

        key = calibration_key(self.caller, prompt, scored.options)
        return await self.app_state.calibrations.get(key, self.caller, measure)
