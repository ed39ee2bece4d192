"""What steps have brought and nobody has been told yet.

Owns how long it is kept: until the next step begins to compute, and longer where nobody reads it
token by token. An answer that is sent as a whole has no use for each of its tokens, and the event
loop, which shares the cores with the model, would be woken by every step. Knows no thread and no
model. Engine thread only.
"""

from engine.news_queue import MAX_UNREAD, News
from engine.outputs import RequestOutput, StepResult


class UntoldNews:
    """Mutable. Of every request in order, without loss."""

    def __init__(self) -> None:
        self._due: list[tuple[str, News]] = []
        self._to_hold: set[str] = set()  # requests without a token so far
        self._held: dict[str, list[RequestOutput]] = {}

    def hold(self, request_id: str) -> None:
        """Keep its outputs until there are ``MAX_UNREAD`` of them, or the last. The first tokens are
        told at once: metrics know them by the time when they come.
        """
        self._to_hold.add(request_id)

    def forget(self, request_id: str) -> None:
        """Nobody reads this request any more."""
        self._to_hold.discard(request_id)
        self._held.pop(request_id, None)

    def add(self, result: StepResult) -> None:
        """The news of one step."""
        for output in result.outputs:
            held = self._held.get(output.request_id)
            if held is None:
                self._due.append((output.request_id, output))
                if output.deltas and output.request_id in self._to_hold:
                    self._held[output.request_id] = []
            else:
                self._add_held(output, held)
            if output.finished:
                self.forget(output.request_id)
        self._due += result.errors.items()  # nothing else becomes of a whole answer

    def _add_held(self, output: RequestOutput, held: list[RequestOutput]) -> None:
        held.append(output)
        if output.finished or len(held) == MAX_UNREAD:
            self._due += [(output.request_id, each) for each in held]
            held.clear()

    def take(self) -> list[tuple[str, News]]:
        """What is due, which is told by that."""
        due, self._due = self._due, []
        return due
