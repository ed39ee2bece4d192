"""Ollama's API on the wire: what a request may say, and the shapes of the answers. The engine is scripted."""

import json
from typing import Any

import pytest

from engine.errors import StepError
from openai_api.answer.ollama_models import OllamaChatAnswer, OllamaGenerateAnswer
from openai_api.settings import ServerSettings
from tests.openai_api.fake_engine import END_OF_TURN_ID, EOS_ID, MODEL_ID, TEXT, FakeEngine, Script
from tests.openai_api.harness import MESSAGES, Answer, Asgi, chat_body, completion_body, lines_of
from tests.openai_api.test_tools import CALL, TOOLS, TWO_CALLS

CHAT, GENERATE = "/api/chat", "/api/generate"
DURATIONS = ("load_duration", "prompt_eval_duration", "eval_duration")
BODIES: dict[str, dict[str, Any]] = {CHAT: {"messages": MESSAGES}, GENERATE: {"prompt": "Hi"}}
MODELS = {CHAT: OllamaChatAnswer, GENERATE: OllamaGenerateAnswer}


def text_of(answer: Any) -> str:
    text = answer["message"]["content"] if "message" in answer else answer["response"]
    assert isinstance(text, str)
    return text


def ask(asgi: Asgi, path: str, **fields: Any) -> Any:
    """The one object, after comparing it with the stream: all but the times is equal."""
    body = {**BODIES[path], **fields}
    whole = asgi.post(path, {**body, "stream": False})
    assert whole.status == 200, whole.body
    assert whole.headers["content-type"] == "application/json"
    streamed = asgi.post(path, body)
    assert streamed.headers["content-type"] == "application/x-ndjson"
    lines = lines_of(streamed.body)
    for line in [*lines, whole.json]:
        MODELS[path].model_validate(line)
        assert line["model"] == MODEL_ID
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "".join(map(text_of, lines)) == text_of(whole.json)
    assert [entry for line in lines for entry in line.get("logprobs", [])] == whole.json.get("logprobs", [])
    for name in ("done_reason", "prompt_eval_count", "eval_count", "context"):
        assert lines[-1].get(name) == whole.json.get(name), name
    for last in (lines[-1], whole.json):
        assert sum(last[name] for name in DURATIONS) == last["total_duration"]
        assert all(last[name] >= 0 for name in DURATIONS)
        assert last["eval_duration"] > 0
    return whole.json


def error_of(answer: Answer, status: int = 400) -> str:
    assert answer.status == status, answer.body
    assert list(answer.json) == ["error"]
    assert isinstance(answer.json["error"], str)
    return str(answer.json["error"])


@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_an_answer_is_what_openais_endpoint_answers(asgi: Asgi, engine: FakeEngine, path: str) -> None:
    answer = ask(asgi, path, options={"num_predict": 40, "seed": 7, "temperature": 0.5})
    ollamas = engine.calls[-1]
    openais = asgi.post("/v1/chat/completions", chat_body(max_tokens=40, seed=7, temperature=0.5)).json
    assert (ollamas.prompt_token_ids, ollamas.params) == (engine.calls[-1].prompt_token_ids, engine.calls[-1].params)
    assert text_of(answer) == openais["choices"][0]["message"]["content"] == TEXT
    assert answer["done_reason"] == "stop"
    counts = (answer["prompt_eval_count"], answer["eval_count"])
    assert counts == (openais["usage"]["prompt_tokens"], openais["usage"]["completion_tokens"])


def test_raw_is_a_completion(asgi: Asgi, engine: FakeEngine) -> None:
    prompt = "<start_of_turn>user\nHi"
    answer = ask(asgi, GENERATE, prompt=prompt, raw=True, options={"num_predict": 5})
    ollamas = engine.calls[-1]
    openais = asgi.post("/v1/completions", completion_body(prompt=prompt, parse_special=True, max_tokens=5)).json
    assert (ollamas.prompt_token_ids, ollamas.params) == (engine.calls[-1].prompt_token_ids, engine.calls[-1].params)
    assert (answer["response"], answer["done_reason"]) == (openais["choices"][0]["text"], "length")
    assert "context" not in answer
    for field, value in (("system", "x"), ("context", [5])):
        told = error_of(asgi.post(GENERATE, {"prompt": "x", "raw": True, field: value}))
        assert told == f"'{field}' does not go with 'raw': true."


