"""Values that ask for nothing, by name: each is as good as left out.

OpenAI, vLLM, SGLang, llama.cpp's server and Ollama define these names, and clients send them at
their defaults. Another value of a name that this server does not have is 400
``unsupported_parameter``. ``null`` asks for nothing under any name, so it is in no row. Owns names
and values, knows no model. Sources: vllm/entrypoints/openai, SGLang's openai/protocol.py, the
README of llama.cpp's tools/server, Ollama's api/types.go and openai/openai.go. Constants.
"""

import json
from collections.abc import Mapping

Values = tuple[object, ...]

ANYTHING: Values = (object(),)
"""No value of such a name could change an answer of this server."""
ONLY_NULL: Values = ()

_OFF: Values = (False,)
_ON: Values = (True,)
_NO_TEXT: Values = ("",)
_NO_LIST: Values = ([],)
_NO_OBJECT: Values = ({},)

_SAMPLING: Mapping[str, Values] = {
    "seed": (-1,),  # draw one, as in vLLM and llama.cpp
    "stop": _NO_TEXT,
    "logit_bias": _NO_LIST,  # llama.cpp's form of it
    "best_of": (1,),
    "n_cmpl": (1,),
    "use_beam_search": _OFF,
    "length_penalty": (1,),
    "early_stopping": _OFF,
    "typical_p": (1,),
    "typ_p": (1,),
    "tfs_z": (1,),
    "top_n_sigma": (-1, 0),
    "min_keep": (0,),
    "dynatemp_range": (0,),
    "xtc_probability": (0,),
    "dry_multiplier": (0,),
    "mirostat": (0,),
    "adaptive_target": (-1,),
    "repeat_last_n": (64, -1),  # the default of both; all of the text, as here
    "penalize_nl": _ON,
    "penalize_newline": _ON,
    "samplers": _NO_LIST,
    "bad_words": ("", []),
    "logits_processors": _NO_LIST,
    "custom_logit_processor": ("", []),
    "custom_params": _NO_OBJECT,
    "repetition_detection": ONLY_NULL,
}

_LENGTH_AND_ENDS: Mapping[str, Values] = {
    "n_predict": (-1, -2),
    "num_predict": (-1, -2),
    "t_max_predict_ms": (0, -1),
    "n_indent": (0,),
    "stop_regex": ("", []),
    "no_stop_trim": _OFF,
    "include_stop_str_in_output": _OFF,
    "skip_special_tokens": _ON,
    "spaces_between_special_tokens": (True, False),  # there are none in the text
    "detokenize": _ON,
    "truncation_side": ("left",),
    "truncate": _OFF,
    "shift": _OFF,
}

_CONSTRAINED_OUTPUT: Mapping[str, Values] = {
    "response_format": ({"type": "text"},),
    "format": _NO_TEXT,
    "grammar": _NO_TEXT,
    "grammar_lazy": _OFF,
    "grammar_triggers": _NO_LIST,
    "json_schema": _NO_TEXT,  # {} is any JSON
    "regex": _NO_TEXT,
    "ebnf": _NO_TEXT,
    "guided_json": _NO_TEXT,
    "guided_regex": _NO_TEXT,
    "guided_grammar": _NO_TEXT,
    "guided_choice": _NO_LIST,
    "structured_outputs": _NO_OBJECT,
    "structural_tag": _NO_TEXT,
}

# A model that does not reason apart already does as little of it as can be asked for.
_REASONING: Mapping[str, Values] = {
    "reasoning_effort": ("", "none", "minimal", "low", "medium", "default"),
    "reasoning": (
        {},
        {"effort": "none"},
        {"effort": "minimal"},
        {"effort": "low"},
        {"effort": "medium"},
        {"enabled": False},
        {"exclude": True},
    ),
    "verbosity": ("medium",),
    "think": _OFF,
    "thinking": (False, {}, {"type": "disabled"}),
    "enable_thinking": _OFF,
    "thinking_forced_open": _OFF,
}

_TOOLS: Mapping[str, Values] = {
    "tools": _NO_LIST,
    "tool_choice": ("", "none", "auto"),
    "functions": _NO_LIST,
    "function_call": ("", "none", "auto"),
    "web_search_options": ONLY_NULL,
}

_PROMPT_AND_MEDIA: Mapping[str, Values] = {
    "suffix": _NO_TEXT,
    "echo": _OFF,
    "system": _NO_TEXT,
    "template": _NO_TEXT,
    "context": _NO_LIST,
    "raw": _OFF,
    "chat_template": _NO_TEXT,
    "chat_template_kwargs": ({}, {"enable_thinking": False}, {"thinking": False}),
    "documents": _NO_LIST,
    "task": _NO_TEXT,
    "input_ids": _NO_LIST,
    "prompt_embeds": ("", []),
    "modalities": ([], ["text"]),
    "audio": ONLY_NULL,
    "moderation": ONLY_NULL,
    "images": _NO_LIST,
    "image_data": _NO_LIST,
    "multimodal_data": _NO_LIST,
    "mm_processor_kwargs": _NO_OBJECT,
    "media_io_kwargs": _NO_OBJECT,
    "images_config": _NO_OBJECT,
    "use_audio_in_video": _OFF,
}

