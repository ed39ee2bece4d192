"""What every endpoint works with: one object for each app, reached through the request.

Owns the checks that come before a body is read. Knows nothing of bodies and answers. Immutable; its
checks run on the event loop, its values may be read from any thread.
"""

from dataclasses import dataclass

from starlette.requests import Request

from engine.caller import ANYBODY, Caller
from openai_api.body_budget import BodyBudget
from openai_api.engine_api import Engine
from openai_api.errors import ApiError
from openai_api.metrics import Metrics
from openai_api.off_loop import OffLoop
from openai_api.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class AppState:
    """Engine, settings and metrics of one app, its threads and its room for bodies.

    Immutable; its checks answer for the endpoints: 503, 429 and 404.
    """

    engine: Engine
    settings: ServerSettings
    metrics: Metrics
    off_loop: OffLoop
    body_budget: BodyBudget

    def check_ready(self) -> None:
        """Raises: EngineNotReadyError while loading, draining or dead."""
        self.engine.status.check_ready()

    def check_admission(self, caller: Caller) -> None:
        """Raises: EngineNotReadyError or QueueFullError, before anything is read or tokenised."""
        self.check_ready()
        self.engine.check_admission(caller)

    def check_model(self, name: str | None) -> None:
        """None is the served one. Raises: ApiError 404, without the name, which is the client's text."""
        if name is not None and name != self.engine.info.model_id:
            message = f"There is no such model; this server has '{self.engine.info.model_id}'."
            raise ApiError(404, message, code="model_not_found", param="model")


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
