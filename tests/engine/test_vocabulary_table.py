"""When the grammars' table of the vocabulary is made."""

import logging
import threading
import time
from typing import Any

import pytest

from engine import vocabulary_table
from engine.vocabulary_table import built_when_idle


class Core:
    def __init__(self) -> None:
        self.has_unfinished_requests = True
        self.was_asked = threading.Event()

    def __getattribute__(self, name: str) -> Any:
        if name == "has_unfinished_requests":
            object.__getattribute__(self, "was_asked").set()
        return object.__getattribute__(self, name)


class Grammars:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.was_built = threading.Event()

    def build(self) -> None:
        self.was_built.set()
        if self.error is not None:
            raise self.error


class SlowGrammars(Grammars):
    is_done = False

    def build(self) -> None:
        super().build()
        time.sleep(0.2)
        self.is_done = True


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_table, "DELAY_S", 0.0)


def test_it_is_made_when_nobody_is_served() -> None:
    core, grammars = Core(), Grammars()
    with built_when_idle(grammars, core) as thread:
        assert core.was_asked.wait(timeout=20)
        assert not grammars.was_built.is_set()
        core.has_unfinished_requests = False
        thread.join(timeout=20)
        assert grammars.was_built.is_set()


def test_nobody_waits_for_it_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_table, "PATIENCE_S", 0.2)
    grammars, core = Grammars(), Core()
    with built_when_idle(grammars, core) as thread:
        thread.join(timeout=20)
        assert grammars.was_built.is_set()


def test_an_engine_that_ends_gets_none() -> None:
    core, grammars = Core(), Grammars()
    with built_when_idle(grammars, core) as thread:
        assert core.was_asked.wait(timeout=20)
    assert not thread.is_alive()
    assert not grammars.was_built.is_set()


def test_an_engine_that_ends_waits_for_one_that_is_being_made() -> None:
    core, grammars = Core(), SlowGrammars()
    core.has_unfinished_requests = False
    with built_when_idle(grammars, core):
        assert grammars.was_built.wait(timeout=20)
    assert grammars.is_done


def test_a_table_that_cannot_be_made_is_told(caplog: pytest.LogCaptureFixture) -> None:
    core, grammars = Core(), Grammars(RuntimeError("broken on purpose"))
    core.has_unfinished_requests = False
    with caplog.at_level(logging.ERROR, logger="gemma3"), built_when_idle(grammars, core) as thread:
        thread.join(timeout=20)
    assert "no table of the vocabulary" in caplog.text
