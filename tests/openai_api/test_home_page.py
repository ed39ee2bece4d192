"""The page's files as they are served: small, of this server alone, behind headers that forbid everything else."""

import re
from pathlib import Path

import pytest

import openai_api
from openai_api.page_files import page_files
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import Asgi

FOLDER = Path(openai_api.__file__).parent / "page"
MAX_WEIGHT_BYTES = 150 * 1024
# What makes markup, styles or programs of strings.
FORBIDDEN = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|setHTML|srcdoc="


@pytest.fixture
def asgi() -> Asgi:
    return Asgi(FakeEngine(), ServerSettings(api_keys=("k",)))


def test_every_file_is_served_to_everybody_as_what_it_is(asgi: Asgi) -> None:
    assert {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()} == set(page_files())
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    for name, file in page_files().items():
        answer = asgi.get("/" if name == "index.html" else f"/page/{name}")
        assert (answer.status, answer.body) == (200, file.content)
        assert answer.headers["content-type"] == f"{types[Path(name).suffix]}; charset=utf-8"


def test_headers_keep_the_page_to_this_server(asgi: Asgi) -> None:
    for path in ("/", "/page/app.js", "/page/style.css"):
        headers = asgi.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_an_unchanged_file_is_not_sent_again(asgi: Asgi) -> None:
    for path in ("/", "/page/app.js"):
        first = asgi.get(path)
        again = asgi.request("GET", path, headers={"if-none-match": f'W/{first.headers["etag"]}, "x"'})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert asgi.request("GET", path, headers={"if-none-match": '"x"'}).status == 200


@pytest.mark.parametrize(
    "name", ["nothing.js", "../app.py", "..%2fapp.py", "views", "views/", "", "app.js/", "index.HTML"]
)
def test_there_are_no_other_files(asgi: Asgi, name: str) -> None:
    answer = asgi.get(f"/page/{name}")
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")


def test_nothing_comes_from_elsewhere_and_nothing_is_made_of_markup() -> None:
    for name, file in page_files().items():
        text = file.content.decode()
        assert not re.search(FORBIDDEN, text), name
        assert not re.search(r"""(src|href|import|from|url\(|fetch\()\s*=?\s*["'(]*(https?:)?//""", text), name
        if name.endswith(".html"):
            assert "<style" not in text
            assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", text), name


def test_the_page_is_light() -> None:
    assert sum(len(file.content) for file in page_files().values()) <= MAX_WEIGHT_BYTES
