"""Logits to tokens, for all rows of a step at once, by the definition in ``model_runner.py``.

Shapes: ``B`` rows, ``V`` vocabulary, ``C`` candidates. Rows that ask for the same kind of work share its tensor
operations; nothing loops over the vocabulary. Engine thread only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.outputs import TokenLogprob
from engine.random_numbers import uniform
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence

# Up to here the k largest are selected; a full sort is as fast for more.
_MAX_SELECTED = 4_096


@dataclass(frozen=True, slots=True)
class Sampled:
    """``token_ids`` and ``is_finite`` by row; ``logprobs`` has an entry for each row that asked, else ``None``."""

    token_ids: list[int]
    is_finite: list[bool]
    logprobs: list[TokenLogprob | None]


class Sampler:
    """``end_token_ids(seq)`` are the ids that would end a sequence: they cannot be sampled before ``min_tokens``."""

    def __init__(self, end_token_ids: Callable[[Sequence], frozenset[int]]) -> None:
        self._end_token_ids = end_token_ids

    def __call__(self, logits_BV: Tensor, seqs: list[Sequence]) -> Sampled:
        logits_BV = logits_BV.float()
        adjusted_BV = self._adjust(logits_BV, seqs)
        chosen_B = adjusted_BV.argmax(-1)
        # A row with NaN has it as its maximum, a row of -inf has nothing to choose from.
        finite_B = torch.isfinite(adjusted_BV.gather(1, chosen_B[:, None])[:, 0])
        drawn = [i for i, seq in enumerate(seqs) if seq.params.temperature > 0]
        if drawn:
            chosen_B[drawn] = _draw(adjusted_BV[drawn], [seqs[i] for i in drawn])
        return Sampled(chosen_B.tolist(), finite_B.tolist(), _logprobs(logits_BV, chosen_B, seqs))

    def _adjust(self, logits_BV: Tensor, seqs: list[Sequence]) -> Tensor:
        """Steps 2 and 3; the input is not changed, since its log probabilities may be reported."""
        rows = [i for i, seq in enumerate(seqs) if _is_adjusted(seq)]
        if not rows:
            return logits_BV
        adjusted_BV = logits_BV.clone()
        for i in rows:
            self._adjust_row(adjusted_BV[i], seqs[i])
        return adjusted_BV

    def _adjust_row(self, logits_V: Tensor, seq: Sequence) -> None:
        params = seq.params
        if seq.num_output_tokens < params.min_tokens:
            logits_V[list(self._end_token_ids(seq))] = -torch.inf
        if params.repetition_penalty != 1.0:
            seen = torch.tensor(sorted(set(seq.token_ids)), device=logits_V.device)
            old = logits_V[seen]
            logits_V[seen] = torch.where(old > 0, old / params.repetition_penalty, old * params.repetition_penalty)
        if (params.frequency_penalty or params.presence_penalty) and seq.num_output_tokens:
            output = torch.tensor(seq.output_token_ids, device=logits_V.device)
            ids, counts = torch.unique(output, return_counts=True)
            logits_V[ids] -= params.frequency_penalty * counts + params.presence_penalty
        if params.logit_bias:
            ids = torch.tensor(list(params.logit_bias), device=logits_V.device)
            logits_V[ids] += torch.tensor(list(params.logit_bias.values()), device=logits_V.device)


def _is_adjusted(seq: Sequence) -> bool:
    params = seq.params
    has_penalty = params.repetition_penalty != 1.0 or params.frequency_penalty or params.presence_penalty
    return bool(has_penalty or params.logit_bias or seq.num_output_tokens < params.min_tokens)


def _draw(logits_BV: Tensor, seqs: list[Sequence]) -> Tensor:
    """Steps 4 to 6 for rows with a temperature; rows that keep few candidates are told from rows that may keep all."""
    temperature_B1 = _column([seq.params.temperature for seq in seqs], logits_BV)
    scaled_BV = logits_BV / temperature_B1
    chosen_B = torch.empty(len(seqs), dtype=torch.int64, device=logits_BV.device)
    for num_candidates, rows in _groups([seq.params for seq in seqs], logits_BV.shape[1]).items():
        chosen_B[rows] = _draw_group(scaled_BV[rows], [seqs[i] for i in rows], num_candidates)
    return chosen_B


def _groups(params: list[SamplingParams], vocab_size: int) -> dict[int, list[int]]:
    """Rows by how many of their largest logits are needed in order: few, all, or none (0) where nothing is cut off."""
    small = [p.top_k for p in params if 0 < p.top_k <= _MAX_SELECTED]
    groups: dict[int, list[int]] = {}
    for i, p in enumerate(params):
        if 0 < p.top_k <= _MAX_SELECTED:
            num_candidates = min(max(small), vocab_size)
        else:
            num_candidates = vocab_size if p.top_k or p.top_p < 1.0 else 0
        groups.setdefault(num_candidates, []).append(i)
    return groups


def _draw_group(scaled_BV: Tensor, seqs: list[Sequence], num_candidates: int) -> Tensor:
    """Draw a token for each row from its ``num_candidates`` largest logits, or from all of them (0)."""
    if num_candidates == 0:
        probs_BC = _keep_min_p(scaled_BV.softmax(-1), seqs)
        return _pick(probs_BC, seqs)
    values_BC, ids_BC = scaled_BV.topk(num_candidates)
    probs_BC = _keep_top(values_BC, seqs)
    # Back to the order of ids, in which the running sum is defined.
    ids_BC, order_BC = ids_BC.sort(-1)
    picked_B = _pick(probs_BC.gather(1, order_BC), seqs)
    return ids_BC.gather(1, picked_B[:, None])[:, 0]


def _keep_top(values_BC: Tensor, seqs: list[Sequence]) -> Tensor:
    """Probabilities after top-k, top-p and min-p of logits in falling order; what is cut off is 0."""
    top_k_B1 = _column([seq.params.top_k or values_BC.shape[1] for seq in seqs], values_BC)
    top_p_B1 = _column([seq.params.top_p for seq in seqs], values_BC)
    rank_C = torch.arange(values_BC.shape[1], device=values_BC.device)
    probs_BC = values_BC.masked_fill(rank_C >= top_k_B1, -torch.inf).softmax(-1)
    mass_before_BC = probs_BC.cumsum(-1) - probs_BC
    return _keep_min_p(probs_BC.masked_fill((mass_before_BC >= top_p_B1) & (rank_C > 0), 0.0), seqs)


def _keep_min_p(probs_BC: Tensor, seqs: list[Sequence]) -> Tensor:
    if not any(seq.params.min_p for seq in seqs):
        return probs_BC
    threshold_B1 = probs_BC.amax(-1, keepdim=True) * _column([seq.params.min_p for seq in seqs], probs_BC)
    return probs_BC.masked_fill(probs_BC < threshold_B1, 0.0)


def _pick(probs_BC: Tensor, seqs: list[Sequence]) -> Tensor:
    """Column of the first running sum above u times the whole."""
    sums_BC = probs_BC.double().cumsum(-1)
    u_B1 = _column([_uniform(seq) for seq in seqs], sums_BC)
    picked_B1 = torch.searchsorted(sums_BC, u_B1 * sums_BC[:, -1:], right=True)
    return picked_B1[:, 0].clamp_(max=probs_BC.shape[1] - 1)


def _uniform(seq: Sequence) -> float:
    assert seq.params.seed is not None, "the engine draws a seed for requests without one"
    return uniform(seq.params.seed, seq.num_tokens, seq.index)


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _logprobs(logits_BV: Tensor, chosen_B: Tensor, seqs: list[Sequence]) -> list[TokenLogprob | None]:
    result: list[TokenLogprob | None] = [None] * len(seqs)
    rows = [i for i, seq in enumerate(seqs) if seq.params.logprobs is not None]
    if rows:
        nums = [seqs[i].params.logprobs or 0 for i in rows]
        for i, entry in zip(rows, token_logprobs(logits_BV[rows], chosen_B[rows], nums), strict=True):
            result[i] = entry
    return result


def token_logprobs(logits_BV: Tensor, token_ids_B: Tensor, num_top_B: list[int]) -> list[TokenLogprob]:
    """Log probability of one token per row, and of each row's likeliest ones."""
    logprobs_BV = logits_BV.float().log_softmax(-1)
    chosen = logprobs_BV.gather(1, token_ids_B[:, None])[:, 0].tolist()
    values, ids = (x.tolist() for x in logprobs_BV.topk(max(num_top_B), dim=-1))
    return [
        TokenLogprob(token_id, chosen[i], tuple(zip(ids[i][:num], values[i][:num], strict=True)))
        for i, (token_id, num) in enumerate(zip(token_ids_B.tolist(), num_top_B, strict=True))
    ]
