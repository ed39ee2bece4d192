"""Which tensors a checkpoint must hold: names, shapes, and the check that every one is there exactly once.

Owns the names of ``Gemma3ForCausalLM.state_dict()``, which are those of the Hub's files. Knows nothing of files or values.
Plain functions, any thread.
"""

from collections.abc import Mapping

from gemma3.config import Gemma3TextConfig
from gemma3.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
# Some tools write the tied head a second time; it is accepted when it equals the embedding.
HEAD = "lm_head.weight"


def expected_shapes(config: Gemma3TextConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the model, as ``Gemma3ForCausalLM.state_dict()`` has them."""
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, config.hidden_size)}
    for i in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in _layer_shapes(config).items()}
    return shapes | {FINAL_NORM: (config.hidden_size,)}


def _layer_shapes(config: Gemma3TextConfig) -> dict[str, tuple[int, ...]]:
    hidden, mlp = config.hidden_size, config.intermediate_size
    q_size = config.num_attention_heads * config.head_dim
    kv_size = config.num_key_value_heads * config.head_dim
    return {
        "self_attn.q_proj": (q_size, hidden),
        "self_attn.k_proj": (kv_size, hidden),
        "self_attn.v_proj": (kv_size, hidden),
        "self_attn.o_proj": (hidden, q_size),
        "self_attn.q_norm": (config.head_dim,),
        "self_attn.k_norm": (config.head_dim,),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "pre_feedforward_layernorm": (hidden,),
        "post_feedforward_layernorm": (hidden,),
    }


def check_shapes(found: Shapes, expected: Shapes, *, where: str) -> None:
    """Raise ``CheckpointError`` naming the first tensor that is missing, unknown, or of the wrong shape."""
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(f"{where}: {len(missing)} tensors are missing, the first is {missing[0]}.")
    extra = [name for name in found if name not in expected and name != HEAD]
    if extra:
        raise CheckpointError(f"{where}: {len(extra)} tensors are not of this model, the first is {extra[0]!r:.120}.")
    for name, shape in found.items():
        wanted = expected.get(name, expected[EMBEDDING])
        if tuple(shape) != tuple(wanted):
            raise CheckpointError(f"{where}: {name} has shape {list(shape)}, expected {list(wanted)}.")
