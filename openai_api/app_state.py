"""What every endpoint works with: one object for each app, reached through the request.

Owns the checks that come before a body is read. Knows nothing of bodies and answers. Immutable; its
checks run on the event loop, its values may be read from any thread.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.requests import Request

from engine.caller import ANYBODY, Caller
from openai_api.body_budget import BodyBudget
from openai_api.calibrations import Calibrations
from openai_api.engine_api import Engine
from openai_api.metrics import Metrics
from openai_api.model_names import served_name
from openai_api.off_loop import OffLoop
from openai_api.response_store import ResponseStore
from openai_api.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class AppState:
    """Engine, settings and metrics of one app, its threads, its room for bodies, and the responses
    that it keeps.

    Immutable; its checks answer for the endpoints: 503, 429 and 404.
    """

    engine: Engine
    settings: ServerSettings
    metrics: Metrics
    off_loop: OffLoop
    body_budget: BodyBudget
    responses: ResponseStore
    calibrations: Calibrations = field(default_factory=Calibrations)
    started_s: float = field(default_factory=time.monotonic)

    def check_ready(self) -> None:
        """Raises: EngineNotReadyError while loading, draining or dead."""
        self.engine.status.check_ready()

    def check_admission(self, caller: Caller) -> None:
        """Raises: EngineNotReadyError or QueueFullError, before anything is read or tokenised."""
        self.check_ready()
        self.engine.check_admission(caller)

    @property
    def model_names(self) -> Sequence[str]:
        """All names of the model, its own first.

        Raises:
            EngineNotReadyError: before the model is loaded.
        """
        return self.settings.served_model_names or (self.engine.info.model_id,)

    def served_name(self, name: str | None) -> str:
        """As ``model_names.served_name``. Raises: ApiError 404 or 400; EngineNotReadyError."""
        return served_name(name, self.model_names, serves_any=self.settings.serves_any_model_name)


def new_app_state(engine: Engine, settings: ServerSettings, responses: ResponseStore) -> AppState:
    """With metrics, threads and room for bodies of its own."""
    return AppState(engine, settings, Metrics(engine.stats), OffLoop(settings), BodyBudget(settings), responses)


def app_state_of(request: Request) -> AppState:
    """The state of the app that serves ``request``; ``create_app`` put it there."""
    app_state = request.app.state.app_state
    assert isinstance(app_state, AppState)
    return app_state


def caller_of(request: Request) -> Caller:
    """Who sends ``request``; ``transport.access`` put it there."""
    caller = request.scope.get("caller", ANYBODY)
    assert isinstance(caller, Caller)
    return caller


def owner_of(request: Request) -> str:
    """Whose the responses are that ``request`` stores and finds: a key's, or everybody's where no
    key is asked for. ``transport.access`` put it there.
    """
    owner = request.scope.get("owner", "")
    assert isinstance(owner, str)
    return owner
