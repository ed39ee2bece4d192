"""The snippets of docs/clients.md, as they stand there, against the real base model.

Those in JavaScript with packages from npm are run by ``test_node_clients.py``.
"""

import ast
import contextlib
import gc
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.openai_api.real_server import ROOT, RealServer

PAGE = ROOT / "docs" / "clients.md"
ADDRESS = "http://127.0.0.1:8000"
_CODE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
_PATHS = {"OpenAI Agents": "/v1/responses", "anthropic": "/v1/messages", "ollama": "/api/chat"}


@dataclass(frozen=True)
class Snippet:
    """A program and what it prints, which may have white space around it: the base model begins with a space.
    ``packages`` are what pip is told to install.
    """

    title: str
    language: str
    code: str
    printed: str
    packages: str = ""

    def to(self, url: str) -> str:
        assert ADDRESS in self.code
        return self.code.replace(ADDRESS, url)

    def missing_packages(self) -> list[str]:
        """Of those that a Python program imports."""
        nodes = list(ast.walk(ast.parse(self.code)))
        names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        return sorted(name for name in {name.partition(".")[0] for name in names} if not importlib.util.find_spec(name))


def snippets(language: str) -> list[Snippet]:
    """Of all sections that have one in ``language`` and what it prints."""
    found = []
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, rest = section.partition("\n")
        match _CODE.findall(rest):
            case [(str(first), str(code)), ("text", str(printed))] if first == language:
                packages = re.search(r"`pip install (.*)`", rest)
                found.append(Snippet(title, language, code, printed, packages[1] if packages else ""))
    return found


@pytest.mark.filterwarnings("ignore")  # of the clients' own making
@pytest.mark.usefixtures("event_loop_of_clients")
@pytest.mark.parametrize("snippet", snippets("python"), ids=lambda snippet: snippet.title)
def test_python(server: RealServer, snippet: Snippet, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := snippet.missing_packages():
        pytest.skip(f"not installed: {', '.join(missing)}")
    skip_without_path(server, snippet)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network when it is imported
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet.to(server.url), str(PAGE), "exec"), {"__name__": "__main__"})
    gc.collect()  # what the client has not closed warns here
    assert printed.getvalue().strip() == snippet.printed.strip()


ELSEWHERE = [snippet for snippet in snippets("python") if snippet.missing_packages()]


@pytest.mark.soak
@pytest.mark.parametrize("snippet", ELSEWHERE, ids=lambda snippet: snippet.title)
def test_python_in_an_environment_of_its_own(server: RealServer, snippet: Snippet, tmp_path: Path) -> None:
    """Those whose packages are not among the tests': many others come with them, or older ones than the tests have."""
    skip_without_path(server, snippet)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True, timeout=120)
    python = str(tmp_path / "bin" / "python")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-m", "pip", "install", "-q", *shlex.split(snippet.packages)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    if done.returncode != 0:
        pytest.skip(f"pip could not fetch {snippet.packages}: {done.stderr.strip()[-200:]}")
    command = [python, "-c", snippet.to(server.url)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == snippet.printed.strip(), done.stderr


def skip_without_path(server: RealServer, snippet: Snippet) -> None:
    if (path := _PATHS.get(snippet.title)) and httpx.post(f"{server.url}{path}", json={}).status_code == 404:
        pytest.skip(f"the server has no {path}")


def test_curl(server: RealServer) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    section = PAGE.read_text().partition("\n## curl\n")[2]
    command = shlex.split(_CODE.findall(section)[0][1].replace("\\\n", " ").replace(ADDRESS, server.url))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *events, last = [line.removeprefix("data: ") for line in done.stdout.splitlines() if line]
    assert last == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events) == " the capital of the country of"


def test_fetch(server: RealServer, tmp_path: Path) -> None:
    """The one in JavaScript that needs no package."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    (snippet,) = [each for each in snippets("js") if each.title == "fetch"]
    assert printed_by_node(snippet, server.url, tmp_path).strip() == snippet.printed.strip()


def printed_by_node(snippet: Snippet, url: str, folder: Path) -> str:
    """``folder`` has the packages that the snippet needs."""
    (folder / "snippet.mjs").write_text(snippet.to(url))
    done = subprocess.run(["node", "snippet.mjs"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_client_is_in_the_table() -> None:
    head, *sections = PAGE.read_text().split("\n## ")
    titles = [section.partition("\n")[0] for section in sections]
    assert re.findall(r"\(#([\w-]+)\)", head) == [t.lower().replace(" ", "-") for t in titles]
    assert len(snippets("python")) + len(snippets("js")) == len(titles) - 2, "all but curl and the web page"
