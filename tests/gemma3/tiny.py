"""Small random models, as transformers models, directories and GGUF files of the same values."""

import json
import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Gemma3ForCausalLM as OracleModel
from transformers import Gemma3TextConfig as OracleConfig

from gemma3.checkpoints.gguf_checkpoint import _LAYER_NAMES, _TOP_NAMES
from gemma3.config import Gemma3TextConfig
from gemma3.files.gguf import GGMLType
from tests.gemma3.gguf_files import write_gguf

VOCAB = 363


def random_shape(rng: random.Random) -> dict[str, int]:
    """A Gemma 3 text shape with few and odd sizes, as the keys of a ``config.json``."""
    num_kv_heads, group = rng.choice((1, 2, 4)), rng.choice((1, 2, 4))
    head_dim = rng.choice((8, 16, 32))
    return {
        "vocab_size": VOCAB,
        "hidden_size": num_kv_heads * group * rng.choice((8, 24)),
        "intermediate_size": rng.choice((32, 80)),
        "num_hidden_layers": rng.randint(1, 8),
        "num_attention_heads": num_kv_heads * group,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "sliding_window": rng.choice((3, 7, 16)),
        "query_pre_attn_scalar": rng.choice((head_dim, 24)),
        "max_position_embeddings": 256,
    }


def oracle_model(shape: dict[str, int], seed: int) -> OracleModel:
    """A transformers model with random weights large enough that every layer matters."""
    torch.manual_seed(seed)
    config = OracleConfig(**shape, attn_implementation="eager")
    model = OracleModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.2))
    return model


def config_of(model: OracleModel) -> Gemma3TextConfig:
    return Gemma3TextConfig.from_hf_dict(model.config.to_dict())


def weights_of(model: OracleModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}


def save_directory(folder: Path, model: OracleModel, tensors: dict[str, Tensor] | None = None) -> Path:
    """Write ``config.json``, ``model.safetensors`` and a byte-level ``tokenizer.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    save_file(weights_of(model) if tensors is None else tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    return folder


def byte_tokenizer() -> dict[str, object]:
    """A ``tokenizer.json`` in Gemma's layout with control tokens and the 256 bytes alone."""
    unused = [f"<unused{i}>" for i in range(100)]
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *unused, "<start_of_turn>", "<end_of_turn>"]
    vocab = {name: i for i, name in enumerate(names)} | {f"<0x{b:02X}>": len(names) + b for b in range(256)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    special = {name for name in names if name != "<mask>" and not name.startswith("<unused")}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": name, **flags, "special": name in special} for i, name in enumerate(names)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "fuse_unk": True,
            "vocab": vocab,
            "merges": [],
        },
    }


def gguf_metadata(config: Gemma3TextConfig) -> dict[str, object]:
    pieces = [token for token, _ in sorted(byte_tokenizer()["model"]["vocab"].items(), key=lambda item: item[1])]
    types = [6 if piece.startswith("<0x") else 3 for piece in pieces]
    return {
        "general.architecture": "gemma3",
        "gemma3.block_count": config.num_hidden_layers,
        "gemma3.context_length": config.context_length,
        "gemma3.embedding_length": config.hidden_size,
        "gemma3.feed_forward_length": config.intermediate_size,
        "gemma3.attention.head_count": config.num_attention_heads,
        "gemma3.attention.head_count_kv": config.num_key_value_heads,
        "gemma3.attention.key_length": config.head_dim,
        "gemma3.attention.value_length": config.head_dim,
        "gemma3.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "gemma3.attention.sliding_window": config.sliding_window,
        "gemma3.rope.freq_base": float(config.rope_theta),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": np.array([0.0] * len(pieces), dtype=np.float32),
        "tokenizer.ggml.token_type": np.array(types, dtype=np.int32),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
    }


def save_gguf(
    path: Path,
    model: OracleModel,
    tensors: dict[str, Tensor] | None = None,
    *,
    metadata: dict[str, object] | None = None,
) -> Path:
    """The same values as ``save_directory``, float32, with llama.cpp's names and its 1 added to the norms."""
    entries = gguf_entries(weights_of(model) if tensors is None else tensors)
    return write_gguf(path, metadata or gguf_metadata(config_of(model)), entries)


def gguf_entries(tensors: dict[str, Tensor]) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """Type, shape and bytes by the names of the file, as ``write_gguf`` takes them."""
    entries = {}
    for name, tensor in tensors.items():
        values = (tensor + 1.0 if tensor.ndim == 1 else tensor).float().contiguous().numpy()
        entries[gguf_name(name)] = (GGMLType.F32, tuple(tensor.shape), values.tobytes())
    return entries


def gguf_name(name: str) -> str:
    tops = {ours: theirs for theirs, ours in _TOP_NAMES.items()}
    layers = {ours: theirs for theirs, ours in _LAYER_NAMES.items()}
    if name in tops:
        return tops[name]
    block, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{block}.{layers[rest.removesuffix('.weight')]}.weight"
