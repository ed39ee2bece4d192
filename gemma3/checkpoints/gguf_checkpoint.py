"""A ``.gguf`` file as a checkpoint: llama.cpp's names and metadata in the words of ``config.json``.

Owns the translation of names, sizes and norms. ``gemma3.files.gguf`` reads the file; nothing here imports torch. Opening
reads no weights. Any thread may read once it is open.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gemma3.checkpoints.decoding import decode_all
from gemma3.checkpoints.end_tokens import EndTokens, end_tokens_of_gguf
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD, check_shapes, expected_shapes
from gemma3.config import BOUNDS, Gemma3TextConfig, layer_types_from_pattern
from gemma3.errors import CheckpointError, ConfigError
from gemma3.files.gguf import GGUFFile
from gemma3.progress import Progress
from gemma3.text.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_TOP_NAMES = {"token_embd.weight": EMBEDDING, "output_norm.weight": "model.norm.weight", "output.weight": HEAD}
_SIZE_KEYS = {
    "hidden_size": "gemma3.embedding_length",
    "intermediate_size": "gemma3.feed_forward_length",
    "num_hidden_layers": "gemma3.block_count",
    "num_attention_heads": "gemma3.attention.head_count",
    "num_key_value_heads": "gemma3.attention.head_count_kv",
    "head_dim": "gemma3.attention.key_length",
    "context_length": "gemma3.context_length",
    "sliding_window": "gemma3.attention.sliding_window",
}
# Metadata that would change what the model computes.
_REFUSED = ("gemma3.attn_logit_softcapping", "gemma3.final_logit_softcapping", "gemma3.rope.scaling.factor")


@dataclass(frozen=True, slots=True)
class GGUFCheckpoint:
    """``names`` maps the model's tensor names to those of the file."""

    file: GGUFFile
    path: Path
    config: Gemma3TextConfig
    names: dict[str, str]
    end_tokens: EndTokens

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the header and check names and shapes against the metadata."""
        file = GGUFFile.open(path)
        config = _config(file)
        names = {_model_name(name): name for name in file.tensors}
        shapes = {name: file.tensors[inner].shape for name, inner in names.items()}
        check_shapes(shapes, expected_shapes(config), where=path.name)
        return cls(file, path, config, names, end_tokens_of_gguf(file.metadata))

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def weight_files(self) -> list[Path]:
        return [self.path]

    @property
    def tensor_names(self) -> frozenset[str]:
        """What the file holds, in the model's words."""
        return frozenset(self.names)

    @property
    def generation_config(self) -> dict[str, Any]:
        return {}

    @property
    def quantization(self) -> str:
        """The type of most weights, in GGML's words."""
        types = [tensor.ggml_type for tensor in self.file.tensors.values() if len(tensor.shape) == 2]
        return max(set(types), key=lambda kind: (types.count(kind), kind)).name

    def is_instruction_tuned(self, tokenizer: Gemma3Tokenizer) -> bool:
        """A chat template, or a name or fine-tune mark of ``it``, says that the model was trained on turns."""
        marks = (str(self.file.metadata.get(key, "")) for key in ("general.finetune", "general.name"))
        return tokenizer.chat_template is not None or any(
            "it" in mark.lower().replace("-", " ").split() for mark in marks
        )

    def load_tokenizer(self) -> Gemma3Tokenizer:
        return Gemma3Tokenizer.from_gguf(self.file, num_rows=self.config.vocab_size)

    def load_arrays(self, dtype: str, progress: Progress) -> "dict[str, NDArray[Any]]":
        """All tensors as ``decode_all`` makes them.

        Raises:
            CheckpointError: a value is NaN or infinite.
        """
        shapes = {name: self.file.tensors[inner].shape for name, inner in self.names.items()}
        return decode_all(shapes, self.read_rows, dtype=dtype, progress=progress)

    def read_rows(self, name: str, rows: slice) -> "NDArray[np.float32]":
        """Rows ``[start, stop)`` of a tensor, by the model's name, as new float32 values.

        Raises:
            CheckpointError: a value is NaN or infinite.
        """
        inner = self.names[name]
        values = self.file.dequantize(inner, rows)
        if not math.isfinite(values.sum(dtype=values.dtype)):
            raise CheckpointError(f"{self.path.name}: {inner} holds NaN or infinite values.")
        if values.ndim == 1:
            values -= 1.0  # llama.cpp stores norms with 1 added (convert_hf_to_gguf.py, Gemma3Model)
        return values

    def drop_pages(self) -> None:
        """Let go of what was read so far: mapped pages count as this process's memory."""
        self.file.drop_pages()


def _model_name(inner: str) -> str:
    """The model's name of a tensor of the file; an unknown one keeps its own and is reported as extra."""
    block, _, rest = inner.removeprefix("blk.").partition(".")
    kind = rest.removesuffix(".weight")
    if inner.startswith("blk.") and block.isdigit() and kind in _LAYER_NAMES:
        return f"model.layers.{int(block)}.{_LAYER_NAMES[kind]}.weight"
    return _TOP_NAMES.get(inner, inner)


def _config(file: GGUFFile) -> Gemma3TextConfig:
    architecture = file.metadata.get("general.architecture")
    if architecture != "gemma3":
        raise ConfigError(f"general.architecture={architecture!r:.60} is not Gemma 3 text; 'gemma3' is needed.")
    for key in _REFUSED:
        if file.metadata.get(key) not in (None, 0.0, 1.0):
            raise ConfigError(f"{key}={file.metadata[key]!r:.60} is not implemented.")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError("token_embd.weight is missing.")
    sizes = {
        name: file.get_int(key, minimum=BOUNDS[name][0], maximum=BOUNDS[name][1]) for name, key in _SIZE_KEYS.items()
    }
    return Gemma3TextConfig(
        **sizes,
        vocab_size=embedding.shape[0],
        rms_norm_eps=file.get_float("gemma3.attention.layer_norm_rms_epsilon"),
        # llama.cpp scales Gemma 3's queries by 1 / sqrt(head size) in every size but 27B (llama-model.cpp).
        query_pre_attn_scalar=float(sizes["head_dim"]),
        rope_theta=file.get_float("gemma3.rope.freq_base"),
        layer_types=layer_types_from_pattern(sizes["num_hidden_layers"], 6),
    )
