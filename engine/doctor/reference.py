"""What the embedded default says to one text, in float32, stored: its ids, and the likeliest tokens of each row.

``reference.json`` was made by the torch model of this package, which the tests hold against
transformers; a test makes it again.
"""

import json
from dataclasses import dataclass
from pathlib import Path

_PATH = Path(__file__).with_name("reference.json")


@dataclass(frozen=True, slots=True)
class Reference:
    """``likeliest``: of each of ``rows`` the ids and the natural log probabilities of its first tokens, best first."""

    text: str
    token_ids: list[int]
    rows: list[int]
    likeliest: list[list[tuple[int, float]]]


def read_reference() -> Reference:
    """The stored one."""
    stored = json.loads(_PATH.read_text())
    likeliest = [[(int(token_id), float(logprob)) for token_id, logprob in row] for row in stored["likeliest"]]
    return Reference(stored["text"], stored["token_ids"], stored["rows"], likeliest)
