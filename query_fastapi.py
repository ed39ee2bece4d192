"""Ask a running server one question: ``python query_fastapi.py --stream --prompt "Hello"``.

A small client of the OpenAI API on httpx, to try a server out and to read how streaming works. It knows nothing of the
server's code. Exit status: 0 answered, 1 the server refused or failed, 2 wrong use or an answer that cannot be written,
3 no server there, 130 Ctrl-C, 141 nobody reads the answer any more.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # While the rest is imported, Ctrl-C ends the process at once; then it is an exception again.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any, NoReturn

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"


class UseError(Exception):
    """A flag, the standard input or the standard output cannot be used; the text says why."""


class ServerError(Exception):
    """The server answered with an error; the text says which."""


class FlagParser(argparse.ArgumentParser):
    """A wrong flag is one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"query_fastapi.py: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status; what went wrong is one line on stderr."""
    prepare_streams()
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return ask_at(parse_flags(argv))
    except (UseError, ServerError) as error:
        return fail(str(error), status=2 if isinstance(error, UseError) else 1)
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt:
        return fail("stopped", status=130)
    except (MemoryError, OSError, ImportError) as error:  # of certificates or proxies that are set up wrongly
        return fail(str(error) or "there is not enough memory here", status=2)


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags, prompt and files read and the address checked. Raises: UseError, or SystemExit for a wrong flag."""
    try:
        flags = flag_parser().parse_args(argv)
    finally:
        write("")  # argparse does not miss a help text that cannot be written
    if flags.prompt == "-":
        flags.prompt = sys.stdin.read().removesuffix("\n")
    if not flags.prompt.strip():
        raise UseError("the prompt is empty")
    for name in ("prompt", "system", "model", "choice"):
        # Python gives bytes that are no UTF-8 as lone surrogates.
        if any("\ud800" <= char <= "\udfff" for char in "".join(getattr(flags, name) or "")):
            raise UseError(f"--{name} holds bytes that are no UTF-8 text")
    if not all("!" <= char <= "~" for char in flags.api_key or ""):
        raise UseError("--api-key is ASCII without spaces")
    if not math.isfinite(flags.temperature or 0):
        raise UseError(f"--temperature {flags.temperature} is no number that JSON has")
    return flags


def flag_parser() -> argparse.ArgumentParser:
    parser = FlagParser(prog="query_fastapi.py", description="Ask a running server one question.", add_help=False)
    add = parser.add_argument
    add("-h", "--help", action="help", help="Show this text (default: ask).")
    add("--version", action="version", version=version(), help="Show the version (default: ask).")
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


def version() -> str:
    """That of the project, which this file comes with."""
    with suppress(metadata.PackageNotFoundError):
        return f"gemma3-270m-server {metadata.version('gemma3-270m-server')}"
    return "gemma3-270m-server, not installed"


def format_of(name: str) -> dict[str, Any]:
    """The ``response_format`` with the schema in a file, which the server will judge. Raises: UseError."""
    try:
        with open(name, encoding="utf-8-sig") as file:
            named = {"name": "answer", "schema": json.load(file), "strict": True}
        json.dumps(named, ensure_ascii=False, allow_nan=False).encode()  # as it will be sent
    except OSError as error:
        raise UseError(f"--schema {name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UseError(f"--schema {name} is not JSON: {error}") from None
    return {"type": "json_schema", "json_schema": named}


def server_url(text: str) -> httpx.URL:
    """The address without the ``/v1`` that other clients want there. Raises: UseError."""
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or " " in text or not 0 < (url.port or 1) < 2**16:
        raise UseError(f"--url {text[:200]!r} is no address such as {DEFAULT_URL}")
    path = url.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1").rstrip("/")
    return url.copy_with(path=path or "/", query=None, fragment=None)


def ask_at(flags: argparse.Namespace) -> int:
    """Ask the server; the exit status. Raises: UseError, ServerError."""
    url, shown = flags.url, str(flags.url).rstrip("/")
    headers = {"Authorization": f"Bearer {flags.api_key}"} if flags.api_key else {}
    # No limit on reading: a long answer on a slow machine takes its time.
    timeout = httpx.Timeout(None, connect=5.0)
    hooks: dict[str, list[Any]] = {"response": [check]}
    # HTTP_PROXY and its like do not lead to this machine.
    is_here = url.host in ("localhost", "::", "::1") or url.host.startswith(("127.", "::ffff:127.", "0.0.0.0"))  # noqa: S104  of a client
    try:
        client = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=not is_here, event_hooks=hooks)
    except ValueError as error:
        raise UseError(f"a variable such as HTTP_PROXY cannot be used: {error}") from None
    try:
        with client:
            ask(client, flags)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return fail(f"no server answers at {shown}; start one with: python main.py serve", status=3)
    except httpx.HTTPError as error:
        return fail(f"the connection to {shown} failed: {error}", status=1)
    except (ValueError, LookupError, TypeError, AttributeError):  # no JSON, or JSON of another shape
        return fail(f"what answers at {shown} does not look like an OpenAI-compatible server", status=1)
    return 0


def ask(client: httpx.Client, flags: argparse.Namespace) -> None:
    """One question and its answer, then the counts of tokens on stderr. Raises: ServerError, httpx.HTTPError."""
    body = request_body(flags, flags.model or client.get("/v1/models").json()["data"][0]["id"])
    usage = (print_stream if flags.stream else print_answer)(client, body, as_json=flags.json)
    if usage and not flags.json:
        sys.stderr.write(f"[{usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} answer tokens]\n")


def request_body(flags: argparse.Namespace, model: str) -> dict[str, Any]:
    """The JSON of a chat request; flags that were not given are left to the server."""
    messages = [{"role": "system", "content": flags.system}] if flags.system else []
    messages.append({"role": "user", "content": flags.prompt})
    body = {"model": model, "messages": messages, "max_tokens": flags.max_tokens, "temperature": flags.temperature}
    body |= {"response_format": flags.schema, "structured_outputs": flags.choice and {"choice": flags.choice}}
    if flags.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return {name: value for name, value in body.items() if value is not None}


def print_answer(client: httpx.Client, body: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Print the whole answer at once; its ``usage``, in tokens."""
    response = client.post("/v1/chat/completions", json=body)
    answer: dict[str, Any] = response.json()
    write(response.text + "\n" if as_json else (answer["choices"][0]["message"]["content"] or "") + "\n")
    return dict(answer.get("usage") or {})


