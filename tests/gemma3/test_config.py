"""``Gemma3TextConfig``: both spellings of config.json, and what is refused."""

import dataclasses

import pytest

from gemma3 import Gemma3TextConfig
from gemma3.config import FULL, SLIDING
from gemma3.errors import ConfigError

OLD = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2_048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "rope_scaling": None,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "attention_bias": False,
    "hidden_activation": "gelu_pytorch_tanh",
    "use_cache": True,
    "torch_dtype": "bfloat16",
}
NEW = {key: value for key, value in OLD.items() if not key.startswith(("rope_", "sliding_window_p"))} | {
    "layer_types": ([SLIDING] * 5 + [FULL]) * 3,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "default", "rope_theta": 1_000_000.0},
    },
}


def test_defaults_are_the_270m() -> None:
    config = Gemma3TextConfig()
    assert (config.context_length, config.sliding_window) == (32_768, 512)
    assert (config.rope_theta, config.rope_local_theta) == (1e6, 1e4)
    assert [i for i, kind in enumerate(config.layer_types) if kind == FULL] == [5, 11, 17]


@pytest.mark.parametrize("raw", [OLD, NEW], ids=["old spelling", "new spelling"])
def test_both_spellings_give_the_270m(raw: dict[str, object]) -> None:
    assert Gemma3TextConfig.from_hf_dict(raw) == Gemma3TextConfig()


def test_values_are_not_taken_from_the_defaults() -> None:
    changed = NEW | {
        "layer_types": [FULL, SLIDING],
        "num_hidden_layers": 2,
        "rope_parameters": {SLIDING: {"rope_theta": 5.0}, FULL: {"rope_theta": 7.0}},
    }
    config = Gemma3TextConfig.from_hf_dict(changed)
    assert (config.layer_types, config.rope_local_theta, config.rope_theta) == ((FULL, SLIDING), 5.0, 7.0)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model_type", "llama", "not Gemma 3 text"),
        ("model_type", "gemma2", "not Gemma 3 text"),
        ("model_type", "gemma3", "multimodal"),
        ("context_length", 4_096, "context_length=4096 and max_position_embeddings=32768 differ"),
        ("rope_local_theta", 9.0, "rope_local_theta=9.0 and rope_local_base_freq=10000.0 differ"),
        ("rope_parameters", {FULL: {"rope_theta": 7.0}}, "rope_parameters.full_attention.rope_theta=7.0 differ"),
        ("final_logit_softcapping", 30.0, "final_logit_softcapping=30.0"),
        ("attn_logit_softcapping", 50.0, "attn_logit_softcapping=50.0"),
        ("use_bidirectional_attention", True, "use_bidirectional_attention=True"),
        ("attention_bias", True, "attention_bias=True"),
        ("tie_word_embeddings", False, "tie_word_embeddings=False"),
        ("hidden_activation", "silu", "hidden_activation='silu'"),
        ("rope_scaling", {"rope_type": "linear", "factor": 8.0}, "rope_scaling"),
        ("rope_parameters", {FULL: {"rope_type": "linear"}}, "rope_type='linear'"),
        ("rope_parameters", [1], "rope_parameters=[1]"),
        ("rope_parameters", {FULL: 3}, "rope_parameters.full_attention=3"),
        ("num_hidden_layers", 10**9, "num_hidden_layers=1000000000"),
        ("num_hidden_layers", True, "num_hidden_layers=True"),
        ("num_hidden_layers", "18", "num_hidden_layers='18'"),
        ("hidden_size", 0, "hidden_size=0"),
        ("hidden_size", None, "hidden_size=None"),
        ("vocab_size", 10**7, "vocab_size=10000000"),
        ("head_dim", 255, "head_dim=255"),
        ("num_key_value_heads", 3, "num_key_value_heads=3"),
        ("rms_norm_eps", float("nan"), "rms_norm_eps=nan"),
        ("rms_norm_eps", -1e-6, "rms_norm_eps=-1e-06"),
        ("sliding_window", None, "sliding_window=None"),
        ("sliding_window_pattern", 0, "sliding_window_pattern=0"),
        ("layer_types", [SLIDING], "layer_types has 1 entries"),
        ("layer_types", ["chunked_attention"] * 18, "chunked_attention"),
        ("layer_types", "x", "layer_types='x'"),
    ],
)
def test_refused(key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Gemma3TextConfig.from_hf_dict(OLD | {key: value})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scaling", [{}, {"rope_type": "default"}, {"type": "default"}])
def test_a_scaling_that_scales_nothing(scaling: dict[str, str]) -> None:
    assert Gemma3TextConfig.from_hf_dict(OLD | {"rope_scaling": scaling}) == Gemma3TextConfig()


def test_the_text_part_of_a_multimodal_config() -> None:
    whole = {"model_type": "gemma3", "vision_config": {"hidden_size": 7}, "text_config": NEW | {"sliding_window": 9}}
    assert Gemma3TextConfig.from_hf_dict(whole) == Gemma3TextConfig(sliding_window=9)
    with pytest.raises(ConfigError, match="attention_bias=True"):
        Gemma3TextConfig.from_hf_dict({**whole, "text_config": NEW | {"attention_bias": True}})


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers"])
def test_missing_sizes_are_named(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Gemma3TextConfig.from_hf_dict({name: value for name, value in OLD.items() if name != key})


PLAIN = {
    "vocab_size": 262,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 7,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "context_length": 96,
    "sliding_window": 16,
    "rope_theta": 5_000.0,
    "rope_local_theta": 50.0,
}


@pytest.mark.parametrize("more", [{}, {"model_type": "gemma3_text"}, {"model_type": None}], ids=str)
def test_a_plain_dictionary_sets_every_field_it_names(more: dict[str, object]) -> None:
    config = Gemma3TextConfig.from_hf_dict(PLAIN | more)
    assert {name: getattr(config, name) for name in PLAIN} == PLAIN
    assert config == Gemma3TextConfig(**PLAIN)


def test_round_trip_of_every_field() -> None:
    config = Gemma3TextConfig(**PLAIN, rms_norm_eps=1e-5, query_pre_attn_scalar=7.0, layer_types=(FULL, *[SLIDING] * 6))
    defaults = dataclasses.asdict(Gemma3TextConfig())
    fields = dataclasses.asdict(config)
    assert all(fields[name] != defaults[name] or name == "num_key_value_heads" for name in fields)
    assert Gemma3TextConfig.from_hf_dict(fields) == config


def test_both_names_of_a_setting_may_agree() -> None:
    both = OLD | NEW | {"context_length": 32_768, "rope_local_theta": 10_000}
    assert Gemma3TextConfig.from_hf_dict(both) == Gemma3TextConfig()


@pytest.mark.parametrize("foreign", [{"architectures": ["LlamaForCausalLM"]}, {"model_type": "qwen3"}], ids=str)
def test_a_foreign_plain_dictionary_is_refused(foreign: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="not Gemma 3 text"):
        Gemma3TextConfig.from_hf_dict(PLAIN | foreign)
