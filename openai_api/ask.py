"""A small client of OpenAI's API on httpx: ``gemma3-server ask``, and ``query_fastapi.py``.

Owns one question and its answer, to try a server out and to read how streaming works. Knows nothing
of the server's inside. Exit status: 0 answered, 1 the server refused or failed, 2 wrong use or an
answer that cannot be written, 3 no server there, 130 Ctrl-C, 141 nobody reads the answer any more.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from engine.terminal.flag_parser import FlagParser
from engine.terminal.guard import run_guarded, say, write_output
from engine.terminal.messages import read_all

PROGRAM = "gemma3-server ask"
DEFAULT_URL = "http://127.0.0.1:8000"
REFUSED, NO_SERVER = 1, 3


class ServerError(Exception):
    """The server answered with an error, or what answers is no such server; the text says which."""


def main(argv: Sequence[str] | None = None, *, program: str = PROGRAM) -> int:
    """The exit status; what went wrong is one line on stderr, which begins with ``program``."""
    return run_guarded(program, lambda: _ask_at(parse_flags(argv, program=program), program))


def parse_flags(argv: Sequence[str] | None, *, program: str = PROGRAM) -> argparse.Namespace:
    """The flags of ``argv``, or of the process for ``None``; the prompt is read, the address checked.

    Raises:
        ValueError: the prompt or a flag cannot be sent.
        SystemExit: with status 2 and one line on stderr, a flag is wrong.
    """
    flags = flag_parser(program).parse(argv)
    if flags.prompt == "-":
        flags.prompt = read_all().removesuffix("\n")
    if not flags.prompt.strip():
        raise ValueError("the prompt is empty")
    if not all("!" <= char <= "~" for char in flags.api_key or ""):
        raise ValueError("--api-key is ASCII without spaces")
    if not math.isfinite(flags.temperature or 0):
        raise ValueError(f"--temperature {flags.temperature} is no number that JSON has")
    return flags


def flag_parser(program: str) -> FlagParser:
    """All flags of the client."""
    parser = FlagParser(prog=program, description="Ask a running server one question.")
    add = parser.add_argument
    add("--prompt", default="Hello! Who are you?", help="Ask this; - reads stdin (default: %(default)s).")
    add("--system", help="Put these instructions before the prompt (default: none).")
    add("--stream", action="store_true", help="Print the answer as it is written (default: when it is complete).")
    add("--url", type=server_url, default=DEFAULT_URL, help="Find the server here, /v1 or not (default: %(default)s).")
    add("--model", help="Ask this model (default: the first that the server names).")
    add("--max-tokens", "--max-new-tokens", type=int, metavar="N", help="End after N tokens (default: the server's).")
    add("--temperature", type=float, metavar="T", help="Draw at this temperature, 0: greedily (default: the server's).")
    add("--api-key", help="Send this API key (default: none).")
    either = parser.add_mutually_exclusive_group().add_argument
    either("--schema", type=format_of, metavar="FILE", help="Answer in JSON by the schema there (default: freely).")
    either("--choice", action="append", metavar="TEXT", help="Answer with this or another --choice (default: freely).")
    add("--json", action="store_true", help="Print the server's JSON as it is (default: its text alone).")
    return parser


def format_of(name: str) -> dict[str, Any]:
    """The ``response_format`` with the schema in a file, which the server will judge.

    Raises:
        argparse.ArgumentTypeError: the file cannot be read, or is not JSON.
    """
    try:
        with open(name, encoding="utf-8-sig") as file:
            named = {"name": "answer", "schema": json.load(file), "strict": True}
        json.dumps(named, ensure_ascii=False, allow_nan=False).encode()  # as it will be sent
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{name} is not JSON: {error}") from None
    return {"type": "json_schema", "json_schema": named}


def server_url(text: str) -> httpx.URL:
    """The address without the ``/v1`` that other clients want there.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or " " in text or not 0 < (url.port or 1) < 2**16:
        raise argparse.ArgumentTypeError(f"{text[:200]!r} is no address such as {DEFAULT_URL}")
    path = url.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1").rstrip("/")
    return url.copy_with(path=path or "/", query=None, fragment=None)


