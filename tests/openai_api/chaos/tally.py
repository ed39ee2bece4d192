"""What the attackers were answered, and which of it the contract does not allow.

Owns the rules that hold for every answer to anybody; the canaries' stricter ones are in
``observer``.
"""

import json
from collections import Counter
from dataclasses import dataclass, field

from tests.openai_api.chaos.wire import Answer, error_complaint, events_of

# A server that has too much to do says so, in time: what a client is to try again later.
BUSY = {(429, "queue_full"), (503, "queue_timeout")}
# It says so too when the large bodies on their way would take more memory than it gives to all of
# them. Small bodies are never kept out by large ones.
BUSY_WITH_BODIES = (503, "busy")
WITH_LARGE_BODIES = {"huge", "malformed", "long prompt"}


def is_busy(answer: Answer) -> bool:
    return (answer.status, answer.code) in BUSY


@dataclass
class Tally:
    """Counts by kind of attack, status and code, as ``"whole 429 queue_full"``. Mutable."""

    answers: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)

    def judge(self, attack: str, answer: Answer, *expected: int) -> None:
        """``expected``: the statuses that it may have beside those of a busy server; by default any
        below 500.
        """
        self.answers[f"{attack} {answer.status} {answer.code}".rstrip()] += 1
        complaint = self._complaint(attack, answer, expected)
        if complaint is not None:
            self.problem(attack, complaint)

    def judge_stream(self, attack: str, answer: Answer, *expected: int) -> None:
        """As ``judge``, and a stream that began must end with ``[DONE]`` or with a busy server's
        error.
        """
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

    def _complaint(self, attack: str, answer: Answer, expected: tuple[int, ...]) -> str | None:
        if answer.status == 0:
            return "no answer"
        is_body_refused = attack in WITH_LARGE_BODIES and (answer.status, answer.code) == BUSY_WITH_BODIES
        is_expected = answer.status in expected if expected else answer.status < 500
        if not (is_expected or is_body_refused or is_busy(answer)):
            return f"{'a 5xx: ' if answer.status >= 500 else ''}{answer.status} {answer.code}".rstrip()
        return None if answer.status < 400 else error_complaint(answer)


def _error_code(event: bytes) -> str:
    try:
        return str(json.loads(event)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "nothing"
