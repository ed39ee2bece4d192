"""Who may still join the queue: how much waits, in sequences and in prompt tokens, and how much of
it is whose.

Owns the counts and the bounds; knows neither the sequences nor their order. Event loop. Every
operation takes the same time, however much waits.

A caller may hold as much of the room as is still free: one caller alone gets half of it, two get a
third each, and so on. So nobody fills it alone, and whoever comes next finds a place.
"""

from dataclasses import dataclass

from engine.errors import QueueFullError

MAX_RETRY_AFTER_S = 120


@dataclass(frozen=True, slots=True)
class Amount:
    """Of what waits."""

    num_sequences: int = 0
    num_prompt_tokens: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.num_sequences + other.num_sequences, self.num_prompt_tokens + other.num_prompt_tokens)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.num_sequences - other.num_sequences, self.num_prompt_tokens - other.num_prompt_tokens)


class WaitingRoom:
    """Mutable. What one request brings is not looked at, only what waits already: a large one may
    enter an empty room.
    """

    def __init__(self, capacity: Amount) -> None:
        self.capacity = capacity
        self.total = Amount()
        self._of_caller: dict[str, Amount] = {}  # who has nothing here is not in it

    def check(self, name: str, *, mean_request_s: float) -> None:
        """Whether a request of the caller ``name`` may enter now.

        Raises:
            QueueFullError: the text says which bound, with the numbers.
        """
        own, free = self._of_caller.get(name, Amount()), self.capacity - self.total
        retry_after_s = min(MAX_RETRY_AFTER_S, max(1, round(self.total.num_sequences * mean_request_s)))
        bounds = {
            "sequences": (own.num_sequences, free.num_sequences, self.capacity.num_sequences),
            "prompt tokens": (own.num_prompt_tokens, free.num_prompt_tokens, self.capacity.num_prompt_tokens),
        }
        for unit, (num_own, num_free, capacity) in bounds.items():
            if num_own >= num_free:
                raise QueueFullError(
                    f"{capacity - num_free} {unit} wait already, {num_own} of them yours; at most {capacity} may, and of "
                    f"one caller as many as are still free: {max(0, num_free)}.",
                    retry_after_s=retry_after_s,
                )

    def enter(self, name: str, amount: Amount) -> None:
        self.total += amount
        self._of_caller[name] = self._of_caller.get(name, Amount()) + amount

    def leave(self, name: str, amount: Amount) -> None:
        """It was admitted, or given up."""
        self.total -= amount
        left = self._of_caller[name] - amount
        if left == Amount():
            del self._of_caller[name]
        else:
            self._of_caller[name] = left
