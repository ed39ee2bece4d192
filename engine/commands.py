"""What the event loop tells the engine thread between two steps, and how it is obeyed.

Owns the commands that concern requests; the engine thread takes them from its inbox. Knows no
thread and no queue. Commands are plain values made on the event loop; ``obey`` runs on the engine
thread.
"""

import logging
from collections import abc
from dataclasses import dataclass

from engine.caller import Caller
from engine.engine_core import EngineCore
from engine.errors import EngineError, StepError
from engine.news_queue import News
from engine.request_status import RequestStatus
from engine.sampling_params import SamplingParams

log = logging.getLogger("gemma3")


@dataclass(frozen=True, slots=True)
class Add:
    """Queue a request; with ``continuations`` it scores these and generates nothing."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    prediction_token_ids: tuple[int, ...]
    caller: Caller
    continuations: tuple[tuple[int, ...], ...] = ()
    is_streamed: bool = True


@dataclass(frozen=True, slots=True)
class Abort:
    """Forget a request in any phase."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Look:
    """Say what the running requests do now: ``tell`` is called with it on the event loop."""

    tell: abc.Callable[[tuple[RequestStatus, ...]], None]


def obey(command: Add | Abort, core: EngineCore) -> list[tuple[str, News]]:
    """Do it; if it is refused, that is the news of its request."""
    if isinstance(command, Abort):
        core.abort_request(command.request_id)
        return []
    try:
        _add(command, core)
    except EngineError as error:
        return [(command.request_id, error)]
    except Exception as error:
        core.abort_request(command.request_id)
        log.error("Request %s could not be added: %s", command.request_id, type(error).__name__)
        return [(command.request_id, StepError("This request failed inside the engine."))]
    return []


def _add(command: Add, core: EngineCore) -> None:
    if command.continuations:
        core.add_scoring_request(
            command.request_id, command.prompt_token_ids, command.continuations, caller=command.caller
        )
        return
    core.add_request(
        command.request_id,
        command.prompt_token_ids,
        command.params,
        prediction_token_ids=command.prediction_token_ids,
        caller=command.caller,
    )
