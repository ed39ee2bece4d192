"""Weights as a Hugging Face directory in float32, from which the peers' converters start and which transformers opens.

python benchmarks/export_checkpoint.py FOLDER --tokenizer FOLDER_WITH_TOKENIZER_JSON
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from common import ROOT
from safetensors.torch import save_file

from engine.terminal.flag_parser import FlagParser
from engine.terminal.guard import run_guarded
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
SAME = (*SIZES, "head_dim", "rms_norm_eps", "sliding_window", "rope_theta")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
PROGRAM = "export_checkpoint.py"


def hf_config(config: Gemma3TextConfig, dtype: str) -> dict[str, object]:
    """The ``config.json`` of transformers 4 and 5."""
    scalar = config.query_pre_attn_scalar
    return {name: getattr(config, name) for name in SAME} | {
        # transformers 5 takes an integer alone.
        "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,
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


def export(model: str | None, folder: Path, *, tokenizer: Path, dtype: str) -> None:
    """Write the weights of ``model`` and the tokenizer's files to ``folder``."""
    checkpoint = open_checkpoint(locate_weights(model, beside=ROOT).path)
    if not (tokenizer / TOKENIZER_FILES[0]).is_file():
        raise ValueError(f"--tokenizer {tokenizer} holds no {TOKENIZER_FILES[0]}")
    folder.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / name)
    config = hf_config(checkpoint.config, dtype)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    tensors = load_tensors(checkpoint, "float32")
    weights = {name: tensor.to(getattr(torch, dtype)).contiguous() for name, tensor in tensors.items() if name != HEAD}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> int:
    flags = FlagParser(prog=PROGRAM, description="Write weights as a Hugging Face folder that transformers opens.")
    flags.add_argument("folder", type=Path, help="Make this folder (no default).")
    flags.add_argument("--model", help="Export these weights, named as for main.py (default: those it finds).")
    flags.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="Copy tokenizer.json from this folder, and tokenizer_config.json if it is there (no default).",
    )
    flags.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="Write this type (default: %(default)s)."
    )
    args = flags.parse(None)
    export(args.model, args.folder, tokenizer=args.tokenizer, dtype=args.dtype)
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(PROGRAM, main))
