"""Everybody who reads the outputs of a request now, and what of it waits in the queue.

Owns each reader's queue of news and the waiting room; knows neither the engine thread nor its end.
Event loop.
"""

import logging
from collections import abc
from dataclasses import dataclass

from engine.admission import Amount, WaitingRoom
from engine.caller import Caller
from engine.errors import EngineError, StepError
from engine.news_queue import News, NewsQueue

log = logging.getLogger("gemma3")


@dataclass(slots=True)
class Client:
    """The event loop's end of a request. Mutable. ``amount`` is what it takes of the waiting room."""

    caller: Caller
    amount: Amount
    news: NewsQueue
    is_waiting: bool = True


class Clients:
    """By request id. Mutable. What goes wrong with one of them is told to that one alone."""

    def __init__(self, capacity: Amount) -> None:
        self.room = WaitingRoom(capacity)
        self._clients: dict[str, Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __getitem__(self, request_id: str) -> Client:
        return self._clients[request_id]

    def enter(self, request_id: str, caller: Caller, amount: Amount, *, is_streamed: bool = True) -> Client:
        """Until its first news it counts as waiting."""
        client = self._clients[request_id] = Client(caller, amount, NewsQueue(joins_unread=not is_streamed))
        self.room.enter(caller.name, amount)
        return client

    def leave(self, request_id: str) -> None:
        """It reads no more."""
        self._leave_room(self._clients.pop(request_id))

    def deliver(self, news: abc.Iterable[tuple[str, News]]) -> None:
        """One step's news, to those that are still there."""
        for request_id, item in news:
            client = self._clients.get(request_id)
            if client is not None:
                try:
                    self._leave_room(client)
                    client.news.put(item)
                except Exception:
                    log.exception("The news of request %s could not be told", request_id)
                    client.news.end(StepError("This request failed inside the engine."))

    def end_all(self, kind: abc.Callable[[str], EngineError], text: str) -> None:
        """Each gets an error of its own, after what it has not read yet."""
        for client in self._clients.values():
            client.news.put(kind(text))

    def _leave_room(self, client: Client) -> None:
        if client.is_waiting:
            client.is_waiting = False
            self.room.leave(client.caller.name, client.amount)
