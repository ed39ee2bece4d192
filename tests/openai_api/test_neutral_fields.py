"""Values that ask for nothing: taken under every name that other servers define, and never the real ones with them."""

from typing import Any

import pytest

from engine.sampling_params import SamplingParams
from openai_api.request.neutral_fields import IN_CHAT, IN_COMPLETION
from openai_api.request.neutral_values import ANYTHING, Values, asks_for_nothing, in_words
from openai_api.request.structured_output_fields import StructuredOutputFields
from tests.openai_api.fake_engine import MODEL_ID, FakeEngine
from tests.openai_api.harness import Asgi, chat_body, completion_body

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BODIES = {CHAT: chat_body(), TEXT: completion_body()}
# Names whose other values are obeyed, by one of the two endpoints at least.
HONOURED = {
    *("seed", "stop", "logit_bias", "logprobs", "echo", "model", "top_logprobs", "return_tokens_as_token_ids"),
    *StructuredOutputFields.model_fields,
}
HONOURED_IN_CHAT = {"tools", "tool_choice", "functions", "function_call"}

# The requests of each server's own client code, every field at its default.
DEFAULTS: dict[str, dict[str, Any]] = {
    "vLLM": {
        "frequency_penalty": 0.0, "logit_bias": None, "logprobs": False, "top_logprobs": 0, "max_tokens": None, "n": 1,
        "presence_penalty": 0.0, "response_format": None, "seed": None, "stop": [], "stream": False, "tools": None,
        "stream_options": None, "tool_choice": "none", "parallel_tool_calls": True, "include_reasoning": True,
        "use_beam_search": False, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "length_penalty": 1.0,
        "stop_token_ids": [], "include_stop_str_in_output": False, "ignore_eos": False, "min_tokens": 0,
        "skip_special_tokens": True, "spaces_between_special_tokens": True, "truncate_prompt_tokens": None,
        "prompt_logprobs": None, "allowed_token_ids": None, "bad_words": [], "echo": False, "documents": None,
        "add_generation_prompt": True, "continue_final_message": False, "add_special_tokens": False,
        "chat_template": None, "chat_template_kwargs": None, "mm_processor_kwargs": None, "guided_json": None,
        "structured_outputs": None, "priority": 0, "cache_salt": None, "kv_transfer_params": None, "vllm_xargs": None,
    },
    "SGLang": {
        "max_completion_tokens": None, "tool_choice": "auto", "top_k": -1, "regex": None, "ebnf": None,
        "no_stop_trim": False, "skip_special_tokens": True, "lora_path": None, "session_params": None,
        "separate_reasoning": True, "stream_reasoning": True, "return_hidden_states": False, "rid": None,
        "reasoning_effort": "medium", "priority": None, "bootstrap_host": None, "input_ids": None,
        "return_routed_experts": False, "use_audio_in_video": False,
    },
    "llama.cpp": {
        "max_tokens": -1, "n_predict": -1, "temperature": 0.8, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0,
        "top_k": 40, "top_p": 0.95, "min_p": 0.05, "xtc_probability": 0.0, "xtc_threshold": 0.1, "typical_p": 1.0,
        "repeat_last_n": 64, "repeat_penalty": 1.0, "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2,
        "dry_penalty_last_n": -1, "dry_sequence_breakers": ["\n", ":"], "mirostat": 0, "mirostat_tau": 5.0,
        "mirostat_eta": 0.1, "grammar": "", "seed": -1, "ignore_eos": False, "logit_bias": [], "n_probs": 0,
        "min_keep": 0, "t_max_predict_ms": 0, "id_slot": -1, "cache_prompt": True, "return_tokens": False,
        "samplers": [], "timings_per_token": False, "post_sampling_probs": False, "response_fields": [], "lora": [],
        "n_keep": 0, "n_discard": 0, "stop": [], "speculative.n_max": 16, "reasoning_format": "auto",
        "chat_template_kwargs": {}, "parse_tool_calls": False, "n_indent": 0, "top_n_sigma": -1.0,
    },
    "Ollama": {
        "keep_alive": "5m", "options": {}, "format": "", "think": False, "images": [], "num_ctx": 4096, "num_keep": 4,
        "num_gpu": 99, "num_thread": 8, "use_mmap": True, "num_predict": -1, "tfs_z": 1.0, "repeat_last_n": 64,
        "repeat_penalty": 1.1, "penalize_newline": True, "mirostat": 0, "reasoning": {"effort": "none"},
    },
    "text-generation-webui": {
        "mode": "instruct", "character": None, "instruction_template": None, "continue_": False, "min_p": 0, "tfs": 1,
        "dynamic_temperature": False, "dynatemp_low": 1, "dynatemp_high": 1, "dynatemp_exponent": 1, "top_a": 0,
        "smoothing_factor": 0, "smoothing_curve": 1, "epsilon_cutoff": 0, "eta_cutoff": 0, "typical_p": 1,
        "repetition_penalty": 1, "encoder_repetition_penalty": 1, "no_repeat_ngram_size": 0, "penalty_alpha": 0,
        "guidance_scale": 1, "negative_prompt": "", "mirostat_mode": 0, "mirostat_tau": 5, "mirostat_eta": 0.1,
        "truncation_length": 0, "max_tokens_second": 0, "prompt_lookup_num_tokens": 0, "custom_token_bans": "",
        "sampler_priority": [], "auto_max_new_tokens": False, "ban_eos_token": False, "add_bos_token": True,
        "skip_special_tokens": True, "grammar_string": "", "temperature_last": False, "seed": -1, "top_k": 0,
    },
    "TGI, LM Studio and OpenRouter": {
        "adapter_id": None, "watermark": False, "decoder_input_details": False, "details": False, "top_n_tokens": 0,
        "return_full_text": False, "ttl": 300, "draft_model": "", "max_tokens": -1, "transforms": [], "plugins": [],
        "provider": {}, "usage": {"include": False},
    },
    "OpenAI": {
        "tools": [], "tool_choice": "auto", "functions": [], "function_call": "auto", "response_format": {"type": "text"},
        "modalities": ["text"], "reasoning_effort": "none", "verbosity": "medium", "logprobs": False, "top_logprobs": 0,
        "stream_options": {"include_usage": True, "include_obfuscation": True}, "service_tier": "auto", "store": False,
        "web_search_options": None, "audio": None, "prediction": None, "metadata": {}, "prompt_cache_retention": "24h",
        "moderation": None, "stop": "", "n": 1, "parallel_tool_calls": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("server", DEFAULTS)
def test_a_request_at_the_defaults_of_another_server_is_answered(asgi: Asgi, server: str) -> None:
    for stream in (False, True):
        answer = asgi.post(CHAT, {**chat_body(**DEFAULTS[server]), "stream": stream})
        assert answer.status == 200, answer.body


@pytest.mark.parametrize(("path", "table"), [(CHAT, IN_CHAT), (TEXT, IN_COMPLETION)], ids=["chat", "text"])
def test_every_name_of_the_table(asgi: Asgi, engine: FakeEngine, path: str, table: dict[str, Values]) -> None:
    """Its neutral values all at once and one by one ask for nothing; another value is refused by name."""
    assert asgi.post(path, BODIES[path]).status == 200
    plain = engine.calls[-1].params
    for name, values in table.items():
        for value in (None, "anything" if values is ANYTHING else None, *(values if values is not ANYTHING else ())):
            answer = asgi.post(path, {**BODIES[path], name: value})
            assert answer.status == 200, (name, value, answer.body)
            assert engine.calls[-1].params == plain, (name, value)
        if values is ANYTHING or name in HONOURED or (path == CHAT and name in HONOURED_IN_CHAT):
            continue
        for real in (7.5, [7], "real", {"real": True}):
            answer = asgi.post(path, {**BODIES[path], name: real})
            assert (answer.status, answer.error["code"]) == (400, "unsupported_parameter"), (name, real)
            assert (answer.error["param"], in_words(values) in answer.error["message"]) == (name, True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("best_of", 2), ("suffix", "x"), ("reasoning_effort", "high"), ("verbosity", "low"), ("use_beam_search", True),
        ("skip_special_tokens", False), ("length_penalty", 1.5), ("n_probs", 1), ("mirostat", 2), ("repeat_last_n", 0),
        ("guided_whitespace_pattern", "[ ]"), ("grammar_lazy", True), ("structural_tag", "{}"),
        ("priority", 1), ("chat_template_kwargs", {"enable_thinking": True}),
        ("enable_thinking", True), ("think", True), ("options", {"temperature": 0}),
        ("include_stop_str_in_output", True), ("typical_p", 0.5), ("cache_salt", "s"), ("mirostat", False),
        ("use_beam_search", 0),
        ("web_search_options", {}),
    ],
)  # fmt: skip
def test_a_value_that_asks_for_something_is_refused(asgi: Asgi, field: str, value: object) -> None:
    answer = asgi.post(CHAT, chat_body(**{field: value}))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unsupported_parameter", field)


def test_an_unknown_name_is_refused_unless_it_is_null(asgi: Asgi) -> None:
    for path, body in BODIES.items():
        assert asgi.post(path, {**body, "frobnicate": None}).status == 200
        for value in (0, False, "", [], {}, 1):
            answer = asgi.post(path, {**body, "frobnicate": value})
            assert (answer.status, answer.error["code"]) == (400, "unknown_parameter")
            assert answer.error["param"] == "frobnicate"
    inner = {"role": "user", "content": [{"type": "text", "text": "Hi", "frob": None}], "nicate": None}
    options = {"include_usage": True, "frob": None}
    assert asgi.post(CHAT, chat_body(messages=[inner], stream=True, stream_options=options)).status == 200
    for path in ("/tokenize", "/detokenize"):
        given = {"prompt": "Hi"} if path == "/tokenize" else {"tokens": [5]}
        assert asgi.post(path, {**given, "frobnicate": None, "model": ""}).status == 200
        assert asgi.post(path, {**given, "frobnicate": 1}).error["code"] == "unknown_parameter"


@pytest.mark.parametrize(
    ("name", "value", "is_neutral"),
    [
        ("response_format", {"type": "text", "json_schema": None}, True),
        ("response_format", {"type": None}, True),
        ("reasoning", {"effort": None, "summary": None}, True),
        ("reasoning", {"effort": "none", "exclude": True}, True),
        ("reasoning", {"effort": "none", "exclude": 1}, False),
        ("reasoning", {"effort": "high", "exclude": True}, False),
        ("thinking", {"type": "disabled", "budget_tokens": 0}, True),
        ("chat_template_kwargs", {"enable_thinking": False, "thinking": False}, True),
        ("chat_template_kwargs", {"enable_thinking": 0}, False),
        ("structured_outputs", {"json": None, "regex": None}, True),
        ("options", {"temperature": None}, True),
        ("tool_choice", {"type": "auto"}, True),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}, False),
    ],
)
def test_an_object_asks_for_what_its_members_ask_for(asgi: Asgi, name: str, value: object, is_neutral: bool) -> None:
    for path, body in BODIES.items():
        assert asgi.post(path, {**body, name: value}).status == (200 if is_neutral else 400)


