"""Gemma 3 text in plain torch: the file to read first.

A pure function of (token ids, positions, caches): it knows nothing of requests, sampling or text. Any device, float32 or
bfloat16. Shapes: ``T`` tokens of a step, ``R`` rows whose logits are wanted, ``D`` hidden, ``V`` vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gemma3.config import Gemma3TextConfig
from gemma3.torch_model.attention import Attention, Segment
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.layers import MLP, RMSNorm, RotaryTables, ScaledEmbedding, linear


class DecoderLayer(nn.Module):
    """One block: four norms, before and after the attention and the MLP."""

    def __init__(self, config: Gemma3TextConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_type = config.layer_types[layer_idx]
        self.self_attn = Attention(config, layer_idx)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.pre_feedforward_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_TD: Tensor, cos_T1H: Tensor, sin_T1H: Tensor, segments: Sequence[Segment]) -> Tensor:
        attended_TD = self.self_attn(self.input_layernorm(x_TD), cos_T1H, sin_T1H, segments)
        x_TD = x_TD + self.post_attention_layernorm(attended_TD)
        expanded_TD = self.mlp(self.pre_feedforward_layernorm(x_TD))
        out_TD: Tensor = x_TD + self.post_feedforward_layernorm(expanded_TD)
        return out_TD


class Gemma3Model(nn.Module):
    """Embedding, blocks, final norm: token ids to hidden states."""

    def __init__(self, config: Gemma3TextConfig) -> None:
        super().__init__()
        self.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = RotaryTables(config)

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, segments: Sequence[Segment]) -> Tensor:
        x_TD = self.embed_tokens(token_ids_T)
        tables = self.rotary(positions_T, x_TD.dtype)
        for layer in self.layers:
            x_TD = layer(x_TD, *tables[layer.layer_type], segments)
        out_TD: Tensor = self.norm(x_TD)
        return out_TD


class Gemma3ForCausalLM(nn.Module):
    """The model with its head, which is the embedding itself ("tied").

    ``forward`` and ``compute_logits`` are apart because the head is 62.6 % of all weight bytes of the 270M: compute it only for
    rows that are sampled or whose log probabilities are asked for. A new model's weights are not initialised:
    ``load_weights_into`` fills them.
    """

    def __init__(self, config: Gemma3TextConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Gemma3Model(config)

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Hidden states ``(T, D)`` of a ragged batch: one flat row of tokens, cut into one segment per sequence.

        Each segment's cache must hold exactly the tokens before the segment's first position.
        """
        hidden_TD: Tensor = self.model(token_ids_T, positions_T, segments)
        return hidden_TD

    def compute_logits(self, hidden_RD: Tensor) -> Tensor:
        """Logits ``(R, V)`` in the weights' dtype."""
        return linear(hidden_RD, self.model.embed_tokens.weight)

    def step(self, token_ids_T: Tensor, cache: ContiguousKVCache) -> Tensor:
        """Run the next tokens of a single sequence; hidden states ``(T, D)``."""
        first, num_new = cache.num_tokens, token_ids_T.shape[0]
        positions_T = torch.arange(first, first + num_new, device=token_ids_T.device)
        return self.forward(token_ids_T, positions_T, [Segment(0, num_new, cache)])
