"""A ``.gguf`` file as a checkpoint: llama.cpp's names and metadata in the words of ``config.json``."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD, Progress, check_shapes, expected_shapes
from gemma3.config import Gemma3TextConfig, layer_types_from_pattern
from gemma3.errors import CheckpointError, ConfigError
from gemma3.files.gguf import GGUFFile
from gemma3.text.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

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
# Metadata that would change what the model computes.
_REFUSED = ("gemma3.attn_logit_softcapping", "gemma3.final_logit_softcapping", "gemma3.rope.scaling.factor")
# 2,048 rows of the embedding are 5 MB as float32: dequantised, rounded and stored before they leave the L2 cache.
_CHUNK_ELEMENTS = 2_048 * 640
_CACHE_LINE_BYTES = 64


@dataclass(frozen=True, slots=True)
class GGUFCheckpoint:
    """``names`` maps the model's tensor names to those of the file."""

    file: GGUFFile
    path: Path
    config: Gemma3TextConfig
    names: dict[str, str]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the header and check names and shapes against the metadata."""
        file = GGUFFile.open(path)
        config = _config(file)
        names = {_model_name(name): name for name in file.tensors}
        shapes = {name: file.tensors[inner].shape for name, inner in names.items()}
        check_shapes(shapes, expected_shapes(config), where=path.name)
        return cls(file, path, config, names)

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
        return Gemma3Tokenizer.from_gguf(self.file)

    def load_tensors(self, dtype: str, progress: Progress) -> "dict[str, Tensor]":
        """All tensors, dequantised to ``dtype``; norms stay float32.

        Needs torch only at the very end: until then it can run in a thread while torch is being imported.
        """
        arrays = self._load_arrays(dtype, progress)
        import numpy as np
        import torch

        as_bfloat16 = {name for name, array in arrays.items() if array.dtype == np.uint16}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {name: t.view(torch.bfloat16) if name in as_bfloat16 else t for name, t in tensors.items()}

    def _load_arrays(self, dtype: str, progress: Progress) -> "dict[str, NDArray[Any]]":
        """One cache-sized chunk at a time on every core (numpy releases the GIL). Bfloat16 is its bits as ``uint16``."""
        import numpy as np

        arrays: dict[str, NDArray[Any]] = {}
        jobs = []
        for name, inner in self.names.items():
            shape = self.file.tensors[inner].shape
            arrays[name] = _aligned_empty(shape, np.uint16 if dtype == "bfloat16" and len(shape) > 1 else np.float32)
            jobs += [partial(self._fill, arrays[name], name, rows) for rows in _row_chunks(shape)]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for num_done, job in enumerate([pool.submit(job) for job in jobs], start=1):
                job.result()
                progress(num_done, len(jobs))
        return arrays

    def _fill(self, out: "NDArray[Any]", name: str, rows: slice) -> None:
        values = self.read_rows(name, rows)
        out[rows] = values if out.dtype == values.dtype else bfloat16_bits(values)

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


def _aligned_empty(shape: tuple[int, ...], dtype: "type[np.generic]") -> "NDArray[Any]":
    """An array that begins with a cache line: numpy's 16 bytes cost the matrix products 10 to 15 %."""
    import numpy as np

    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(num_bytes + _CACHE_LINE_BYTES, np.uint8)
    start = -buffer.ctypes.data % _CACHE_LINE_BYTES
    return buffer[start : start + num_bytes].view(dtype).reshape(shape)


def bfloat16_bits(values: "NDArray[np.float32]") -> "NDArray[np.uint16]":
    """Round finite float32 values to the nearest bfloat16, ties to even. ``values`` is used up as working space."""
    import numpy as np

    bits = values.view(np.uint32)
    odd = bits >> 16
    odd &= 1
    bits += odd
    bits += 0x7FFF
    return bits.view(np.uint16)[..., 1::2]


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    columns = shape[1] if len(shape) > 1 else 1
    step = max(1, _CHUNK_ELEMENTS // columns)
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


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
    num_layers = file.get_int("gemma3.block_count", minimum=1, maximum=256)
    head_dim = file.get_int("gemma3.attention.key_length", minimum=2, maximum=1_024)
    return Gemma3TextConfig(
        vocab_size=embedding.shape[0],
        hidden_size=file.get_int("gemma3.embedding_length", minimum=1, maximum=32_768),
        intermediate_size=file.get_int("gemma3.feed_forward_length", minimum=1, maximum=131_072),
        num_hidden_layers=num_layers,
        num_attention_heads=file.get_int("gemma3.attention.head_count", minimum=1, maximum=256),
        num_key_value_heads=file.get_int("gemma3.attention.head_count_kv", minimum=1, maximum=256),
        head_dim=head_dim,
        rms_norm_eps=file.get_float("gemma3.attention.layer_norm_rms_epsilon"),
        # llama.cpp scales Gemma 3's queries by 1 / sqrt(head size) in every size but 27B (llama-model.cpp).
        query_pre_attn_scalar=float(head_dim),
        context_length=file.get_int("gemma3.context_length", minimum=1, maximum=1_048_576),
        sliding_window=file.get_int("gemma3.attention.sliding_window", minimum=1, maximum=1_048_576),
        rope_theta=file.get_float("gemma3.rope.freq_base"),
        layer_types=layer_types_from_pattern(num_layers, 6),
    )