_ANSWER: Mapping[str, Values] = {
    "n_probs": (0,),
    "top_logprobs": (0,),
    "post_sampling_probs": _OFF,
    "return_tokens": _OFF,
    "return_tokens_as_token_ids": _OFF,
    "return_prompt_token_ids": _OFF,
    "return_prompt_text": _OFF,
    "return_token_offsets": _OFF,
    "return_assistant_tokens_mask": _OFF,
    "return_hidden_states": _OFF,
    "return_routed_experts": _OFF,
    "return_cached_tokens_details": _OFF,
    "return_meta_info": _OFF,
    "return_progress": _OFF,
    "timings_per_token": _OFF,
    "response_fields": _NO_LIST,
    "request_id": _NO_TEXT,
    "rid": ("", []),
    "_debug_render_only": _OFF,
}

_SERVING: Mapping[str, Values] = {
    "model": _NO_TEXT,
    "cache_salt": ("", []),
    "extra_key": ("", []),
    "priority": (0,),
    "lora": _NO_LIST,
    "lora_path": ("", []),
    "session_id": _NO_TEXT,
    "session_params": _NO_OBJECT,
    "ngram_corpus_id": ("", []),
    "kv_transfer_params": _NO_OBJECT,
    "ec_transfer_params": _NO_OBJECT,
    "vllm_xargs": _NO_OBJECT,
    "bootstrap_host": _NO_TEXT,
    "bootstrap_port": ONLY_NULL,
    "bootstrap_room": ONLY_NULL,
    "options": _NO_OBJECT,
    "vocab_only": _OFF,
    "logits_all": _OFF,
}

# By the reason why no value of these names could change an answer.
_WITHOUT_EFFECT: Mapping[str, str] = {
    "tunes a sampler that is refused": (
        "dynatemp_exponent xtc_threshold dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers "
        "mirostat_tau mirostat_eta adaptive_decay"
    ),
    "tunes a constraint that is refused": "guided_decoding_backend guided_whitespace_pattern",
    "says how drafts are made, which no answer depends on": (
        "speculative.n_max speculative.n_min speculative.p_min backend_sampling"
    ),
    "says what stays when a full context is shifted, which never happens": "n_keep n_discard num_keep",
    "is about reasoning or tool calls in the answer, which has none": (
        "include_reasoning separate_reasoning stream_reasoning reasoning_format reasoning_in_content "
        "thinking_budget_tokens thinking_token_budget reasoning_budget reasoning_budget_tokens parse_tool_calls"
    ),
    "is about images, which are refused": (
        "max_dynamic_patch min_dynamic_patch image_max_dynamic_patch video_max_dynamic_patch"
    ),
    "says what is kept in a cache, and where": (
        "keep_alive cache_prompt n_cache_reuse id_slot prompt_cache_options prompt_cache_retention"
    ),
    "says how Ollama loads a model": (
        "num_ctx num_batch num_gpu main_gpu num_thread numa low_vram f16_kv use_mmap use_mlock"
    ),
    "says who computes, and how that is counted": (
        "data_parallel_rank routed_dp_rank disagg_prefill_dp_rank routed_experts_start_len custom_labels "
        "sse_ping_interval"
    ),
}

IN_ANY_REQUEST: Mapping[str, Values] = {
    **_SAMPLING,
    **_LENGTH_AND_ENDS,
    **_CONSTRAINED_OUTPUT,
    **_REASONING,
    **_TOOLS,
    **_PROMPT_AND_MEDIA,
    **_ANSWER,
    **_SERVING,
    **{name: ANYTHING for names in _WITHOUT_EFFECT.values() for name in names.split()},
}
IN_CHAT: Mapping[str, Values] = {
    **IN_ANY_REQUEST,
    "logprobs": (0,),
    "add_special_tokens": _OFF,
    "parse_special": _OFF,
}
IN_COMPLETION: Mapping[str, Values] = {**IN_ANY_REQUEST, "logprobs": _OFF, "add_special_tokens": _ON}
IN_STREAM_OPTIONS: Mapping[str, Values] = {"include_obfuscation": ANYTHING}


def asks_for_nothing(value: object, values: Values) -> bool:
    """Whether ``value`` is one of ``values``; 1.0 is 1, but ``true`` is not."""
    is_bool = isinstance(value, bool)
    return values is ANYTHING or any(isinstance(each, bool) is is_bool and value == each for each in values)


def in_words(values: Values) -> str:
    """``null, 0, -1`` as a client writes them."""
    return "anything" if values is ANYTHING else ", ".join(map(json.dumps, (None, *values)))