def test_every_option_reaches_the_engine(asgi: Asgi, engine: FakeEngine) -> None:
    options = {
        "temperature": 0.5, "top_k": 3, "top_p": 0.25, "min_p": 0.125, "seed": 42, "presence_penalty": -0.5,
        "frequency_penalty": 0.5,
    }  # fmt: skip
    for path in BODIES:
        ask(asgi, path, options={**options, "repeat_penalty": 1.5, "num_predict": 9, "stop": ["a", "b"]})
        params = engine.calls[-1].params
        assert {name: getattr(params, name) for name in options} == options
        assert (params.repetition_penalty, params.max_tokens, params.stop) == (1.5, 9, ("a", "b"))


def test_without_options_the_defaults_are_the_servers(asgi: Asgi, engine: FakeEngine) -> None:
    for fields in ({}, {"options": {}}, {"options": None}, {"options": {"num_predict": -1}}):
        ask(asgi, CHAT, **fields)
        params = engine.calls[-1].params
        assert (params.temperature, params.top_k, params.top_p, params.max_tokens) == (1.0, 64, 0.95, None)
    for limit in (-2, -1, 0, None):
        ask(asgi, GENERATE, raw=True, options={"num_predict": limit})
        assert engine.calls[-1].params.max_tokens is None


# Ollama's own defaults, and what its clients send without being asked.
NEUTRAL: list[dict[str, Any]] = [
    {"options": {"num_keep": 4, "seed": -1, "num_predict": -1, "top_k": 40, "top_p": 0.9, "tfs_z": 1.0, "typical_p": 1.0,
                 "repeat_last_n": 64, "temperature": 0.8, "repeat_penalty": 1.1, "presence_penalty": 0.0, "mirostat": 0,
                 "frequency_penalty": 0.0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "penalize_newline": True, "stop": [],
                 "numa": False, "num_ctx": 2048, "num_batch": 512, "num_gpu": -1, "main_gpu": 0, "low_vram": False,
                 "f16_kv": True, "vocab_only": False, "use_mmap": True, "use_mlock": False, "num_thread": 0,
                 "embedding_only": False, "logits_all": False, "min_p": 0.0}},
    {"options": {"repeat_last_n": 33}},
    {"format": "", "keep_alive": "5m", "think": False, "tools": [], "logprobs": None, "truncate": True, "shift": True},
    {"format": None, "keep_alive": -1, "think": None, "tools": None, "template": "", "system": None, "images": []},
    {"keep_alive": 0}, {"keep_alive": "24h"}, {"keep_alive": "1h30m"}, {"keep_alive": "-1"}, {"keep_alive": 300.5},
    {"model": ""}, {"model": None}, {"model": f"{MODEL_ID}:latest"}, {"suffix": "", "context": [], "raw": False},
]  # fmt: skip


@pytest.mark.parametrize("fields", NEUTRAL, ids=lambda fields: " ".join(fields))
def test_what_clients_send_by_default_is_taken(asgi: Asgi, fields: dict[str, Any]) -> None:
    for path, body in BODIES.items():
        assert asgi.post(path, {**body, **fields}).status == 200


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": {"temperature": 9}}, "'options.temperature': expected a number from 0 to 2."),
        ({"options": {"repeat_penalty": 0}}, "'options.repeat_penalty': expected a number above 0 to 10."),
        ({"options": {"num_predict": -3}}, "'options.num_predict': expected an integer from -2."),
        ({"options": {"num_predict": "x"}}, "'options.num_predict': expected an integer from -2."),
        ({"options": {"stop": 5}}, "'options.stop': expected a string or an array of strings."),
        ({"options": {"mirostat": 1}}, "Unsupported parameter: 'options.mirostat'; only null, 0 can be given."),
        ({"options": {"repeat_last_n": 33, "repeat_penalty": 1.1}}, "'options.repeat_last_n'; only null, 64, -1"),
        ({"options": {"warmth": 1}}, "Unknown parameter: 'options.warmth'."),
        ({"options": []}, "'options': expected an object."),
        ({"format": "yaml"}, "'format': expected 'json' or a JSON schema, which is an object."),
        ({"format": {"type": "impossible"}}, "Invalid value for 'format': it is impossible."),
        ({"keep_alive": "soon"}, "'keep_alive': expected a number of seconds, or a duration such as '5m'."),
        ({"keep_alive": True}, "'keep_alive': expected a number of seconds, or a duration such as '5m'."),
        ({"think": True}, "Unsupported parameter: 'think'; only null, false can be given."),
        ({"think": "high"}, "Unsupported parameter: 'think'; only null, false can be given."),
        ({"top_logprobs": 3}, "'top_logprobs' is only allowed with 'logprobs': true."),
        ({"images": ["aGk="]}, "Unsupported parameter: 'images'; only null, [] can be given."),
        ({"stream": 1}, "'stream': expected true or false."),
        ({"temperature": 0.5}, "Unknown parameter: 'temperature'."),
    ],
)
def test_errors_name_ollamas_fields(asgi: Asgi, fields: dict[str, Any], words: str) -> None:
    for path, body in BODIES.items():
        assert words in error_of(asgi.post(path, {**body, **fields}))