def print_stream(client: httpx.Client, body: dict[str, Any], *, as_json: bool) -> dict[str, Any] | None:
    """Print each piece of text, or the JSON of each event, as it comes; the ``usage`` of the last event."""
    usage = None
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        for chunk in chunks(response):
            usage = chunk.get("usage") or usage
            text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            write(json.dumps(chunk) + "\n" if as_json else text)
    write("" if as_json else "\n")
    return usage


def chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event. Raises: ServerError for one with an error, or an end without ``[DONE]``."""
    for line in response.iter_lines():
        if line == "data: [DONE]":
            return
        if line.removeprefix("data: ") not in (line, ""):
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise ServerError(f"the server gave up: {chunk['error']['message']}")
            yield chunk
    raise ServerError("the stream broke off")


def check(response: httpx.Response) -> None:
    """Raises: ServerError with the server's own words for a status that is no success."""
    if not response.is_success:
        response.read()
        raise ServerError(f"the server answered {response.status_code}: {response.json()['error']['message']}")


def prepare_streams() -> None:
    """Put a file in the place of a stream that was closed, and let no byte be an error by itself."""
    for name, flags, mode in (("stdin", os.O_RDWR, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_RDWR, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, closefd=False))
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def write(text: str) -> None:
    """Write to stdout now, not when a line is full. Raises: UseError, or BrokenPipeError if nobody reads it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # what is left of it would be a traceback when the interpreter ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise UseError(f"the standard output cannot be written: {error.strerror}") from None


def fail(message: str, *, status: int) -> int:
    """Write one line to stderr; returns ``status``."""
    with suppress(OSError):
        sys.stderr.write(f"query_fastapi.py: {' '.join(message.split())}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
