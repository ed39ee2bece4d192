"""What the engine asks of a model: run one batch, and say in plain values what came out.

The seam between scheduling and computing. ``TorchRunner`` is the reference; whatever else computes obeys the same
definition of sampling, which stands here:

1. Reported log probabilities are those of the model's own distribution: float32 logits before anything below.
2. While fewer than ``min_tokens`` were sampled, the ids that would end the sequence cannot be.
3. ``repetition_penalty`` divides positive and multiplies negative logits of every token of prompt and output (CTRL,
   arXiv 1909.05858); ``frequency_penalty`` times its count and ``presence_penalty`` are taken off each token of the output;
   ``logit_bias`` is added.
4. ``temperature`` 0: the largest logit, on a tie the lowest id. Otherwise logits are divided by it.
5. ``top_k`` keeps the k largest; ``top_p`` then keeps the likeliest tokens while the mass before them is below p (the
   first always stays); ``min_p`` then keeps those at least ``min_p`` times as likely as the likeliest.
6. One uniform number u in [0, 1) from (seed, position of the new token, index of the sequence); the token is the first,
   in order of id, at which the running sum of the kept probabilities (float64) exceeds u times their sum.

u depends on nothing else, so a seed gives the same tokens whatever else is in the batch.
"""

from dataclasses import dataclass, field
from typing import Protocol

from engine.outputs import TokenLogprob
from engine.sequence import Batch


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The result of one step, by ``seq_id``.

    Attributes:
        token_ids: a new token for each of ``batch.sampling`` that did not fail.
        logprobs: of the new token, for sequences that asked.
        prompt_logprobs: of the prompt tokens that follow this step's rows, for sequences that asked.
        failed: why a sequence has no token, though its neighbours have (its logits are not finite).
    """

    token_ids: dict[int, int] = field(default_factory=dict)
    logprobs: dict[int, TokenLogprob] = field(default_factory=dict)
    prompt_logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def merge(self, other: "StepOutput") -> None:
        """Take in the result of another part of the same step."""
        self.token_ids.update(other.token_ids)
        self.logprobs.update(other.logprobs)
        self.prompt_logprobs.update(other.prompt_logprobs)
        self.failed.update(other.failed)


class ModelRunner(Protocol):
    """Owns the KV storage and the model. Engine thread only."""

    def run(self, batch: Batch) -> StepOutput:
        """Compute the batch, writing K and V into the blocks of each sequence. Running the same batch again is harmless."""
