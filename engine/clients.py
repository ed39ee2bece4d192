"""Everybody who reads the outputs of a request now, and what of it waits in the queue.

Owns each reader's queue of news and the waiting room, and tells what each request does; knows neither
the engine thread nor its end. Event loop.
"""

import logging
import time
from collections import abc
from dataclasses import dataclass, field, replace

from engine.admission import Amount, WaitingRoom
from engine.commands import Add
from engine.errors import EngineError, StepError
from engine.news_queue import News, NewsQueue
from engine.request_status import RequestPhase, RequestStatus

CONTINUATIONS_PER_PLACE = 16  # in the queue

log = logging.getLogger("gemma3")


@dataclass(slots=True)
class Client:
    """The event loop's end of a request. Mutable. ``amount`` is what it takes of the waiting room."""

    command: Add
    amount: Amount
    news: NewsQueue
    is_waiting: bool = True
    began_s: float = field(default_factory=time.monotonic)


class Clients:
    """By request id. Mutable. What goes wrong with one of them is told to that one alone."""

    def __init__(self, capacity: Amount) -> None:
        self.room = WaitingRoom(capacity)
        self._clients: dict[str, Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __getitem__(self, request_id: str) -> Client:
        return self._clients[request_id]

    def enter(self, command: Add) -> Client:
        """Until its first news it counts as waiting."""
        client = Client(command, _amount(command), NewsQueue(joins_unread=not command.is_streamed))
        self._clients[command.request_id] = client
        self.room.enter(command.caller.name, client.amount)
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

    def statuses(self, running: abc.Iterable[RequestStatus]) -> list[RequestStatus]:
        """What each does now, oldest first: as the engine says of those that run; the rest of the room waits."""
        now_s, by_id = time.monotonic(), {status.request_id: status for status in running}
        found = []
        for request_id, client in self._clients.items():
            status = by_id.get(request_id) or (_waiting(client.command) if client.is_waiting else None)
            if status is not None:  # else it has ended, and its reader has not read so yet
                found.append(replace(status, age_s=now_s - client.began_s))
        return found

    def end_all(self, kind: abc.Callable[[str], EngineError], text: str) -> None:
        """Each gets an error of its own, after what it has not read yet."""
        for client in self._clients.values():
            client.news.put(kind(text))

    def _leave_room(self, client: Client) -> None:
        if client.is_waiting:
            client.is_waiting = False
            self.room.leave(client.command.caller.name, client.amount)


def _amount(command: Add) -> Amount:
    """What waits. Of many continuations few have a sequence of their own, and only when their prompt is computed."""
    num_tokens = len(command.prompt_token_ids) + sum(map(len, command.continuations))
    num_places = 1 + len(command.continuations) // CONTINUATIONS_PER_PLACE
    return Amount(num_places if command.continuations else command.params.n, num_tokens)


def _waiting(command: Add) -> RequestStatus:
    n, max_tokens = command.params.n, command.params.max_tokens
    return RequestStatus(
        request_id=command.request_id,
        caller_name=command.caller.name,
        phase=RequestPhase.WAITING,
        num_sequences=n,
        num_prompt_tokens=len(command.prompt_token_ids),
        max_output_tokens=None if max_tokens is None else n * max_tokens,
        is_constrained=command.params.grammar is not None,
        is_scoring=bool(command.continuations),
    )
