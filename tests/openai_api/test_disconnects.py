"""A client that goes away: its request is aborted in every phase, and nothing else is."""

import json
import socket
import struct
import threading
from typing import Any

import httpx

from tests.openai_api.anthropic_bodies import message_body
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import MESSAGES, LiveServer, chat_body, completion_body, events_of, wait_until

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
# (what the request is doing when the client leaves, how the engine behaves)
PHASES = {
    "queued": Script(queue_s=30),
    "prefill": Script(prefill_s=30),
    "decode": Script(token_s=0.03, text="x" * 3000),
}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, chat_body()),
    "chat stream": (CHAT, chat_body(stream=True)),
    "completion": (COMPLETIONS, completion_body()),
    "completion stream": (COMPLETIONS, completion_body(stream=True)),
    "message": ("/v1/messages", message_body()),
    "message stream": ("/v1/messages", message_body(stream=True)),
    "response": (RESPONSES, {"input": "Hi"}),
    "response stream": (RESPONSES, {"input": "Hi", "stream": True}),
    "many prompts": (COMPLETIONS, completion_body(prompt=["a", "b", "c"])),
    "many prompts stream": (COMPLETIONS, completion_body(prompt=["a", "b", "c"], stream=True)),
    "ollama chat stream": ("/api/chat", {"messages": MESSAGES}),
    "ollama generate": ("/api/generate", {"prompt": "Hi", "stream": False}),
}


def send(live: LiveServer, path: str, body: dict[str, Any]) -> socket.socket:
    sock = socket.create_connection((live.host, live.port), timeout=10)
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content)
    return sock


def reset(sock: socket.socket) -> None:
    """Close with RST, as a killed client does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_aborted_in_every_phase(live: LiveServer, engine: FakeEngine) -> None:
    for phase, script in PHASES.items():
        engine.script = script
        for name, (path, body) in REQUESTS.items():
            for close in (socket.socket.close, reset):
                engine.aborted.clear()
                num_prompts = len(body["prompt"]) if isinstance(body.get("prompt"), list) else 1
                sock = send(live, path, body)
                where = engine.waiting if phase == "queued" else engine.running
                wait_until(lambda where=where, n=num_prompts: len(where) == n)  # type: ignore[misc]
                if phase == "decode" and "stream" in name:
                    assert sock.recv(100)
                close(sock)
                wait_until(lambda n=num_prompts: len(engine.aborted) == n)  # type: ignore[misc]
                assert not engine.running
                assert not engine.waiting


def test_neighbours_of_one_that_leaves_are_answered(live: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(token_s=0.03)
    answers: list[str] = []

    def ask() -> None:
        answer = httpx.post(live.url + CHAT, json=chat_body(stream=True), timeout=20)
        answers.append(events_of(answer.text)[-1])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    leavers = [send(live, CHAT, chat_body(stream=True, max_tokens=50)) for _ in range(4)]
    wait_until(lambda: len(engine.calls) == 8)
    for sock in leavers:
        sock.close()
    for thread in threads:
        thread.join()
    assert answers == ["[DONE]"] * 4
    wait_until(lambda: len(engine.aborted) == 4)


def test_a_client_that_leaves_while_sending_its_body(live: LiveServer, engine: FakeEngine) -> None:
    for _ in range(3):
        with socket.create_connection((live.host, live.port), timeout=10) as sock:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            sock.sendall(head.encode() + b"Content-Length: 1000\r\n\r\n{")
    assert httpx.get(f"{live.url}/health").status_code == 200
    assert engine.calls == []


def test_nothing_is_left_after_many_requests(live: LiveServer, engine: FakeEngine) -> None:
    engine.script = Script(token_s=0.001)

    def ask(number: int) -> None:
        for i in range(12):
            sock = send(live, CHAT, chat_body(stream=i % 2 == 0))
            if (i + number) % 3:
                sock.recv(200)
            sock.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: not engine.running and not engine.waiting)
    text = httpx.get(f"{live.url}/metrics").text
    assert "gemma3:http_requests_in_flight 1.0" in text  # this one