def test_errors_of_one_way_alone(asgi: Asgi) -> None:
    image = {"role": "user", "content": "x", "images": ["aGk="]}
    for path, fields, words in (
        (CHAT, {"messages": [image]}, "Unsupported parameter: 'messages[0].images'; only null can be given."),
        (CHAT, {"messages": [{"role": "boss", "content": "x"}]}, "'messages[0].role': expected one of"),
        (CHAT, {"tools": [{"function": {"name": "a b"}}]}, "'tools[0].function.name': expected 1 to 64"),
        (CHAT, {"prompt": "x"}, "Unknown parameter: 'prompt'."),
        (GENERATE, {"suffix": "x"}, "Unsupported parameter: 'suffix'; only null, \"\" can be given."),
        (GENERATE, {"template": "x"}, "Unsupported parameter: 'template'; only null, \"\" can be given."),
        (GENERATE, {"context": [262]}, "'context': token ids are from 0 to 261, not 262."),
        (GENERATE, {"context": ["x"]}, "Invalid value for 'context[0]'"),
    ):
        assert words in error_of(asgi.post(path, {**BODIES[path], **fields}))
    too_long = asgi.post(GENERATE, {"prompt": "x" * 5000})
    assert "maximum context length is 4096 tokens" in error_of(too_long)
    assert "maximum context length is 4096 tokens" in error_of(
        asgi.post(GENERATE, {"prompt": "x", "context": [5] * 4096})
    )


def test_a_text_too_long_to_look_at_is_named_as_the_client_does(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(max_text_chars=10))
    calls = [{"function": {"name": "f", "arguments": {"a": "x" * 20}}}]
    messages = [*MESSAGES, {"role": "assistant", "tool_calls": calls}, *MESSAGES]
    assert "'messages': expected at most 10 characters" in error_of(asgi.post(CHAT, {"messages": messages}))


@pytest.mark.parametrize("form", [{"format": "json"}, {"format": {"type": "object", "properties": {"a": {}}}}])
def test_format_is_the_structured_output_of_chat(asgi: Asgi, engine: FakeEngine, form: dict[str, Any]) -> None:
    ask(asgi, CHAT, **form)
    spec = engine.compiled[-1]
    own = {"type": "json_object"} if form["format"] == "json" else {"type": "json_schema", "schema": form["format"]}
    assert asgi.post("/v1/chat/completions", chat_body(response_format=own)).status == 200
    assert engine.compiled[-1] == spec
    for fields in (form, {**form, "raw": True}):
        ask(asgi, GENERATE, **fields)
        assert engine.compiled[-1] == spec


def test_logprobs(asgi: Asgi) -> None:
    for path in BODIES:
        answer = ask(asgi, path, logprobs=True, top_logprobs=2, options={"num_predict": 4})
        assert len(answer["logprobs"]) == 4
        for entry in answer["logprobs"]:
            assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
            assert len(entry["top_logprobs"]) == 2
        assert "logprobs" not in ask(asgi, path)
    raw = ask(asgi, GENERATE, raw=True, logprobs=True, options={"num_predict": 4})
    assert [entry["top_logprobs"] for entry in raw["logprobs"]] == [[]] * 4


