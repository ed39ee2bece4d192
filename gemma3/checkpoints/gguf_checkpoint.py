"""A GGUF file, or the parts of one, as a checkpoint: llama.cpp's tensors under the names of the Hub's files.

Owns the translation of tensor names and norms; ``gguf_config`` reads the metadata, ``gemma3.files`` the file. Nothing here
imports torch. Opening reads no weights. Any thread may read once it is open.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gemma3.checkpoints.decoding import decode_all
from gemma3.checkpoints.end_tokens import EndTokens, end_tokens_of_gguf
from gemma3.checkpoints.gguf_config import config_of_gguf
from gemma3.checkpoints.gguf_head import is_same_up_to_rounding
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD, check_shapes, expected_shapes
from gemma3.config import Gemma3TextConfig
from gemma3.errors import CheckpointError
from gemma3.files.gguf import GGUFFile
from gemma3.files.gguf_parts import GGUFParts, whole_name
from gemma3.progress import Progress
from gemma3.text.template_files import ChatTemplates, templates_of_gguf
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


@dataclass(frozen=True, slots=True)
class GGUFCheckpoint:
    """``names`` maps the model's tensor names to those of the file; ``file`` has the metadata."""

    file: GGUFFile
    path: Path
    config: Gemma3TextConfig
    names: dict[str, str]
    end_tokens: EndTokens
    parts: GGUFParts

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the header and check names and shapes against the metadata. Of a split model any part may be given.

        Raises:
            ConfigError: the model is not Gemma 3 text.
            CheckpointError: a file is damaged, or a part or a tensor is missing, unknown or of the wrong shape.
        """
        parts = GGUFParts.open(path)
        config = config_of_gguf(parts.first, {name: tensor.shape for name, tensor in parts.tensors.items()})
        names = {_model_name(name): name for name in parts.tensors}
        shapes = {name: parts.tensors[inner].shape for name, inner in names.items()}
        check_shapes(shapes, expected_shapes(config), where=path.name)
        return cls(parts.first, path, config, names, end_tokens_of_gguf(parts.first.metadata), parts)

    @property
    def name(self) -> str:
        return whole_name(self.path)

    @property
    def weight_files(self) -> list[Path]:
        return list(self.parts.paths)

    @property
    def tensor_names(self) -> frozenset[str]:
        """What the file holds, in the model's words. A second copy of the embedding is checked here, and never shown."""
        return frozenset(self.names) - {HEAD}

    @property
    def generation_config(self) -> dict[str, Any]:
        return {}

    @property
    def quantization(self) -> str:
        """The type of most weights, in GGML's words."""
        types = [tensor.ggml_type for tensor in self.parts.tensors.values() if len(tensor.shape) == 2]
        return max(set(types), key=lambda kind: (types.count(kind), kind)).name

    def tuned_mark(self, tokenizer: Gemma3Tokenizer) -> str | None:
        """Where a file without a chat template says that its model was trained on turns: a name or fine-tune mark of ``it``."""
        for key in ("general.finetune", "general.name"):
            if "it" in str(self.file.metadata.get(key, "")).lower().replace("-", " ").split():
                return f"{key} says 'it'"
        return None

    def chat_templates(self) -> ChatTemplates:
        """Those of its metadata."""
        return templates_of_gguf(self.file)

    def load_tokenizer(self) -> Gemma3Tokenizer:
        return Gemma3Tokenizer.from_gguf(self.file, num_rows=self.config.vocab_size)

    def load_arrays(self, dtype: str, progress: Progress) -> "dict[str, NDArray[Any]]":
        """All tensors as ``decode_all`` makes them.

        Raises:
            CheckpointError: a value is NaN or infinite.
        """
        shapes = {name: self.parts.tensors[self.names[name]].shape for name in self.tensor_names}
        return decode_all(shapes, self.read_rows, dtype=dtype, progress=progress)

    def read_rows(self, name: str, rows: slice) -> "NDArray[np.float32]":
        """Rows ``[start, stop)`` of a tensor, by the model's name, as new float32 values.

        Raises:
            CheckpointError: a value is NaN or infinite, or the file has a head of its own.
        """
        values = self._read(self.names[name], rows)
        if values.ndim == 1:
            values -= 1.0  # llama.cpp stores norms with 1 added (convert_hf_to_gguf.py, Gemma3Model)
        if name == EMBEDDING and HEAD in self.names:
            self._check_head(values, rows)
        return values

    def _read(self, inner: str, rows: slice) -> "NDArray[np.float32]":
        values = self.parts.dequantize(inner, rows)
        if not math.isfinite(values.sum(dtype=values.dtype)):
            raise CheckpointError(f"{self.path.name}: {inner} holds NaN or infinite values.")
        return values

    def _check_head(self, embedding_VD: "NDArray[np.float32]", rows: slice) -> None:
        """Tools that quantise give the second copy another type than the first: they agree up to rounding."""
        inner = self.names[HEAD]
        kinds = [self.parts.tensors[name].ggml_type for name in (self.names[EMBEDDING], inner)]
        if not is_same_up_to_rounding(embedding_VD, self._read(inner, rows), kinds):
            raise CheckpointError(
                f"{self.path.name}: {inner} differs from {self.names[EMBEDDING]}; this model ties them, so a head of its "
                "own is not supported."
            )

    def drop_pages(self) -> None:
        """Let go of what was read so far: mapped pages count as this process's memory."""
        self.parts.drop_pages()


def _model_name(inner: str) -> str:
    """The model's name of a tensor of the file; an unknown one keeps its own and is reported as extra."""
    block, _, rest = inner.removeprefix("blk.").partition(".")
    kind = rest.removesuffix(".weight")
    if inner.startswith("blk.") and block.isdigit() and kind in _LAYER_NAMES:
        return f"model.layers.{int(block)}.{_LAYER_NAMES[kind]}.weight"
    return _TOP_NAMES.get(inner, inner)
