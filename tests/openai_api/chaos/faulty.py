"""The server program with a fault put in on purpose: ``python -m tests.openai_api.chaos.faulty FAULT --port 0 ...``.

The control of the chaos run: each fault must make its verdict red, and for the right reason.
"""

import argparse
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from engine.async_engine import AsyncLLMEngine
from engine.loading import LoadedEngine
from engine.outputs import RequestOutput
from openai_api import run
from openai_api.command_line import engine_options

LEAK_BYTES = 1024 * 1024
MIXED_UP_EVERY = 7
DIES_AT_STEP = 400


class LeakingEngine(AsyncLLMEngine):
    """Something is kept of each request."""

    kept: list[bytes]

    def generate(self, request_id: str, *args: Any, **kwargs: Any) -> AsyncGenerator[RequestOutput, None]:
        self.kept = [*getattr(self, "kept", []), b"x" * LEAK_BYTES]
        return super().generate(request_id, *args, **kwargs)


class MixedUpEngine(AsyncLLMEngine):
    """Now and then a request gets the prompt of the one before it."""

    num_requests = 0
    last_prompt: Any = (2,)

    def generate(
        self, request_id: str, prompt_token_ids: Any, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        self.num_requests += 1
        is_mixed_up = self.num_requests > 100 and self.num_requests % MIXED_UP_EVERY == 0
        prompt = self.last_prompt if is_mixed_up else prompt_token_ids
        self.last_prompt = prompt_token_ids
        return super().generate(request_id, prompt, *args, **kwargs)


class MortalEngine(AsyncLLMEngine):
    """The engine thread dies of what no guard around a request can catch."""

    def __init__(self, load: Callable[[], LoadedEngine], **options: Any) -> None:
        super().__init__(lambda: _mortal(load()), **options)


def _mortal(loaded: LoadedEngine) -> LoadedEngine:
    step, num_steps = loaded.core.step, 0

    def step_or_die() -> Any:
        nonlocal num_steps
        num_steps += 1
        if num_steps == DIES_AT_STEP:
            raise RuntimeError("a fault put in on purpose")
        return step()

    vars(loaded.core)["step"] = step_or_die
    return loaded


FAULTS: Mapping[str, type[AsyncLLMEngine]] = {"leak": LeakingEngine, "mix up": MixedUpEngine, "die": MortalEngine}


def main() -> int:
    engine_class = FAULTS[sys.argv[1]]

    def build(flags: argparse.Namespace) -> AsyncLLMEngine:
        return engine_class.from_options(engine_options(flags))

    return run.main(sys.argv[2:], engine_builder=build)


if __name__ == "__main__":
    sys.exit(main())
