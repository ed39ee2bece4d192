"""Responses that are kept: who finds them, how long, and what becomes of an answer that cannot be kept."""

import asyncio
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response, ResponseItem
from pydantic import TypeAdapter

from openai_api.response_database import FILE_NAME, ResponseDatabase
from openai_api.response_store import MemoryStore, ResponseStore, StoredResponse, StoreError
from openai_api.settings import OptionError, ServerSettings
from tests.openai_api.fake_engine import FakeEngine, Script
from tests.openai_api.harness import JSON, Answer, Asgi
from tests.openai_api.test_responses import RESPONSES, TOOLS, ask, events_of
from tests.openai_api.test_tools import TWO_CALLS

ITEM = TypeAdapter[Any](ResponseItem)
MakeStore = Callable[..., ResponseStore]


@pytest.fixture(params=["memory", "disk"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    def make(max_bytes: int = 1000) -> ResponseStore:
        if request.param == "memory":
            return MemoryStore(max_responses=100, max_bytes=max_bytes)
        return ResponseDatabase(str(tmp_path / "data"), max_bytes=max_bytes)

    return make


def stored(num_bytes: int) -> StoredResponse:
    return StoredResponse(b"x" * (num_bytes - 2), b"[]")


async def kept(store: ResponseStore, names: list[tuple[str, str]]) -> list[str]:
    found = [(response_id, await store.get(owner, response_id)) for owner, response_id in names]
    return [response_id for response_id, response in found if response is not None]


def test_the_owner_of_the_most_bytes_loses_what_it_used_least_recently(make_store: MakeStore) -> None:
    async def run() -> None:
        store = make_store()
        names = [("a", f"r{number}") for number in range(6)]
        await store.put("b", "other", stored(150))
        for number, (owner, name) in enumerate(names):
            await store.put(owner, name, stored(200))
            if number == 3:
                assert await store.get("a", "r0") is not None  # used anew
        assert await kept(store, [*names, ("b", "other")]) == ["r0", "r3", "r4", "r5", "other"]
        with pytest.raises(StoreError):
            await store.put("b", "large", stored(1001))
        assert await store.get("b", "r5") is None
        assert not await store.delete("b", "r5")
        assert await store.delete("a", "r5")
        assert await kept(store, names) == ["r0", "r3", "r4"]
        await store.put("b", "more", stored(200))  # in the room that is free now
        assert await kept(store, [*names, ("b", "other"), ("b", "more")]) == ["r0", "r3", "r4", "other", "more"]
        await store.close()

    asyncio.run(run())


def test_memory_holds_so_many() -> None:
    async def run() -> None:
        store = MemoryStore(max_responses=3, max_bytes=1000)
        for number in range(10):
            await store.put("a", str(number), stored(10))
        assert await kept(store, [("a", str(number)) for number in range(10)]) == ["7", "8", "9"]

    asyncio.run(run())


KILLED = """
import asyncio, os, signal, sys
from openai_api.response_database import ResponseDatabase
from openai_api.response_store import StoredResponse
async def run():
    store = ResponseDatabase(sys.argv[1], max_bytes=1000)
    await store.put("a", "resp_1", StoredResponse(b"{}", b"[]"))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(run())
"""
OPENED = "import sys; from openai_api.response_database import ResponseDatabase as D; D(sys.argv[1], max_bytes=1)"


def test_a_kill_loses_nothing_and_frees_the_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    assert subprocess.run([sys.executable, "-c", KILLED, folder], timeout=60, check=False).returncode == -9
    store = ResponseDatabase(folder, max_bytes=1000)
    assert asyncio.run(store.get("a", "resp_1")) == StoredResponse(b"{}", b"[]")
    asyncio.run(store.close())


def test_a_folder_is_one_servers_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store = ResponseDatabase(str(folder), max_bytes=1000)
    asyncio.run(store.put("a", "r", stored(10)))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    for _ in range(2):
        with pytest.raises(OptionError, match="another server is using it"):
            ResponseDatabase(str(folder), max_bytes=1000)
        done = subprocess.run([sys.executable, "-c", OPENED, str(folder)], capture_output=True, text=True, timeout=60)
        assert "another server is using it" in done.stderr
    asyncio.run(store.close())
    asyncio.run(ResponseDatabase(str(folder), max_bytes=1000).close())


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / FILE_NAME).write_text("no database" * 1000)
    (tmp_path / "newer").mkdir()
    newer = sqlite3.connect(tmp_path / "newer" / FILE_NAME)
    newer.execute("PRAGMA user_version = 7")
    newer.close()
    reasons = {"file": "no folder", "file/x": "Not a directory", "damaged": "damaged", "newer": "another version"}
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        reasons["closed"] = "Permission denied"
    for name, reason in reasons.items():
        with pytest.raises(OptionError, match=f"--data-dir .*{name}' cannot be used: .*{reason}"):
            ResponseDatabase(str(tmp_path / name), max_bytes=1000)


def test_a_full_disk_is_told_of(tmp_path: Path) -> None:
    store = ResponseDatabase(str(tmp_path), max_bytes=10**9)
    store._file.execute("PRAGMA max_page_count = 8")

    async def run() -> None:
        await store.put("a", "small", stored(10))
        for _ in range(2):
            with pytest.raises(StoreError, match="no space left"):
                await store.put("a", "large", stored(100_000))
        assert await kept(store, [("a", "small"), ("a", "large")]) == ["small"]
        await store.close()

    asyncio.run(run())


class FullStore(MemoryStore):
    async def put(self, owner: str, response_id: str, stored: StoredResponse) -> None:
        raise StoreError("there is no space left")


def test_an_answer_that_cannot_be_kept_says_so(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_api.app.MemoryStore", FullStore)
    asgi = Asgi(engine, ServerSettings())
    whole = ask(asgi)
    last = events_of(ask(asgi, stream=True))[-1]
    assert last["type"] == "response.completed"
    for response in (whole.json, last["response"]):
        Response.model_validate(response)
        assert (response["status"], response["store"]) == ("completed", False)
        assert asgi.get(f"{RESPONSES}/{response['id']}").status == 404


def test_a_response_goes_on_from_another(asgi: Asgi, engine: FakeEngine) -> None:
    first = events_of(ask(asgi, instructions="Be brief.", stream=True))[-1]["response"]
    second = ask(asgi, input="And?", previous_response_id=first["id"]).json
    assert second["previous_response_id"] == first["id"]
    ask(asgi, input="So?", previous_response_id=second["id"])
    rendered = [(message.role, message.content) for message in engine.rendered[-1]]
    text = first["output"][0]["content"][0]["text"]
    assert rendered == [("user", "Hi"), ("assistant", text), ("user", "And?"), ("assistant", text), ("user", "So?")]
    asgi.request("DELETE", f"{RESPONSES}/{first['id']}")
    assert ask(asgi, input="So?", previous_response_id=second["id"]).status == 200
    assert ask(asgi, previous_response_id=first["id"]).error["code"] == "previous_response_not_found"


def test_calls_go_on_by_id_and_by_reference(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=TWO_CALLS)
    first = ask(asgi, tools=TOOLS).json
    message, weather, now = first["output"]
    outputs = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": call["name"]} for call in (weather, now)
    ]
    by_id = ask(asgi, tools=TOOLS, input=outputs, previous_response_id=first["id"])
    by_items = ask(asgi, tools=TOOLS, input=[{"role": "user", "content": "Hi"}, *first["output"], *outputs])
    references = [{"type": "item_reference", "id": item["id"]} for item in (message, weather)] + [{"id": now["id"]}]
    by_reference = ask(asgi, tools=TOOLS, input=[{"role": "user", "content": "Hi"}, *references, *outputs])
    assert {by_id.status, by_items.status, by_reference.status} == {200}
    assert engine.rendered[-1] == engine.rendered[-2] == engine.rendered[-3]
    wrong = ask(asgi, input=[{**outputs[0], "call_id": "call_x"}], previous_response_id=first["id"])
    assert wrong.error["param"] == "input[0].call_id"


def test_what_is_not_to_be_stored_is_not_there(asgi: Asgi) -> None:
    response = ask(asgi, store=False).json
    assert response["store"] is False
    assert asgi.get(f"{RESPONSES}/{response['id']}").error["code"] == "response_not_found"
    assert ask(asgi, previous_response_id=response["id"]).status == 400


def query(asgi: Asgi, path: str, text: str) -> Answer:
    return asgi.request("GET", path, connection={"query_string": text.encode()})


def test_retrieved_cancelled_and_deleted(asgi: Asgi) -> None:
    response = ask(asgi).json
    path = f"{RESPONSES}/{response['id']}"
    assert asgi.get(path).json == response
    assert query(asgi, path, "stream=false&include[]=x").json == response
    assert query(asgi, path, "stream=true").error["param"] == "stream"
    assert asgi.request("POST", f"{path}/cancel").error["code"] == "invalid_value"
    assert asgi.request("DELETE", path).json == {"id": response["id"], "object": "response", "deleted": True}
    for method, gone in (("GET", path), ("DELETE", path), ("POST", f"{path}/cancel"), ("GET", f"{path}/input_items")):
        answer = asgi.request(method, gone, headers=JSON)
        assert (answer.status, answer.error["code"]) == (404, "response_not_found")


def test_pages_of_input_items(asgi: Asgi) -> None:
    items = [{"role": role, "content": f"{number}"} for number in range(3) for role in ("user", "assistant")]
    path = f"{RESPONSES}/{ask(asgi, input=items).json['id']}/input_items"
    newest_first = asgi.get(path).json
    assert (newest_first["object"], newest_first["has_more"]) == ("list", False)
    assert [item["content"][0]["text"] for item in newest_first["data"]] == ["2", "2", "1", "1", "0", "0"]
    for item in newest_first["data"]:
        ITEM.validate_python(item)
    ids = [item["id"] for item in newest_first["data"]]
    assert len(set(ids)) == 6
    for order, expected in (("desc", ids), ("asc", ids[::-1])):
        got: list[str] = []
        while True:
            after = f"&after={got[-1]}" if got else ""
            page = query(asgi, path, f"limit=4&order={order}{after}").json
            got += [item["id"] for item in page["data"]]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            if not page["has_more"]:
                break
        assert got == expected
    for wrong, param in (("limit=0", "limit"), ("limit=x", "limit"), ("order=x", "order"), ("after=x", "after")):
        assert query(asgi, path, wrong).error["param"] == param


def test_each_key_finds_its_own(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(api_keys=("one", "two")))

    def call(key: str, method: str, path: str, body: Any = None) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        return asgi.request(method, path, content, {**JSON, "authorization": f"Bearer {key}"})

    response = call("one", "POST", RESPONSES, {"input": "Hi"}).json
    path = f"{RESPONSES}/{response['id']}"
    for method, other in (("GET", path), ("DELETE", path), ("GET", f"{path}/input_items"), ("POST", f"{path}/cancel")):
        assert call("two", method, other).status == 404
    further = {"input": "And?", "previous_response_id": response["id"]}
    assert call("two", "POST", RESPONSES, further).error["code"] == "previous_response_not_found"
    reference = {"input": [{"type": "item_reference", "id": response["output"][0]["id"]}]}
    assert call("two", "POST", RESPONSES, reference).status == 404
    assert call("one", "POST", RESPONSES, further).status == 200
    assert call("one", "GET", path).json == response


def test_keys_in_another_order_own_the_same(tmp_path: Path, engine: FakeEngine) -> None:
    ids = []
    for keys in (("one", "two"), ("two", "one")):
        asgi = Asgi(engine, ServerSettings(api_keys=keys, data_dir=str(tmp_path)))
        headers = {**JSON, "authorization": "Bearer one"}
        ids.append(asgi.request("POST", RESPONSES, b'{"input": "Hi"}', headers).json["id"])
        for response_id in ids:
            assert asgi.request("GET", f"{RESPONSES}/{response_id}", headers=headers).status == 200
        asyncio.run(asgi.app.state.app_state.responses.close())


def test_a_stream_that_nobody_reads_to_its_end_is_not_kept(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(fail=ConnectionError("x"), fail_at=2)
    events = events_of(ask(asgi, stream=True))
    assert asgi.get(f"{RESPONSES}/{events[0]['response']['id']}").status == 404
