"""Whose turn it is and whose prefixes may be found: what the engine is told of a caller."""

import httpx
import pytest

from engine.caller import ANYBODY, Caller
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import FakeEngine
from tests.openai_api.harness import JSON, Asgi, LiveServer, chat_body, live_server

CHAT = "/v1/chat/completions"
BODY = b'{"model": "gemma-3-270m-it", "messages": [{"role": "user", "content": "Hi"}]}'


def caller_with(asgi: Asgi, *, key: str = "", client: object = ("127.0.0.1", 1)) -> Caller:
    headers = {**JSON, **({"authorization": f"Bearer {key}"} if key else {})}
    assert asgi.request("POST", CHAT, BODY, headers, {"client": client}).status == 200
    return asgi.engine.calls[-1].caller


def test_each_key_is_a_caller_with_prefixes_of_its_own(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(api_keys=("key-of-a", "key-of-b")))
    a, b = caller_with(asgi, key="key-of-a"), caller_with(asgi, key="key-of-b")
    assert a.name != b.name
    assert a.prefix_salt != b.prefix_salt
    assert a == caller_with(asgi, key="key-of-a", client=("192.168.1.9", 5))  # wherever it comes from
    for caller in (a, b):
        assert caller.prefix_salt
        assert "key-of" not in f"{caller}"


def test_no_key_shares_a_salt_with_a_request(engine: FakeEngine) -> None:
    """With --no-prefix-caching the engine salts with ids of requests, which have no space in them."""
    asgi = Asgi(engine, ServerSettings(api_keys=("k",)))
    assert " " in caller_with(asgi, key="k").prefix_salt
    assert " " not in engine.calls[-1].request_id


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("2001:db8:1:2::3", "2001:db8:1:2:ffff::4", True),
        ("2001:db8:1:2::3", "2001:db8:1:3::3", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
    ],
)
def test_without_keys_an_address_is_a_caller(asgi: Asgi, one: str, other: str, is_same: bool) -> None:
    first, second = (caller_with(asgi, client=(address, 40000 + i)) for i, address in enumerate((one, other)))
    assert first.name
    assert (first == second) == is_same
    assert first.prefix_salt == second.prefix_salt == ""


@pytest.mark.parametrize("client", [None, ("", 0)])
def test_a_unix_socket_is_one_caller(asgi: Asgi, client: object) -> None:
    assert caller_with(asgi, client=client) == ANYBODY


def test_a_client_cannot_say_who_it_is(asgi: Asgi) -> None:
    for name in ("x-forwarded-for", "forwarded", "x-real-ip", "authorization"):
        asgi.request("POST", CHAT, BODY, {**JSON, name: "10.0.0.9"})
    assert len({call.caller for call in asgi.engine.calls}) == 1


def test_two_addresses_over_real_connections(live: LiveServer, engine: FakeEngine) -> None:
    for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as client:
            assert client.post(live.url + CHAT, json=chat_body()).status_code == 200
    assert [call.caller.name for call in engine.calls] == [f"address 127.0.0.{i}" for i in (1, 2, 1)]


def test_a_refused_request_leaves_its_connection_and_others_alone(engine: FakeEngine) -> None:
    with live_server(engine, ServerSettings(api_keys=("k",))) as live, httpx.Client(base_url=live.url) as client:
        twice = [("authorization", "Bearer k"), ("authorization", "Bearer k")]
        for _ in range(2):
            refused = client.post(CHAT, json=chat_body(), headers=twice)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
            answer = client.post(CHAT, json=chat_body(), headers={"authorization": "Bearer k"})
            assert answer.status_code == 200
        assert client.head("/health").content == b""
        assert client.head("/v1/models", headers={"authorization": "Bearer k"}).headers["content-length"] != "0"