def _ask_at(flags: argparse.Namespace, program: str) -> int:
    """Ask the server; the exit status."""
    shown = str(flags.url).rstrip("/")
    try:
        with _client(flags) as client:
            ask(client, flags)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        say(f"{program}: error: no server answers at {shown}; start one with: gemma3-server serve")
        return NO_SERVER
    except httpx.HTTPError as error:
        say(f"{program}: error: the connection to {shown} failed: {error}")
        return REFUSED
    except ServerError as error:
        say(f"{program}: error: {' '.join(str(error).split())}")
        return REFUSED
    return 0


def _client(flags: argparse.Namespace) -> httpx.Client:
    """Raises: ValueError, the environment names a proxy or certificates that cannot be used."""
    headers = {"Authorization": f"Bearer {flags.api_key}"} if flags.api_key else {}
    host = flags.url.host
    # HTTP_PROXY and its like do not lead to this machine.
    is_here = host in ("localhost", "::", "::1") or host.startswith(("127.", "::ffff:127.", "0.0.0.0"))  # noqa: S104  of a client
    try:
        return httpx.Client(
            base_url=flags.url,
            headers=headers,
            timeout=httpx.Timeout(None, connect=5.0),  # a long answer on a slow machine takes its time
            trust_env=not is_here,
            event_hooks={"response": [_check]},
        )
    except (ValueError, ImportError) as error:
        raise ValueError(f"a variable such as HTTP_PROXY cannot be used: {error}") from None


def ask(client: httpx.Client, flags: argparse.Namespace) -> None:
    """One question and its answer, then the counts of tokens on stderr.

    Raises:
        ServerError: the server refused, failed, or is no such server.
        httpx.HTTPError: the connection failed.
        OSError: the answer cannot be written.
    """
    try:
        body = request_body(flags, flags.model or client.get("/v1/models").json()["data"][0]["id"])
        usage = (_print_stream if flags.stream else _print_answer)(client, body, as_json=flags.json)
        counts = usage and f"[{usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} answer tokens]"
    except (ValueError, LookupError, TypeError, AttributeError):  # no JSON, or JSON of another shape
        shown = str(client.base_url).rstrip("/")
        raise ServerError(f"what answers at {shown} does not look like an OpenAI-compatible server") from None
    if counts and not flags.json:
        say(counts)


def request_body(flags: argparse.Namespace, model: str) -> dict[str, Any]:
    """The JSON of a chat request; flags that were not given are left to the server."""
    messages = [{"role": "system", "content": flags.system}] if flags.system else []
    messages.append({"role": "user", "content": flags.prompt})
    body = {"model": model, "messages": messages, "max_tokens": flags.max_tokens, "temperature": flags.temperature}
    body |= {"response_format": flags.schema, "structured_outputs": flags.choice and {"choice": flags.choice}}
    if flags.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return {name: value for name, value in body.items() if value is not None}


def _print_answer(client: httpx.Client, body: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Print the whole answer at once; its ``usage``, in tokens."""
    response = client.post("/v1/chat/completions", json=body)
    answer: dict[str, Any] = response.json()
    write_output(response.text + "\n" if as_json else (answer["choices"][0]["message"]["content"] or "") + "\n")
    return dict(answer.get("usage") or {})


def _print_stream(client: httpx.Client, body: dict[str, Any], *, as_json: bool) -> dict[str, Any] | None:
    """Print each piece of text, or the JSON of each event, as it comes; the ``usage`` of the last event."""
    usage = None
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        for chunk in _chunks(response):
            usage = chunk.get("usage") or usage
            text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            write_output(json.dumps(chunk) + "\n" if as_json else text)
    write_output("" if as_json else "\n")
    return usage


def _chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event.

    Raises:
        ServerError: an event is an error, or the stream ends without ``[DONE]``.
    """
    for line in response.iter_lines():
        if line == "data: [DONE]":
            return
        if line.removeprefix("data: ") not in (line, ""):
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise ServerError(f"the server gave up: {chunk['error']['message']}")
            yield chunk
    raise ServerError("the stream broke off")


def _check(response: httpx.Response) -> None:
    """Raises: ServerError with the server's own words for a status that is no success."""
    if not response.is_success:
        response.read()
        raise ServerError(f"the server answered {response.status_code}: {response.json()['error']['message']}")
