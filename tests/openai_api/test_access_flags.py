"""The flags that say who may call: what they take, in which form it is kept, and what they refuse."""

import argparse
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from openai_api.access_flags import exposed_keys, settings_from
from openai_api.command_line import parse_flags
from openai_api.run import main
from openai_api.settings import OptionError, ServerSettings
from tests.openai_api.test_program import program, ready_line


def settings(*argv: str, key: str | None = None) -> ServerSettings:
    return settings_from(parse_flags(argv), {} if key is None else {"GEMMA3_API_KEY": key})


def no_engine(_flags: argparse.Namespace) -> NoReturn:
    pytest.fail("wrong options got as far as to the engine")


def refusal(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a program that ends with status 2 before it loads anything."""
    try:
        status = main(argv, engine_builder=no_engine)
    except SystemExit as stop:
        status = int(str(stop.code))
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("openai_api.run: error: ")
    return line


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("gemma", "gemma"),
        ("Gemma.LAN.", "gemma.lan"),
        (" gemma\n", "gemma"),
        ("my_service", "my_service"),
        ("xn--mnchen-3ya.lan", "xn--mnchen-3ya.lan"),
        ("host.docker.internal", "host.docker.internal"),
        ("192.168.1.20", "192.168.1.20"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("2001:db8:0:0::1", "2001:db8::1"),
        ("0.0.0.0", "0.0.0.0"),
    ],
)
def test_hosts_are_kept_in_one_form(given: str, kept: str) -> None:
    assert settings("--allowed-host", given).allowed_hosts == (kept,)


@pytest.mark.parametrize(
    "host",
    ["", " ", ".", "*", "*.example.com", "http://gemma", "gemma:8000", "192.168.1.20:8000", "[::1]:8000", "gemma/", "gemma/v1",
     "my gemma", "a,b", "a..b", "[gemma", "user@gemma", "gemma?", "x" * 64],
)  # fmt: skip
def test_hosts_that_no_header_has_are_refused(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(["--allowed-host", host], capsys)
    assert "--allowed-host" in line
    assert "without scheme, port or path" in line


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://app.example", "https://app.example"),
        ("HTTPS://App.Example", "https://app.example"),
        ("https://app.example/", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80/", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://app.example:08080", "http://app.example:8080"),
        (" http://localhost:3000 ", "http://localhost:3000"),
        ("http://localhost:*", "http://localhost:*"),
        ("http://LOCALHOST:*/", "http://localhost:*"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[0:0:0:0:0:0:0:1]:*", "http://[::1]:*"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_origins_are_kept_as_browsers_write_them(given: str, kept: str) -> None:
    assert settings("--allowed-origin", given).allowed_origins == (kept,)


@pytest.mark.parametrize(
    "origin",
    ["", " ", "*", "null", "file://", "file:///", "app.example", "localhost:3000", "//app.example", "https://", "https:///",
     "https://*", "https://*.app.example", "*://app.example", "http://*:3000", "https://app.example/path", "https://app.example//",
     "https://app.example?x", "https://app.example#x", "https://user@app.example", "https://app.example:x",
     "https://app.example:70000", "https://app.example:3000:*", "https://a.example,https://b.example", "https://my app"],
)  # fmt: skip
def test_origins_that_no_page_has_are_refused(origin: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(["--allowed-origin", origin], capsys)
    assert "--allowed-origin" in line
    assert "exact origin such as https://app.example" in line
    assert "http://localhost:*" in line


@pytest.mark.parametrize(
    ("flag", "value"), [("--allowed-host", "m\u00fcnchen.lan"), ("--allowed-origin", "https://m\u00fcnchen.de")]
)
def test_names_beyond_ascii_are_asked_for_as_browsers_send_them(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "xn--" in refusal([flag, value], capsys)


@pytest.mark.parametrize("empty", ["", " ", "\n", " \t\r\n"])
def test_an_empty_variable_is_not_set(
    empty: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docker compose passes on a variable that its host does not have."""
    assert settings(key=empty).api_keys == ()
    monkeypatch.setenv("GEMMA3_API_KEY", empty)
    assert "--api-key" in refusal(["--host", "0.0.0.0"], capsys)


def test_the_line_end_of_a_secret_is_no_part_of_it() -> None:
    assert settings(key=" k-1\r\n").api_keys == ("k-1",)
    assert settings("--api-key", "flag", key="k-1").api_keys == ("flag", "k-1")
    for wrong in ("two words", "k\x00", "\u00e9", "x" * 513):
        with pytest.raises(OptionError, match="printable"):
            settings(key=wrong)


def test_keys_that_others_can_read_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("k-1\n")
    for mode, is_open in ((0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o620, True)):
        path.chmod(mode)
        events = exposed_keys(parse_flags(["--api-key-file", str(path)]))
        assert list(events) == (["api_key_file_open_to_others"] if is_open else [])
    assert list(exposed_keys(parse_flags(["--api-key", "k"]))) == ["api_key_in_process_list"]
    assert exposed_keys(parse_flags([])) == exposed_keys(parse_flags(["--api-key-file", "/dev/fd/none"])) == {}


def test_the_warnings_come_once_and_without_the_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("xyzzy-in-file\n")
    path.chmod(0o644)
    with program("--api-key", "xyzzy-in-flag", "--api-key-file", str(path)) as server:
        ready_line(server)
        events = [record["event"] for record in server.log if record.get("level") == "warning"]
    assert [event for event in events if event.startswith("api_key")] == [
        "api_key_in_process_list",
        "api_key_file_open_to_others",
    ]
    assert "xyzzy" not in json.dumps(server.log)


def test_localhost_is_both_loopbacks() -> None:
    with program("--host", "localhost") as server:
        assert ready_line(server).endswith(f" at {server.url}\n")
        port = int(server.url.rpartition(":")[2])
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, port), timeout=5) as client:
                client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert client.recv(12) == b"HTTP/1.1 200"
    assert server.url == f"http://localhost:{port}"
