"""Values that ask for nothing under the names of servers and front ends that are not OpenAI's kin.

text-generation-webui, Text Generation Inference, LM Studio and OpenRouter define these names beside
OpenAI's, and clients written for them (SillyTavern among others) send them at their defaults. Owns
names and values, knows no model. The names are those that their clients send; the sources of these
servers were not read. Constants.
"""

from collections.abc import Mapping

from openai_api.request.neutral_values import NO_LIST, NO_OBJECT, NO_TEXT, OFF, ON, ONE, ZERO, Values, any_value

_TEXT_GENERATION_WEBUI: Mapping[str, Values] = {
    "mode": ("instruct",),
    "character": NO_TEXT,
    "preset": NO_TEXT,
    "instruction_template": NO_TEXT,
    "instruction_template_str": NO_TEXT,
    "chat_template_str": NO_TEXT,
    "chat_instruct_command": NO_TEXT,
    "user_bio": NO_TEXT,
    "continue_": OFF,
    "dynamic_temperature": OFF,
    "smoothing_factor": ZERO,
    "epsilon_cutoff": ZERO,
    "eta_cutoff": ZERO,
    "top_a": ZERO,
    "tfs": ONE,
    "penalty_alpha": ZERO,
    "guidance_scale": ONE,
    "negative_prompt": NO_TEXT,
    "mirostat_mode": ZERO,
    "no_repeat_ngram_size": ZERO,
    "encoder_repetition_penalty": ONE,
    "num_beams": ONE,
    "truncation_length": ZERO,
    "max_tokens_second": ZERO,
    "prompt_lookup_num_tokens": ZERO,
    "custom_token_bans": NO_TEXT,
    "banned_strings": ("", []),
    "auto_max_new_tokens": OFF,
    "ban_eos_token": OFF,
    "add_bos_token": ON,
    "sampler_priority": ("", []),
    "sampler_order": NO_LIST,
    "temperature_last": OFF,
    "grammar_string": NO_TEXT,
    "static_cache": OFF,
}

_TEXT_GENERATION_INFERENCE: Mapping[str, Values] = {
    "adapter_id": NO_TEXT,
    "do_sample": ON,
    "watermark": OFF,
    "details": OFF,
    "decoder_input_details": OFF,
    "return_full_text": OFF,
    "top_n_tokens": ZERO,
    "guideline": NO_TEXT,
}

_HOSTS: Mapping[str, Values] = {
    "draft_model": NO_TEXT,
    "provider": NO_OBJECT,
    "transforms": NO_LIST,
    "plugins": NO_LIST,
    "models": NO_LIST,
    "usage": ({}, {"include": False}),
    "safe_prompt": OFF,
    "web_search": OFF,
    "max_thinking_tokens": ZERO,
}

OF_OTHERS: Mapping[str, Values] = {
    **_TEXT_GENERATION_WEBUI,
    **_TEXT_GENERATION_INFERENCE,
    **_HOSTS,
    # They tune a sampler that is refused, draw a chat's names, or say how long a model stays.
    **any_value("dynatemp_low dynatemp_high smoothing_curve name1 name2 bot_name user_name ttl"),
}
