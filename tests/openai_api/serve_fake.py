"""The server program with the scripted engine in place of a model: ``python -m tests.openai_api.serve_fake --port 0``.

The script comes as JSON in the variable ``FAKE_SCRIPT``: the fields of ``FakeEngine`` and, under ``script``, of ``Script``.
"""

import argparse
import dataclasses
import json
import os
import sys

from engine.engine_info import EngineStatus
from openai_api import access_flags, run
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine, Script

ERRORS = {"ValueError": ValueError, "RuntimeError": RuntimeError, "OSError": OSError}


def build(_flags: argparse.Namespace) -> FakeEngine:
    fields = json.loads(os.environ.get("FAKE_SCRIPT", "{}"))
    script = Script(**fields.pop("script", {}))
    kind = fields.pop("load_error", None)
    error = None if kind is None else ERRORS[kind]("the weights are not there")
    return FakeEngine(script=script, status=EngineStatus.LOADING, load_error=error, **fields)


def with_short_drain(settings: ServerSettings) -> ServerSettings:
    return dataclasses.replace(settings, drain_timeout_s=float(os.environ.get("DRAIN_S", "30")))


if __name__ == "__main__":
    settings_of = access_flags.settings_from
    vars(run)["settings_from"] = lambda flags, environment: with_short_drain(settings_of(flags, environment))
    sys.exit(run.main(engine_builder=build))