def test_the_best_n_of_n_choices_are_all_of_them(asgi: Asgi) -> None:
    assert len(asgi.post(TEXT, completion_body(n=2, best_of=2.0)).json["choices"]) == 2
    for fields in ({"n": 2, "best_of": 3}, {"best_of": 2}, {"n": 2, "best_of": True}):
        assert asgi.post(TEXT, completion_body(**fields)).error["code"] == "unsupported_parameter"


def test_what_only_chat_has_is_without_effect_on_completions(asgi: Asgi) -> None:
    fields = {"metadata": {"a": "b"}, "store": True, "service_tier": "auto", "parallel_tool_calls": False}
    turns = {"add_generation_prompt": True, "continue_final_message": False, "prompt_cache_key": "k"}
    assert asgi.post(TEXT, completion_body(**fields, **turns)).status == 200
    assert asgi.post(TEXT, completion_body(continue_final_message=True)).status == 400


def test_numbers_are_alike_but_no_booleans() -> None:
    assert asks_for_nothing(1.0, (1,))
    assert asks_for_nothing(0, (0.0,))
    assert not asks_for_nothing(True, (1,))
    assert not asks_for_nothing(0, (False,))
    assert not asks_for_nothing(None, ())


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_request_without_a_model_is_for_the_served_one(asgi: Asgi, path: str) -> None:
    rest = {name: value for name, value in BODIES[path].items() if name != "model"}
    for body in (rest, {**rest, "model": None}, {**rest, "model": ""}):
        assert asgi.post(path, body).json["model"] == MODEL_ID
    assert asgi.post(path, {**rest, "model": "another"}).status == 404


