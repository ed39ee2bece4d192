"""The Host allow-list and the origins of web pages, in every spelling; CORS headers."""

import pytest

from openai_api.settings import ServerSettings
from openai_api.transport.access import PROBE_PATHS
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import JSON, Answer, Asgi, chat_body
from tests.openai_api.test_access import assert_error, every_call

ORIGIN = "https://app.example"


def assert_host_error(answer: Answer) -> None:
    assert_error(answer, 403, "host_not_allowed", "permission_error")
    assert "--allowed-host NAME" in answer.error["message"]


def assert_origin_error(answer: Answer) -> None:
    assert_error(answer, 403, "origin_not_allowed", "permission_error")
    assert "--allowed-origin ORIGIN" in answer.error["message"]


def status_for(asgi: Asgi, host: str) -> int:
    return asgi.request("GET", "/v1/models", headers={"host": host, "authorization": "Bearer k"}).status


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]", "0.0.0.0",
     "localhost:port", "localhost:123456", "localhost:65536", "localhost:*", "local host", "a@localhost", "[localhost]",
     "[127.0.0.1]", "::1", "localhost..", ".", "", "127.0.0.2", "127.0.0.1%x", "localhost,localhost", "http://localhost",
     "host.docker.internal", "\u00e9"],
)  # fmt: skip
def test_foreign_hosts_are_refused_everywhere_but_by_the_probes(asgi: Asgi, host: str) -> None:
    for method, path in every_call(asgi):
        answer = asgi.request(method, path, headers={"host": host, **JSON})
        if path in PROBE_PATHS:
            assert answer.status in {200, 405}
        else:
            assert_host_error(answer)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "Localhost.:8000", "localhost:", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.",
     "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]", "[0000::0001]:80", "[::1%lo]", "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]"],
)  # fmt: skip
def test_loopback_names_are_allowed_in_every_spelling_with_any_port(asgi: Asgi, host: str) -> None:
    assert status_for(asgi, host) == 200


def test_a_missing_or_repeated_host(asgi: Asgi) -> None:
    """A probe by HTTP/1.0 has none; elsewhere there must be one."""
    for headers in ({"host": None}, {"host": "localhost", "Host": "localhost"}):
        for path in PROBE_PATHS:
            assert asgi.request("GET", path, headers=headers).status == 200  # type: ignore[arg-type]
        assert_host_error(asgi.request("GET", "/v1/models", headers=headers))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bound", "allowed", "spellings"),
    [
        ("10.0.0.5", "Model.Lan.", ["10.0.0.5:8000", "model.lan", "MODEL.LAN:80", "model.lan.", "localhost"]),
        ("Box.Lan", "2001:DB8:0::1", ["box.lan", "[2001:db8::1]:8000", "[2001:0db8:0:0:0:0:0:1]"]),
        ("fe80::1%eth0", "my_service", ["[fe80::1]", "[fe80::1%25eth0]", "my_service:8000"]),
    ],
)
def test_the_bound_host_and_configured_ones_are_allowed(
    engine: FakeEngine, bound: str, allowed: str, spellings: list[str]
) -> None:
    asgi = Asgi(engine, ServerSettings(host=bound, allowed_hosts=(allowed,)))
    assert [status_for(asgi, host) for host in spellings] == [200] * len(spellings)
    for host in ("10.0.0.6", "model.lan.evil", "[2001:db8::2]"):
        assert status_for(asgi, host) == 403


def test_any_address_is_allowed_when_a_key_is_needed(engine: FakeEngine) -> None:
    """No page can point an address elsewhere; names stay refused."""
    asgi = Asgi(engine, ServerSettings(api_keys=("k",)))
    for host in ("192.168.1.20:8000", "10.244.0.5", "[2001:db8::7]:8000", "0.0.0.0:8000", "[fe80::1%25eth0]"):
        assert status_for(asgi, host) == 200
        assert asgi.request("GET", "/v1/models", headers={"host": host}).status == 401
    for host in ("gemma:8000", "evil.example", "192.168.1.20.evil.example", "192.168.1.256", "1.2.3"):
        assert_host_error(asgi.request("GET", "/v1/models", headers={"host": host, "authorization": "Bearer k"}))


@pytest.mark.parametrize(
    ("address", "host"),
    [("192.168.1.20", "192.168.1.20:8000"), ("2001:db8::7", "[2001:DB8::7]"), ("::ffff:10.0.0.5", "10.0.0.5")],
)
def test_without_a_key_the_address_of_the_connection_is_allowed(asgi: Asgi, address: str, host: str) -> None:
    reached = {"server": (address, 8000)}
    assert asgi.request("GET", "/v1/models", headers={"host": host}, connection=reached).status == 200
    for other in ("192.168.1.21", "evil.example", ""):
        assert_host_error(asgi.request("GET", "/v1/models", headers={"host": other}, connection=reached))
    for socket in (None, ("/run/server.sock", None), ("192.168.1.20", None)):
        assert_host_error(
            asgi.request("GET", "/v1/models", headers={"host": "192.168.1.20"}, connection={"server": socket})
        )