@pytest.mark.parametrize("keep_alive", [None, "5m", 0, "0", "0s", 0.0])
def test_a_request_for_no_text_loads_or_unloads(asgi: Asgi, engine: FakeEngine, keep_alive: object) -> None:
    word = "load" if keep_alive in (None, "5m") else "unload"
    empty: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {}), (CHAT, {"messages": []}), (CHAT, {"messages": None}), (GENERATE, {}), (GENERATE, {"prompt": ""}),
        (GENERATE, {"prompt": "", "system": "x", "raw": True}),
    ]  # fmt: skip
    for path, body in empty:
        for stream in (None, True, False):
            answer = asgi.post(path, {**body, "model": MODEL_ID, "keep_alive": keep_alive, "stream": stream})
            (line,) = lines_of(answer.body + b"\n")
            MODELS[path].model_validate(line)
            assert (answer.status, line["done"], line["done_reason"], text_of(line)) == (200, True, word, "")
    assert engine.calls == []
    assert error_of(asgi.post(CHAT, {"model": "other"}), 404)


def test_messages_in_ollamas_words(asgi: Asgi, engine: FakeEngine) -> None:
    messages = [
        {"role": "system", "content": "s", "images": []},
        {"role": "user"},
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [{"function": {"name": "now", "arguments": {}}}]},
        {"role": "tool", "content": "noon", "tool_name": "now"},
    ]  # fmt: skip
    ask(asgi, CHAT, messages=messages)
    system, user, calling, result = engine.rendered[-1]
    assert (system.content, user.content, result.content, result.name) == ("s", "", "noon", "now")
    assert [(call.name, call.arguments) for call in calling.tool_calls] == [("now", "{}")]


def test_the_last_message_is_continued_if_it_is_the_assistants(asgi: Asgi, engine: FakeEngine) -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": "Well,"}]
    ask(asgi, CHAT, messages=begun)
    ollamas = engine.calls[-1].prompt_token_ids
    asgi.post("/v1/chat/completions", chat_body(messages=begun, continue_final_message=True))
    assert ollamas == engine.calls[-1].prompt_token_ids


def test_the_system_text_of_a_prompt_is_a_system_message(asgi: Asgi, engine: FakeEngine) -> None:
    ask(asgi, GENERATE, system="Be brief.")
    assert [(message.role, message.content) for message in engine.rendered[-1]] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]


def test_context_is_the_conversation(asgi: Asgi, engine: FakeEngine) -> None:
    """The next prompt stands behind it as the next turn does in chat."""
    context = ask(asgi, GENERATE)["context"]
    assert tuple(context[: len(engine.calls[-1].prompt_token_ids)]) == engine.calls[-1].prompt_token_ids
    assert context[-1] == EOS_ID
    ask(asgi, GENERATE, prompt="And?", context=context[:-1])
    continued = engine.calls[-1].prompt_token_ids
    turns = [*MESSAGES, {"role": "assistant", "content": TEXT}, {"role": "user", "content": "And?"}]
    asgi.post("/v1/chat/completions", chat_body(messages=turns))
    said = engine.tokenizer.decode(engine.calls[-1].prompt_token_ids)
    # The scripted format opens the answer with "model: " and repeats it as "assistant: ".
    assert engine.tokenizer.decode(continued) == said.replace("assistant: ", "model: ")
    # What the answer has of the next turn's beginning is there once.
    ask(asgi, GENERATE, prompt="And?", context=[*context[:-1], *engine.tokenizer.encode("\nuser")])
    assert engine.calls[-1].prompt_token_ids == continued


def test_tools(asgi: Asgi, engine: FakeEngine) -> None:
    """Calls are told whole, with arguments as objects, and text around them as text."""
    engine.script = Script(text=TWO_CALLS)
    answer = ask(asgi, CHAT, tools=TOOLS)
    calls = [call["function"] for call in answer["message"]["tool_calls"]]
    city = {"city": 'Z\u00fcrich {"} x'}
    assert calls == [{"name": "weather", "arguments": city}, {"name": "now", "arguments": {}}]
    assert (answer["message"]["content"], answer["done_reason"]) == ("Let me see.", "stop")
    lines = lines_of(asgi.post(CHAT, {"messages": MESSAGES, "tools": TOOLS}).body)
    told = [call for line in lines for call in line["message"].get("tool_calls", [])]
    assert [call["function"] for call in told] == calls
    assert len({call["id"] for call in told}) == 2
    assert engine.shown_tools is not None


