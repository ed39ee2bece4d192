"""Ask a running server one question: ``python query_fastapi.py --stream --prompt "Hello"``.

A small client of the OpenAI API on httpx, to try a server out and to read how streaming works. It knows nothing of the
server's code. Exit status: 0 answered, 1 the server refused or failed, 2 wrong flags, 3 no server there.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_TIMEOUT_S = 5.0


class ServerError(Exception):
    """The server answered with an error; the text says which."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status; what went wrong is one line on stderr."""
    flags = parse_flags(argv)
    headers = {"Authorization": f"Bearer {flags.api_key}"} if flags.api_key else {}
    # No limit on reading: a long answer on a slow machine takes its time.
    timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
    try:
        with httpx.Client(base_url=flags.url, headers=headers, timeout=timeout) as client:
            ask(client, flags)
    except ServerError as error:
        return fail(str(error), status=1)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return fail(f"no server answers at {flags.url}; start one with: python main.py serve", status=3)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return fail(f"the connection to {flags.url} failed: {error}", status=1)
    except KeyboardInterrupt:
        return fail("stopped", status=130)
    return 0


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; a wrong one ends the program with exit status 2."""
    parser = argparse.ArgumentParser(description="Ask a running server one question.")
    parser.add_argument("--prompt", default="Hello! Who are you?", help="Ask this (default: %(default)s).")
    parser.add_argument("--system", help="Put these instructions before the prompt (default: none).")
    parser.add_argument(
        "--stream", action="store_true", help="Print the answer as it is written (default: when it is complete)."
    )
    parser.add_argument("--url", default=DEFAULT_URL, help="Find the server here (default: %(default)s).")
    parser.add_argument("--model", help="Ask this model (default: the first that the server names).")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="End the answer after so many tokens (default: the server's)."
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="Draw at this temperature; 0 takes the likeliest token (default: the server's).",
    )
    parser.add_argument("--api-key", help="Send this API key (default: none).")
    parser.add_argument(
        "--json", action="store_true", help="Print the server's JSON as it is (default: its text alone)."
    )
    return parser.parse_args(argv)


def ask(client: httpx.Client, flags: argparse.Namespace) -> None:
    """One question and its answer, then the counts of tokens on stderr.

    Raises:
        ServerError: the server refuses or breaks off.
        httpx.HTTPError: the connection fails.
    """
    body = request_body(flags, flags.model or first_model(client))
    usage = (
        print_stream(client, body, as_json=flags.json)
        if flags.stream
        else print_answer(client, body, as_json=flags.json)
    )
    if usage and not flags.json:
        sys.stderr.write(f"[{usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} answer tokens]\n")


def first_model(client: httpx.Client) -> str:
    """Raises: ServerError if the server does not tell its models."""
    response = client.get("/v1/models")
    check(response)
    return str(response.json()["data"][0]["id"])


def request_body(flags: argparse.Namespace, model: str) -> dict[str, Any]:
    """The JSON of a chat request; flags that were not given are left to the server."""
    messages = [{"role": "system", "content": flags.system}] if flags.system else []
    messages.append({"role": "user", "content": flags.prompt})
    body = {"model": model, "messages": messages, "max_tokens": flags.max_tokens, "temperature": flags.temperature}
    if flags.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return {name: value for name, value in body.items() if value is not None}


def print_answer(client: httpx.Client, body: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Print the whole answer at once; its ``usage``, in tokens."""
    response = client.post("/v1/chat/completions", json=body)
    check(response)
    answer: dict[str, Any] = response.json()
    write(response.text + "\n" if as_json else answer["choices"][0]["message"]["content"] + "\n")
    return dict(answer["usage"])


def print_stream(client: httpx.Client, body: dict[str, Any], *, as_json: bool) -> dict[str, Any] | None:
    """Print each piece of text, or the JSON of each event, as it comes; the ``usage`` of the last event."""
    usage = None
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.is_error:
            response.read()
        check(response)
        for chunk in chunks(response):
            usage = chunk.get("usage") or usage
            text = "".join(choice["delta"].get("content", "") for choice in chunk["choices"])
            write(json.dumps(chunk) + "\n" if as_json else text)
    write("" if as_json else "\n")
    return usage


def chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event. Lines that begin with a colon only keep the connection alive.

    Raises:
        ServerError: an event with an error, or an end without ``[DONE]``.
    """
    for line in response.iter_lines():
        data = line.removeprefix("data: ")
        if data == line or not data:
            continue
        if data == "[DONE]":
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise ServerError(f"the server gave up: {chunk['error']['message']}")
        yield chunk
    raise ServerError("the stream broke off")


def check(response: httpx.Response) -> None:
    """Raises: ServerError with the server's own words for a status that is no success."""
    if response.is_success:
        return
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = "this does not look like an OpenAI-compatible server"
    raise ServerError(f"the server answered {response.status_code}: {message}")


def write(text: str) -> None:
    """Write to stdout now, not when a line is full."""
    sys.stdout.write(text)
    sys.stdout.flush()


def fail(message: str, *, status: int) -> int:
    """Write one line to stderr; returns ``status``."""
    sys.stderr.write(f"query_fastapi.py: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