@pytest.mark.parametrize("probe", [{"host": "evil.example", "origin": ORIGIN}, {"sec-fetch-site": "cross-site"}])
def test_probes_are_not_for_web_pages_either(asgi: Asgi, probe: dict[str, str]) -> None:
    assert_origin_error(asgi.request("GET", "/health", headers=probe))


def test_origins_are_allowed_in_every_spelling(engine: FakeEngine) -> None:
    configured = ("HTTPS://App.Example:443/", "http://localhost:*", "http://[::1]:3000", "tauri://localhost")
    asgi = Asgi(engine, ServerSettings(allowed_origins=configured))
    for origin in (
        ORIGIN,
        "https://app.example:443",
        "https://APP.example",
        "http://localhost",
        "http://localhost:3000",
        "http://localhost:65535",
        "http://[::1]:3000",
        "tauri://localhost",
    ):
        answer = asgi.request("GET", "/v1/models", headers={"origin": origin})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, origin)
    for origin in (
        "http://app.example",
        "https://app.example:444",
        "https://app.example/",
        "https://app.example.evil",
        "https://user@app.example",
        "https://localhost:3000",
        "http://localhost:*",
        "http://localhost.evil:3000",
        "http://127.0.0.1:3000",
        "http://[::1]",
        "tauri://localhost:1",
        "null",
        "file://",
    ):
        refused = asgi.request("GET", "/v1/models", headers={"origin": origin})
        assert_origin_error(refused)
        assert not any(name.startswith("access-control") for name in refused.headers)


def test_a_setting_that_no_header_has_is_an_error(engine: FakeEngine) -> None:
    for host in ("*", "", "gemma:8000", "http://gemma"):
        with pytest.raises(ValueError, match="exact"):
            Asgi(engine, ServerSettings(allowed_hosts=(host,)))
    for origin in ("*", "null", "app.example", "https://app.example/path"):
        with pytest.raises(ValueError, match="exact"):
            Asgi(engine, ServerSettings(allowed_origins=(origin,)))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("localhost:80", "http://localhost"),
        ("LOCALHOST", "https://localhost"),
    ],
)
def test_the_servers_own_pages_are_known_in_every_spelling(asgi: Asgi, host: str, origin: str) -> None:
    assert asgi.request("GET", "/v1/models", headers={"host": host, "origin": origin}).status == 200
    for other in ("http://localhost:8001", "http://127.0.0.1:8000", "null", "http://none", "http://"):
        assert_origin_error(asgi.request("GET", "/v1/models", headers={"host": host, "origin": other}))


def test_a_configured_origin_gets_cors_headers(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(allowed_origins=(ORIGIN,), api_keys=("secret",)))
    headers = {"origin": ORIGIN, "sec-fetch-site": "cross-site"}
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-stainless-os"}
    preflight = asgi.request("OPTIONS", "/v1/chat/completions", headers={**headers, **ask})
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert preflight.headers["access-control-allow-methods"] == "GET, POST, DELETE"
    assert preflight.headers["access-control-allow-headers"] == ask["access-control-request-headers"]
    assert "access-control-allow-private-network" not in preflight.headers
    for other in ("https://app.example.evil", "http://app.example", "https://app.example:444"):
        assert asgi.request("OPTIONS", "/v1/models", headers={**ask, "origin": other}).status == 403


def test_a_private_network_is_opened_to_a_page_that_asks(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(allowed_origins=(ORIGIN,)))
    ask = {"access-control-request-method": "POST", "access-control-request-private-network": "true"}
    preflight = asgi.request("OPTIONS", "/v1/chat/completions", headers={"origin": ORIGIN, **ask})
    assert preflight.headers["access-control-allow-private-network"] == "true"
    foreign = asgi.request("OPTIONS", "/v1/chat/completions", headers={"origin": "https://evil.example", **ask})
    assert_origin_error(foreign)
    assert not any(name.startswith("access-control") for name in foreign.headers)


def test_a_page_can_read_every_error(engine: FakeEngine) -> None:
    """Without the headers a browser shows it a network failure in place of the status."""
    asgi = Asgi(engine, ServerSettings(allowed_origins=(ORIGIN,), api_keys=("k",), max_body_bytes=300))
    page = {"origin": ORIGIN, "sec-fetch-site": "cross-site", **JSON}
    with_key = {**page, "authorization": "Bearer k"}

    def post(body: bytes, headers: dict[str, str] = with_key) -> Answer:
        return asgi.request("POST", "/v1/chat/completions", body, headers)

    answers = [post(b"{}", page), post(b"{"), post(b" " * 301), asgi.request("GET", "/nowhere", headers=with_key)]
    answers.append(asgi.request("GET", "/v1/models", headers={**with_key, "host": "evil.example"}))
    answers.append(asgi.request("DELETE", "/v1/models", headers=with_key))
    engine.script = Script(fail=RuntimeError("a fault of ours"))
    answers.append(post(str(chat_body()).replace("'", '"').encode()))
    engine.status = type(engine.status).DRAINING
    answers.append(post(b"{}"))
    assert [answer.status for answer in answers] == [401, 400, 413, 404, 403, 405, 500, 503]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Origin" in answer.headers["vary"]
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