def test_a_call_that_is_cut_off_is_not_told(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(text=CALL)
    answer = ask(asgi, CHAT, tools=TOOLS, options={"num_predict": len(CALL) - 8})
    assert "tool_calls" not in answer["message"]
    assert (answer["message"]["content"], answer["done_reason"]) == ("", "length")


def test_an_error_after_the_first_line_is_the_last_line(asgi: Asgi, engine: FakeEngine) -> None:
    engine.script = Script(fail=StepError("broken"), fail_at=3)
    for path, body in BODIES.items():
        lines = lines_of(asgi.post(path, body).body)
        assert lines[-1] == {"error": "The server failed on this request."}
        assert "".join(map(text_of, lines[:-1])) == "Hel"
        assert error_of(asgi.post(path, {**body, "stream": False}), 500) == "The server failed on this request."


def test_nothing_is_sent_into_a_silence(engine: FakeEngine) -> None:
    """Ollama's clients take every line for an object."""
    engine.script = Script(prefill_s=0.15)
    asgi = Asgi(engine, ServerSettings(keep_alive_interval_s=0.03))
    for path, body in BODIES.items():
        assert "".join(map(text_of, lines_of(asgi.post(path, body).body))) == TEXT


def test_the_models(engine: FakeEngine) -> None:
    asgi = Asgi(engine, ServerSettings(served_model_names=("a", "org/b:1b")))
    for path in ("/api/tags", "/api/ps"):
        models = asgi.get(path).json["models"]
        assert [(model["name"], model["model"]) for model in models] == [("a:latest",) * 2, ("org/b:1b",) * 2]
        assert all(model["details"]["family"] == "gemma3" for model in models)
    for name in ("a", "a:latest", "org/b:1b"):
        for path in ("/api/show", "/api/pull"):
            for field in ("model", "name"):
                assert asgi.post(path, {field: name}).status == 200
        assert asgi.post("/api/chat", {"model": name, "messages": MESSAGES}).status == 200
    for name in ("a:1b", "b", "latest", ":latest", "org/b", "org/b:1b:latest:latest"):
        for path in ("/api/show", "/api/pull", "/api/chat", "/api/generate"):
            assert "this server has 'a', 'org/b:1b'" in error_of(asgi.post(path, {"model": name}), 404)


def test_show(asgi: Asgi, engine: FakeEngine) -> None:
    shown = asgi.post("/api/show", {"model": MODEL_ID}).json
    assert shown["capabilities"] == ["completion", "tools"]
    assert shown["model_info"]["gemma3.context_length"] == engine.info.max_model_len
    assert shown["parameters"] == "top_k 64\ntop_p 0.95"
    assert shown["template"] == engine.info.chat_template


def test_pull_of_the_served_model_succeeds(asgi: Asgi) -> None:
    streamed = asgi.post("/api/pull", {"model": MODEL_ID})
    assert streamed.headers["content-type"] == "application/x-ndjson"
    assert lines_of(streamed.body)[-1] == {"status": "success"}
    assert asgi.post("/api/pull", {"model": MODEL_ID, "stream": False}).json == {"status": "success"}


def test_what_changes_models_or_embeds_is_refused(asgi: Asgi) -> None:
    for method, path in (
        *(("POST", f"/api/{name}") for name in ("push", "create", "copy", "embed", "embeddings")),
        ("DELETE", "/api/delete"),
    ):
        answer = asgi.request(
            method, path, json.dumps({"model": MODEL_ID}).encode(), {"content-type": "application/json"}
        )
        assert "This server" in error_of(answer)


def test_the_end_of_a_turn_ends_the_answer(asgi: Asgi, engine: FakeEngine) -> None:
    for path in BODIES:
        ask(asgi, path)
        assert engine.calls[-1].params.stop_token_ids == (END_OF_TURN_ID,)
