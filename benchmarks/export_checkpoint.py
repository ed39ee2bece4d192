"""The default weights as a Hugging Face directory in float32, from which the peers' converters start.

python benchmarks/export_checkpoint.py FOLDER --tokenizer FOLDER_WITH_TOKENIZER_JSON
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from common import ROOT
from safetensors.torch import save_file

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.locate import locate_weights
from gemma3.checkpoints.tensor_names import HEAD
from gemma3.config import Gemma3TextConfig
from gemma3.torch_model.load import load_tensors

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
SAME = (*SIZES, "head_dim", "rms_norm_eps", "query_pre_attn_scalar", "sliding_window", "rope_theta")


def hf_config(config: Gemma3TextConfig, dtype: str) -> dict[str, object]:
    """The ``config.json`` of transformers 4 and 5."""
    return {name: getattr(config, name) for name in SAME} | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "max_position_embeddings": config.context_length,
        "rope_local_base_freq": config.rope_local_theta,
        "layer_types": list(config.layer_types),
        "sliding_window_pattern": 6,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("folder", type=Path)
    flags.add_argument("--tokenizer", type=Path, required=True, help="has tokenizer.json and tokenizer_config.json")
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = flags.parse_args()
    checkpoint = open_checkpoint(locate_weights(None, beside=ROOT).path)
    dtype = getattr(torch, args.dtype)
    tensors = load_tensors(checkpoint, "float32")
    args.folder.mkdir(exist_ok=True)
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items() if name != HEAD}
    save_file(weights, args.folder / "model.safetensors", metadata={"format": "pt"})
    (args.folder / "config.json").write_text(json.dumps(hf_config(checkpoint.config, args.dtype), indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(args.tokenizer / name, args.folder / name)


if __name__ == "__main__":
    main()
