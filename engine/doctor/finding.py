"""What a check found, and how findings are shown: a table for a person, JSON for a program."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    NOTE = "note"  # worth knowing, or not checked; nothing is wrong
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """``subject``: what was looked at; ``says``: what is so, with figures; ``advice``: what to do, if anything is wrong."""

    subject: str
    state: State
    says: str
    advice: str = ""


def table(findings: Sequence[Finding]) -> Iterator[str]:
    """Lines; what to do stands below what is wrong."""
    width = max((len(each.subject) for each in findings), default=0)
    for each in findings:
        yield f"{each.state.value:5}  {each.subject:{width}}  {each.says}"
        if each.advice:
            yield f"{'':5}  {'':{width}}  -> {each.advice}"
    num_wrong = sum(each.state is State.WRONG for each in findings)
    yield f"{num_wrong} of {len(findings)} are wrong." if num_wrong else f"All {len(findings)} are well."


def as_json(findings: Sequence[Finding]) -> str:
    """One object: ``ok``, and the findings in order."""
    is_ok = all(each.state is not State.WRONG for each in findings)
    return json.dumps({"ok": is_ok, "findings": [asdict(each) for each in findings]}, indent=1)
