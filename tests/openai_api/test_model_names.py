"""The names of the one model: several of its own, or whatever a client has for it; and what vLLM's clients ask of a server."""

import pytest

from engine.engine_info import EngineStatus
from gemma3 import __version__
from openai_api.access_flags import settings_from
from openai_api.command_line import engine_options, parse_flags
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine
from tests.openai_api.harness import Asgi, chat_body, chunks_of, completion_body

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SEVERAL = ServerSettings(served_model_names=(MODEL_ID, "gpt-4o-mini", "google/gemma"))
ANY = ServerSettings(serves_any_model_name=True)


def listed(asgi: Asgi) -> list[str]:
    return [card["id"] for card in asgi.get("/v1/models").json["data"]]


def test_every_name_is_listed_found_and_served(engine: FakeEngine) -> None:
    """An answer carries the name that was asked for, whole and in every chunk."""
    asgi = Asgi(engine, SEVERAL)
    assert listed(asgi) == [MODEL_ID, "gpt-4o-mini", "google/gemma"]
    for name in SEVERAL.served_model_names:
        assert asgi.get(f"/v1/models/{name}").json["id"] == name
        assert asgi.post(CHAT, chat_body() | {"model": name}).json["model"] == name
        assert asgi.post(COMPLETIONS, completion_body() | {"model": name}).json["model"] == name
        stream = asgi.post(CHAT, chat_body(stream=True) | {"model": name})
        assert {chunk["model"] for chunk in chunks_of(stream.body)} == {name}
        assert asgi.post("/tokenize", {"prompt": "a", "model": name}).status == 200
    for answer in (asgi.post(CHAT, chat_body() | {"model": "gpt-4"}), asgi.get("/v1/models/gpt-4")):
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
        assert "'gpt-4o-mini', 'google/gemma'" in answer.error["message"]


def test_any_name_is_served_if_one_says_so(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ANY)
    assert listed(asgi) == [MODEL_ID]
    for name in ("gpt-4", 'x/\u4e2d "quoted"', MODEL_ID, "y" * 256):
        assert asgi.post(CHAT, chat_body() | {"model": name}).json["model"] == name
        stream = asgi.post(COMPLETIONS, completion_body(stream=True) | {"model": name})
        assert {chunk["model"] for chunk in chunks_of(stream.body)} == {name}
    assert asgi.get("/v1/models/gpt-4").json["id"] == "gpt-4"
    for bad in ("y" * 257, 4, ["gpt-4"]):
        answer = asgi.post(CHAT, chat_body() | {"model": bad})
        assert (answer.status, answer.error["param"]) == (400, "model"), bad


def test_names_on_the_command_line() -> None:
    """One flag with several names, or several flags, as vLLM takes them; the first is the engine's."""
    for argv in (["--served-model-name", "a", "b/c", "a"], ["--served-model-name", "a", "--served-model-name", "b/c"]):
        flags = parse_flags(argv)
        assert settings_from(flags, {}).served_model_names == ("a", "b/c")
        assert engine_options(flags).served_model_name == "a"
    flags = parse_flags([])
    assert (settings_from(flags, {}).served_model_names, engine_options(flags).served_model_name) == ((), None)
    assert not settings_from(flags, {}).serves_any_model_name
    assert settings_from(parse_flags(["--any-model-name"]), {}).serves_any_model_name


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 257])
def test_what_is_no_name_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_flags(["--served-model-name", "a", name])
    assert "is not a name of 1 to 256 printable characters" in capsys.readouterr().err


def test_the_version_is_told_at_once(asgi: Asgi, engine: FakeEngine) -> None:
    engine.status = EngineStatus.LOADING
    assert asgi.get("/version").json == {"version": __version__}


def test_the_tokenizer_is_told_as_lm_eval_reads_it(asgi: Asgi, engine: FakeEngine) -> None:
    """Its client asks for the ids of the names so, and joins a chat by the template."""
    info = asgi.get("/tokenizer_info").json
    assert info["tokenizer_class"] == "GemmaTokenizer"
    assert info["chat_template"] == "{{ messages }}"
    assert (info["add_bos_token"], info["add_eos_token"]) == (True, False)
    assert info["model_max_length"] == engine.info.max_model_len
    ids = {
        name: asgi.post("/tokenize", {"prompt": info[name], "add_special_tokens": False}).json["tokens"]
        for name in ("bos_token", "eos_token", "pad_token", "unk_token")
    }
    tokenizer = engine.tokenizer
    assert ids == {
        "bos_token": [tokenizer.bos_token_id],
        "eos_token": [tokenizer.eos_token_id],
        "pad_token": [tokenizer.pad_token_id],
        "unk_token": [3],
    }
    engine.status = EngineStatus.LOADING
    assert asgi.get("/tokenizer_info").status == 503


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "<eos>"},
        {"prompt": "<eos>", "add_special_tokens": False, "parse_special": False},
        {"prompt": "<eos> ", "add_special_tokens": False},
        {"prompt": "a<eos>", "add_special_tokens": False},
        {"prompt": "<end_of_turn>", "add_special_tokens": False},
        {"prompt": "<start_of_turn>", "add_special_tokens": False},
    ],
    ids=str,
)
def test_no_other_text_becomes_a_control_token_unasked(asgi: Asgi, body: dict[str, object]) -> None:
    answer = asgi.post("/tokenize", body).json
    assert len(answer["tokens"]) >= len(str(body["prompt"]))
