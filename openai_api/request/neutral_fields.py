"""Values that ask for nothing, by name: each is as good as left out.

OpenAI, vLLM, SGLang, llama.cpp's server and Ollama define these names, and clients send them at
their defaults. Another value of a name that this server does not have is 400
``unsupported_parameter``. ``null`` asks for nothing under any name, so it is in no row. Owns names
and values, knows no model. Sources: vllm/entrypoints/openai, SGLang's openai/protocol.py, the
README of llama.cpp's tools/server, Ollama's api/types.go and openai/openai.go; what other local
servers define is in ``neutral_fields_of_others``. Constants.
"""

from collections.abc import Mapping

from openai_api.request.neutral_fields_of_others import OF_OTHERS
from openai_api.request.neutral_values import (
    ANYTHING,
    NO_LIST,
    NO_OBJECT,
    NO_TEXT,
    OFF,
    ON,
    ONLY_NULL,
    Values,
    any_value,
)
from openai_api.request.structured_output_fields import ANY_OF_OUR_WHITESPACE

_SAMPLING: Mapping[str, Values] = {
    "seed": (-1,),  # draw one, as in vLLM and llama.cpp
    "stop": NO_TEXT,
    "logit_bias": NO_LIST,  # llama.cpp's form of it
    "best_of": (1,),
    "n_cmpl": (1,),
    "use_beam_search": OFF,
    "length_penalty": (1,),
    "early_stopping": OFF,
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
    "penalize_nl": ON,
    "penalize_newline": ON,
    "samplers": NO_LIST,
    "bad_words": ("", []),
    "logits_processors": NO_LIST,
    "custom_logit_processor": ("", []),
    "custom_params": NO_OBJECT,
    "repetition_detection": ONLY_NULL,
}

_LENGTH_AND_ENDS: Mapping[str, Values] = {
    "n_predict": (-1, -2),
    "num_predict": (-1, -2),
    "t_max_predict_ms": (0, -1),
    "n_indent": (0,),
    "stop_regex": ("", []),
    "no_stop_trim": OFF,
    "include_stop_str_in_output": OFF,
    "skip_special_tokens": ON,
    "spaces_between_special_tokens": (True, False),  # there are none in the text
    "detokenize": ON,
    "truncation_side": ("left",),
    "truncate": OFF,
    "shift": OFF,
}

_CONSTRAINED_OUTPUT: Mapping[str, Values] = {
    "response_format": ({"type": "text"},),
    "format": NO_TEXT,
    "grammar": NO_TEXT,
    "grammar_lazy": OFF,
    "grammar_triggers": NO_LIST,
    "json_schema": NO_TEXT,
    "regex": NO_TEXT,
    "ebnf": NO_TEXT,
    "guided_json": NO_TEXT,
    "guided_regex": NO_TEXT,
    "guided_grammar": NO_TEXT,
    "guided_choice": NO_LIST,
    "guided_whitespace_pattern": ANY_OF_OUR_WHITESPACE,
    "structured_outputs": NO_OBJECT,
    "structural_tag": NO_TEXT,
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
    "think": OFF,
    "thinking": (False, {}, {"type": "disabled"}, {"budget_tokens": 0}),
    "enable_thinking": OFF,
    "thinking_forced_open": OFF,
}

_TOOLS: Mapping[str, Values] = {
    "tools": NO_LIST,
    "tool_choice": ("", "none", "auto", {"type": "none"}, {"type": "auto"}),
    "functions": NO_LIST,
    "function_call": ("", "none", "auto"),
    "web_search_options": ONLY_NULL,
}

_PROMPT_AND_MEDIA: Mapping[str, Values] = {
    "suffix": NO_TEXT,
    "echo": OFF,
    "system": NO_TEXT,
    "template": NO_TEXT,
    "context": NO_LIST,
    "raw": OFF,
    "chat_template": NO_TEXT,
    "chat_template_kwargs": ({}, {"enable_thinking": False}, {"thinking": False}),
    "documents": NO_LIST,
    "task": NO_TEXT,
    "input_ids": NO_LIST,
    "prompt_embeds": ("", []),
    "modalities": ([], ["text"]),
    "audio": ONLY_NULL,
    "moderation": ONLY_NULL,
    "images": NO_LIST,
    "image_data": NO_LIST,
    "multimodal_data": NO_LIST,
    "mm_processor_kwargs": NO_OBJECT,
    "media_io_kwargs": NO_OBJECT,
    "images_config": NO_OBJECT,
    "use_audio_in_video": OFF,
}

_ANSWER: Mapping[str, Values] = {
    "n_probs": (0,),
    "top_logprobs": (0,),
    "post_sampling_probs": OFF,
    "return_tokens": OFF,
    "return_tokens_as_token_ids": OFF,
    "return_prompt_token_ids": OFF,
    "return_prompt_text": OFF,
    "return_token_offsets": OFF,
    "return_assistant_tokens_mask": OFF,
    "return_hidden_states": OFF,
    "return_routed_experts": OFF,
    "return_cached_tokens_details": OFF,
    "return_meta_info": OFF,
    "return_progress": OFF,
    "timings_per_token": OFF,
    "response_fields": NO_LIST,
    "request_id": NO_TEXT,
    "rid": ("", []),
    "_debug_render_only": OFF,
}

_SERVING: Mapping[str, Values] = {
    "model": NO_TEXT,
    "cache_salt": ("", []),
    "extra_key": ("", []),
    "priority": (0,),
    "lora": NO_LIST,
    "lora_path": ("", []),
    "session_id": NO_TEXT,
    "session_params": NO_OBJECT,
    "ngram_corpus_id": ("", []),
    "kv_transfer_params": NO_OBJECT,
    "ec_transfer_params": NO_OBJECT,
    "vllm_xargs": NO_OBJECT,
    "bootstrap_host": NO_TEXT,
    "bootstrap_port": ONLY_NULL,
    "bootstrap_room": ONLY_NULL,
    "options": NO_OBJECT,
    "vocab_only": OFF,
    "logits_all": OFF,
}

# By the reason why no value of these names could change an answer.
_WITHOUT_EFFECT: Mapping[str, str] = {
    "tunes a sampler that is refused": (
        "dynatemp_exponent xtc_threshold dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers "
        "mirostat_tau mirostat_eta adaptive_decay"
    ),
    "says which library obeys a constraint": "guided_decoding_backend",
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
    **{name: values for names in _WITHOUT_EFFECT.values() for name, values in any_value(names).items()},
    **OF_OTHERS,
}
IN_CHAT: Mapping[str, Values] = {
    **IN_ANY_REQUEST,
    "logprobs": (0,),
    "add_special_tokens": OFF,
    "parse_special": OFF,
    "tool_choice": NO_TEXT,  # its other words say something where there are tools
    "function_call": NO_TEXT,
}
IN_COMPLETION: Mapping[str, Values] = {
    **IN_ANY_REQUEST,
    # Chat has these; clients that know one class of requests send them here too.
    **any_value("metadata store safety_identifier prompt_cache_key parallel_tool_calls"),
    "logprobs": OFF,
    "add_special_tokens": ON,
    "add_generation_prompt": (True, False),  # there are no turns to open
    "continue_final_message": OFF,
}
IN_STREAM_OPTIONS: Mapping[str, Values] = {"include_obfuscation": ANYTHING}
