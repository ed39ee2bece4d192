"""The server program with a fault put in on purpose, which its first argument names.

The control of the chaos run: each fault must make its verdict red, and for the right reason. A
fault is what comes after each step of the engine.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from engine.async_engine import AsyncLLMEngine
from engine.loading import LoadedEngine, load_engine
from engine.outputs import RequestOutput
from openai_api import run
from openai_api.command_line import engine_options

LEAK_BYTES = 1024 * 1024
# The canaries are recorded before: some hundred outputs.
WRONG_FROM_OUTPUT, WRONG_EVERY = 600, 50
DIES_AT_STEP = 400

Outputs = list[RequestOutput]


class Leak:
    """Something is kept of each request that has been answered."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def __call__(self, outputs: Outputs) -> Outputs:
        self.kept += [b"x" * LEAK_BYTES for output in outputs if output.finished]
        return outputs


class WrongToken:
    """Now and then a token is another one, in its id alone."""

    def __init__(self) -> None:
        self.num_outputs = 0

    def __call__(self, outputs: Outputs) -> Outputs:
        return [self._altered(output) for output in outputs]

    def _altered(self, output: RequestOutput) -> RequestOutput:
        self.num_outputs += 1
        if self.num_outputs < WRONG_FROM_OUTPUT or self.num_outputs % WRONG_EVERY or not output.deltas:
            return output
        first, *others = output.deltas
        token_ids = tuple(token_id ^ 1 for token_id in first.token_ids)
        return replace(output, deltas=(replace(first, token_ids=token_ids), *others))


class Death:
    """The engine thread dies of what no guard around a request can catch."""

    def __init__(self) -> None:
        self.num_steps = 0

    def __call__(self, outputs: Outputs) -> Outputs:
        self.num_steps += 1
        if self.num_steps == DIES_AT_STEP:
            raise RuntimeError("a fault put in on purpose")
        return outputs


FAULTS: Mapping[str, type[Leak] | type[WrongToken] | type[Death]] = {
    "leak": Leak,
    "wrong token": WrongToken,
    "death": Death,
}


def with_fault(loaded: LoadedEngine, fault: Callable[[Outputs], Outputs]) -> LoadedEngine:
    step = loaded.core.step

    def faulty_step(*, on_scheduled: Callable[[], None]) -> object:
        result = step(on_scheduled=on_scheduled)
        return replace(result, outputs=fault(list(result.outputs)))

    vars(loaded.core)["step"] = faulty_step
    return loaded


def main() -> int:
    fault = FAULTS[sys.argv[1]]

    def build(flags: argparse.Namespace) -> AsyncLLMEngine:
        options = engine_options(flags)
        return AsyncLLMEngine(lambda: with_fault(load_engine(options), fault()))

    return run.main(sys.argv[2:], engine_builder=build)


if __name__ == "__main__":
    sys.exit(main())