def params_of(asgi: Asgi, engine: FakeEngine, path: str, **fields: Any) -> SamplingParams:
    answer = asgi.post(path, {**BODIES[path], **fields})
    assert answer.status == 200, answer.body
    return engine.calls[-1].params


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_local_conventions_reach_the_engine(asgi: Asgi, engine: FakeEngine, path: str) -> None:
    def params(**fields: Any) -> SamplingParams:
        return params_of(asgi, engine, path, **fields)

    assert params(max_tokens=-1).max_tokens is params(max_tokens=-1.0).max_tokens is None
    assert params(max_tokens=100.0).max_tokens == 100
    assert params(max_tokens=2**53 - 1).max_tokens is None
    assert params(top_k=2**53 - 1).top_k == 2**31 - 1
    assert params(stop_token_ids=[7.0, 8]).stop_token_ids[:2] == (7, 8)
    assert params(logit_bias={"5": None, "6": 1}).logit_bias == {6: 1.0}
    assert params(top_k=-1).top_k == 0, "and not the checkpoint's, which is what left out would be"
    assert 0 < params(top_p=0).top_p < 1e-30
    assert params(repeat_penalty=1.5).repetition_penalty == 1.5
    assert params(repeat_penalty=1.5, repetition_penalty=1.5).repetition_penalty == 1.5
    assert params(stop=["a", "", "b"]).stop == ("a", "b")
    assert params(stop=[f"s{i}" for i in range(16)]).stop[15] == "s15"
    assert params(seed=-1).seed is None
    assert params(seed=-2).seed == -2


