"""Where work is done that would keep the event loop waiting.

Owns which thread does what. Small work is done at once; more of it on asyncio's threads; heavy work
on two threads of its own, in the order in which it came. So a few huge requests neither take the
threads of all others nor fight the event loop and the engine for the interpreter, which only one
thread can have. Knows nothing of what the work is. Called on the event loop.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from openai_api.settings import ServerSettings

T = TypeVar("T")

_NUM_HEAVY_THREADS = 2
_NUM_GRAMMAR_THREADS = 2


class OffLoop:
    """The threads of one app."""

    def __init__(self, settings: ServerSettings) -> None:
        self._inline_bytes = settings.off_loop_bytes
        self._heavy_bytes = settings.heavy_bytes
        self._heavy = ThreadPoolExecutor(_NUM_HEAVY_THREADS, thread_name_prefix="heavy")
        self._grammars = ThreadPoolExecutor(_NUM_GRAMMAR_THREADS, thread_name_prefix="grammar")

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """``work()``; ``size`` (bytes, characters, tokens or log probabilities) says where.

        Cancelled, it never begins, or its result is forgotten.
        """
        if size <= self._inline_bytes:
            return work()
        if size <= self._heavy_bytes:
            return await asyncio.to_thread(work)
        return await asyncio.get_running_loop().run_in_executor(self._heavy, work)

    async def compile(self, work: Callable[[], T]) -> T:
        """``work()``, which compiles a grammar. That may take seconds, and only other grammars wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._grammars, work)
