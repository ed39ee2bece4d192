"""What the server would answer to a body, without HTTP between: a status and a JSON object.

Owns which endpoints a batch may ask, and what of the engine's troubles ends with a row: it waits for
an engine that is built anew, and asks once more when one failed beside it. Event loop.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from engine.caller import ANYBODY, Caller
from engine.engine_info import EngineStatus
from engine.errors import EngineError, EngineNotReadyError, QueueFullError, StepError
from engine.sampling_params import SamplingParamsError
from openai_api.answer.models import Answer
from openai_api.app_state import AppState
from openai_api.batch.row import RowOutcome, RowRequest
from openai_api.endpoints.chat import CHAT
from openai_api.endpoints.completions import COMPLETION
from openai_api.endpoints.decisions import decide
from openai_api.endpoints.generate import Endpoint, check_body, generate
from openai_api.errors import ApiError, error_body, to_api_error

CHAT_URL, COMPLETIONS_URL, DECISIONS_URL = "/v1/chat/completions", "/v1/completions", "/v1/decisions"
_ENDPOINTS: Mapping[str, Endpoint[Any]] = {CHAT_URL: CHAT, COMPLETIONS_URL: COMPLETION}
URLS = (*_ENDPOINTS, DECISIONS_URL)
WAIT_S = 0.05
MAX_STEP_FAILURES = 2


async def check(request: RowRequest, app_state: AppState) -> None:
    """Raises ``ValueError`` if rows that generate as ``request`` does would all be refused; decisions are not looked at."""
    if request.url not in _ENDPOINTS:
        return
    try:
        await check_body(request.body, _ENDPOINTS[request.url], app_state=app_state, caller=ANYBODY)
    except (ApiError, SamplingParamsError) as error:
        raise ValueError(f"no row can be asked this: {to_api_error(error, retry_after_s=1).message}") from None


async def outcome_of(request: RowRequest, app_state: AppState, *, caller: Caller = ANYBODY) -> RowOutcome:
    """What becomes of one request, whose ``url`` is one of ``URLS``; only a dead engine ends more than it.

    Raises:
        EngineNotReadyError: only a new process helps.
    """
    num_failures = 0
    while True:
        try:
            return _answered(await _answer(request, app_state, caller))
        except (EngineNotReadyError, QueueFullError):
            if app_state.engine.status is EngineStatus.DEAD:
                raise
            await asyncio.sleep(WAIT_S)
        except StepError as error:
            num_failures += 1
            if num_failures == MAX_STEP_FAILURES:
                return _failed(error)
        except (ApiError, EngineError, SamplingParamsError) as error:
            return _failed(error)


async def _answer(request: RowRequest, app_state: AppState, caller: Caller) -> Answer:
    if request.url == DECISIONS_URL:
        return await decide(request.body, app_state=app_state, caller=caller)
    return await generate(request.body, _ENDPOINTS[request.url], app_state=app_state, caller=caller)


def _answered(answer: Answer) -> RowOutcome:
    body = answer.model_dump(mode="json", exclude_unset=True)
    usage = body.get("usage", {})
    return RowOutcome(200, body, usage.get("total_tokens", 0))


def _failed(error: Exception) -> RowOutcome:
    told = to_api_error(error, retry_after_s=1)
    return RowOutcome(told.status, json.loads(error_body(told)))