def test_no_limit_under_one_name_leaves_the_other(asgi: Asgi, engine: FakeEngine) -> None:
    for limits in ({"max_tokens": -1, "max_completion_tokens": 5}, {"max_tokens": 5, "max_completion_tokens": -1}):
        assert params_of(asgi, engine, CHAT, **limits).max_tokens == 5
    assert params_of(asgi, engine, CHAT, max_tokens=-1, max_completion_tokens=-1).max_tokens is None


def test_more_tokens_than_the_context_has_room_for_are_an_upper_bound(asgi: Asgi, engine: FakeEngine) -> None:
    for path in (CHAT, TEXT):
        choice = asgi.post(path, {**BODIES[path], "max_tokens": 10**9, "ignore_eos": True}).json["choices"][0]
        assert choice["finish_reason"] == "length"
        assert engine.calls[-1].params.max_tokens == 10**9


def test_what_is_no_token_id_is_named(asgi: Asgi) -> None:
    for field, value, words in (
        ("logit_bias", {"5": 1, "262": 1}, "token ids are from 0 to 261, not 262."),
        ("logit_bias", {"Paris": 1}, "'logit_bias.Paris': its name must be a token id."),
        ("stop_token_ids", [5, 400, 500], "'stop_token_ids': token ids are from 0 to 261, not 400."),
        ("stop_token_ids", [5, -1], "'stop_token_ids': token ids are from 0 to 261, not -1."),
        ("prompt", [5, -3], "'prompt': token ids are from 0 to 261, not -3."),
        ("prompt", [[5], [10**400]], "not 10000000000000000000."),
    ):
        answer = asgi.post(TEXT, completion_body(**{field: value}))
        assert answer.status == 400
        assert answer.error["message"].endswith(words), answer.error
