"""What the attackers were answered, and which of it the contract does not allow.

Owns the rules that hold for every answer to anybody; the canaries' stricter ones are in ``observer``.
"""

import json
from collections import Counter
from dataclasses import dataclass, field

from tests.openai_api.chaos.wire import Answer, error_complaint, events_of

# A server that has too much to do says so, in time: what a client is to try again later.
BUSY = {(429, "queue_full"), (503, "queue_timeout")}
# How it says that the bodies on their way would take more memory than it gives to all of them.
CROWDED = {"too_many_bodies", "busy"}


def is_busy(answer: Answer) -> bool:
    return (answer.status, answer.code) in BUSY or (answer.status in {429, 503} and answer.code in CROWDED)


@dataclass
class Tally:
    """Counts by kind of attack, status and code, as ``"whole 429 queue_full"``. Mutable."""

    answers: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)

    def judge(self, attack: str, answer: Answer, *expected: int) -> None:
        """``expected``: the statuses that it may have beside those of a busy server; by default any below 500."""
        self.answers[f"{attack} {answer.status} {answer.code}".rstrip()] += 1
        complaint = self._complaint(answer, expected)
        if complaint is not None:
            self.problem(attack, complaint)

    def judge_stream(self, attack: str, answer: Answer, *expected: int) -> None:
        """As ``judge``, and a stream that began must end with ``[DONE]`` or with a busy server's error."""
        if answer.status != 200:
            self.judge(attack, answer, *expected)
            return
        last = (events_of(answer.body) or [b""])[-1]
        if last == b"[DONE]":
            self.answers[f"{attack} 200"] += 1
            return
        code = _error_code(last)
        self.answers[f"{attack} 200 then {code}"] += 1
        if code != "queue_timeout":
            self.problem(attack, f"the stream ended with {last[:120]!r}")

    def problem(self, attack: str, complaint: str) -> None:
        self.problems[f"{attack}: {complaint}"] += 1

    def _complaint(self, answer: Answer, expected: tuple[int, ...]) -> str | None:
        if answer.status == 0:
            return "no answer"
        if is_busy(answer) or answer.status < 400:
            return None if answer.status >= 400 or not expected or answer.status in expected else _unexpected(answer)
        if answer.status >= 500 or (expected and answer.status not in expected):
            return _unexpected(answer)
        return error_complaint(answer)


def _unexpected(answer: Answer) -> str:
    return f"{'a 5xx: ' if answer.status >= 500 else ''}{answer.status} {answer.code}".rstrip()


def _error_code(event: bytes) -> str:
    try:
        return str(json.loads(event)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "nothing"
