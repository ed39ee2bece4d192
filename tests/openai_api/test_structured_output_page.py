"""The examples of docs/structured-output.md, as they stand there, against the real base model."""

import contextlib
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
import pytest

from tests.openai_api.real_server import ROOT, RealServer

PAGE = ROOT / "docs" / "structured-output.md"
ADDRESS = "http://127.0.0.1:8000"
EXAMPLES = ("Extraction", "Routing", "A tool call")
_BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """The code blocks of a section: a request and a part of its answer, a program and what it prints."""

    curl: str
    answer: str
    program: str
    printed: str


def example(title: str) -> Example:
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    blocks = _BLOCK.findall(section)
    assert [language for language, _ in blocks] == ["bash", "json", "python", "text"], title
    return Example(*(text for _, text in blocks))


@pytest.mark.parametrize("title", EXAMPLES)
def test_request(server: RealServer, title: str) -> None:
    shown = example(title)
    command, address, *flags = shlex.split(shown.curl.replace("\\\n", " "))
    assert command == "curl"
    assert address.startswith(ADDRESS)
    body = json.loads(flags[flags.index("-d") + 1])
    answer = httpx.post(address.replace(ADDRESS, server.url), json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    assert is_part(json.loads(shown.answer), told(answer.json())), answer.text


@pytest.mark.parametrize("title", EXAMPLES)
def test_program(server: RealServer, title: str) -> None:
    shown = example(title)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(shown.program.replace(ADDRESS, server.url), str(PAGE), "exec"), {"__name__": "__main__"})
    assert printed.getvalue() == shown.printed


def told(answer: Mapping[str, object]) -> object:
    """What the page shows of an answer: a decision, a message with calls, or the JSON that is the content."""
    match answer:
        case {"answers": [first, *_]}:
            return first
        case {"choices": [{"message": {"tool_calls": [_, *_]} as message}]}:
            return message
        case {"choices": [{"message": {"content": str(content)}}]}:
            return json.loads(content)
    raise AssertionError(answer)


def is_part(shown: object, whole: object) -> bool:
    """Numbers are rounded, ids are cut, and members may be left out."""
    match shown, whole:
        case dict(), dict():
            return all(name in whole and is_part(value, whole[name]) for name, value in shown.items())
        case list(), list():
            return len(shown) == len(whole) and all(map(is_part, shown, whole))
        case float(), float():
            return abs(shown - whole) < 0.02
        case str(), str() if shown.endswith("..."):
            return whole.startswith(shown.removesuffix("..."))
    return shown == whole


def test_part() -> None:
    assert is_part({"a": [1.0, "call_..."]}, {"a": [0.99, "call_7"], "b": None})
    others: Sequence[object] = ({"a": 2}, {"b": 1}, [1], 1)
    assert not any(is_part({"a": 1}, other) for other in others)
    assert not is_part([0.5], [0.6])
    assert not is_part([1], [1, 1])
    assert not is_part("x...", "y")
