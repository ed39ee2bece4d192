"""README.md and docs/: every link leads somewhere, and every command line of this program is one that it takes."""

import re
import shlex
from pathlib import Path

import pytest

from engine.terminal.program import text_parser
from openai_api import ask, command_line, doctor
from openai_api.completion import print_completion

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
_PROGRAM = re.compile(r"(?:gemma3-server|python main\.py|python query_fastapi\.py)(?= |$)")
_SHELL = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings; code blocks have none."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def command_lines() -> list[str]:
    """Of all pages; a redirection behind is the shell's, and what comes after ``&&`` is another command."""
    blocks = [block for page in PAGES for block in _SHELL.findall(page.read_text())]
    lines = re.split(r"\n|&&", "\n".join(blocks).replace("\\\n", " "))
    return sorted({re.split(r" [<>|] ", line.strip())[0] for line in lines if _PROGRAM.match(line.strip())})


@pytest.mark.parametrize("line", command_lines())
def test_command_line(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "person.json").write_text("{}")  # what the pages call a schema
    words = shlex.split(_PROGRAM.sub("ask" if line.startswith("python query") else "", line), comments=True)
    match words:
        case ["serve", *rest]:
            command_line.parse_flags(rest)
        case ["ask", *rest]:
            ask.parse_flags(rest)
        case ["doctor", *rest]:
            doctor.flag_parser("gemma3-server").parse(rest)
        case ["--print-completion", *rest]:
            assert print_completion(rest, "gemma3-server") == 0
        case _:
            text_parser("gemma3-server").parse(words)


def test_there_are_command_lines_to_try() -> None:
    assert len(command_lines()) > 20


def test_every_page_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES if page.parent.name == "docs" and f"docs/{page.name}" not in text] == []
