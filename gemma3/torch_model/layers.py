"""The small pieces of Gemma 3 in plain torch: scaled embedding, RMSNorm, rotary positions, gated MLP.

Shapes: ``T`` tokens of a step, ``N`` heads, ``H`` head size, ``D`` hidden, ``F`` MLP, ``V`` vocabulary.
Names of modules equal the checkpoint's, so a state dict loads without a table of renames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gemma3.config import FULL, SLIDING, Gemma3TextConfig


class RMSNorm(nn.Module):
    """``x / rms(x) * (1 + weight)`` in float32, whatever the dtype of ``x``.

    The checkpoint stores ``weight`` around 0 and the norm adds 1 (google-deepmind/gemma, ``_layers.RMSNorm``). The product is
    rounded to the input's dtype once, at the end, unlike Llama (transformers pull request 29402).
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size, dtype=torch.float32), requires_grad=False)
        self.eps = nn.Buffer(torch.tensor(eps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # The fewest calls: F.rms_norm, which torch takes apart on a CPU, costs twice the time, 109 times a step.
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse_rms = torch.addcmul(self.eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()
        return torch.addcmul(wide, wide, self.weight).mul_(inverse_rms).to(x.dtype)


def linear(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    """``x W^T``. A single bfloat16 row is a matrix-vector product: through ``F.linear`` torch hands it to a kernel that packs
    the whole weight first (36 ms against 26 for the head of the 270M on two cores)."""
    if x_TI.shape[0] == 1 and x_TI.device.type == "cpu":
        return torch.mv(weight_OI, x_TI[0])[None]
    return F.linear(x_TI, weight_OI)


class Linear(nn.Linear):
    """A projection without bias over the rows of a step."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Nothing: weights come from a checkpoint, and memory that was never written costs none."""

    def forward(self, x_TI: Tensor) -> Tensor:
        return linear(x_TI, self.weight)


class ScaledEmbedding(nn.Embedding):
    """Token embedding times ``sqrt(D)``, the factor rounded to the weights' dtype as in Google's implementation."""

    def reset_parameters(self) -> None:
        """Nothing, as in ``Linear``."""

    def forward(self, token_ids_T: Tensor) -> Tensor:
        scale = torch.tensor(self.embedding_dim**0.5, dtype=self.weight.dtype, device=self.weight.device)
        return super().forward(token_ids_T) * scale


class RotaryTables(nn.Module):
    """Cosines and sines of the positions of one step, for both kinds of layers.

    Angles are formed in float32 from a float32 base: bfloat16 cannot tell positions above 256 apart.
    """

    def __init__(self, config: Gemma3TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.thetas = {FULL: config.rope_theta, SLIDING: config.rope_local_theta}

    def forward(self, positions_T: Tensor, dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor]]:
        """Return ``{layer type: (cos_T1H, sin_T1H)}`` in ``dtype``; the sines of the first half carry the minus of ``rotate``."""
        return {kind: self._table(positions_T, theta, dtype) for kind, theta in self.thetas.items()}

    def _table(self, positions_T: Tensor, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        pairs = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=positions_T.device)
        angles = positions_T.float()[:, None] * (1.0 / theta ** (pairs / self.head_dim))
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        return torch.cat((cos, cos), dim=-1)[:, None], torch.cat((-sin, sin), dim=-1)[:, None]


def rotate(x_TNH: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
    """Rotate the pairs ``(i, i + H/2)`` of every head by the angle of its position (RoFormer, arXiv 2104.09864).

    ``(low, high)`` becomes ``(low cos - high sin, high cos + low sin)``; the minus is already in ``sin_T1H``.
    """
    swapped_TNH = x_TNH.roll(x_TNH.shape[-1] // 2, dims=-1)
    return torch.addcmul(x_TNH * cos_T1H, swapped_TNH, sin_T1H)


class MLP(nn.Module):
    """``down(gelu_tanh(gate(x)) * up(x))``."""

    def __init__(self, config: Gemma3TextConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_TD: Tensor) -> Tensor:
        gate_TF = F.gelu(self.gate_proj(x_TD), approximate="tanh")
        out_TD: Tensor = self.down_proj(gate_TF * self.up_proj(x_TD))
        return out_TD
