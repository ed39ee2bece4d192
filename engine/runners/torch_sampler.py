"""Logits to tokens, for all rows of a step at once, by the definition in ``sampling_params.py``.

Shapes: ``B`` rows, ``V`` vocabulary, ``C`` candidates. Rows that ask for the same kind of work share its tensor
operations; nothing loops over the vocabulary. Engine thread only.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.batch import SamplingRow
from engine.runners.model_runner import SampledToken
from engine.sampling_params import SamplingParams

# A positive setting may be too small for a float32; it must not become 0.
_SMALLEST = torch.finfo(torch.float32).tiny
_LARGEST = torch.finfo(torch.float32).max

# Up to here the k largest are selected; a full sort is as fast for more.
_MAX_SELECTED = 4_096


def sample(logits_BV: Tensor, rows: list[SamplingRow]) -> list[SampledToken]:
    """Choose a token for each row, with the log probabilities that its sequence asks for."""
    logits_BV = logits_BV.float()
    adjusted_BV = _adjust(logits_BV, rows)
    chosen_B = adjusted_BV.argmax(-1)
    # A row with NaN has it as its maximum, a row of -inf has nothing to choose from.
    finite_B = torch.isfinite(adjusted_BV.gather(1, chosen_B[:, None])[:, 0])
    drawn = [i for i, row in enumerate(rows) if row.params.temperature > 0]
    if drawn:
        chosen_B[drawn] = _draw(adjusted_BV[drawn], [rows[i] for i in drawn])
    sampled = [SampledToken(*each) for each in zip(chosen_B.tolist(), finite_B.tolist(), strict=True)]
    asked = [i for i, row in enumerate(rows) if row.params.logprobs is not None]
    if asked:
        wishes = [Asked(rows[i].params.logprobs or 0, rows[i].params.logprob_token_ids) for i in asked]
        for i, told in zip(asked, token_logprobs(logits_BV[asked], chosen_B[asked], wishes), strict=True):
            sampled[i] = replace(told, is_finite=sampled[i].is_finite)
    return sampled


def _adjust(logits_BV: Tensor, rows: list[SamplingRow]) -> Tensor:
    """Steps 2 and 3; the input is not changed, since its log probabilities may be reported."""
    adjusted = [i for i, row in enumerate(rows) if _is_adjusted(row)]
    if not adjusted:
        return logits_BV
    adjusted_BV = logits_BV.clone()
    for i in adjusted:
        _adjust_row(adjusted_BV[i], rows[i])
    return adjusted_BV


def _is_adjusted(row: SamplingRow) -> bool:
    params = row.params
    has_penalty = params.repetition_penalty != 1.0 or params.frequency_penalty or params.presence_penalty
    is_restricted = row.allowed_mask is not None or row.num_output_tokens < params.min_tokens
    return bool(has_penalty or params.logit_bias or is_restricted)


def _adjust_row(logits_V: Tensor, row: SamplingRow) -> None:
    params = row.params
    if row.num_output_tokens < params.min_tokens:
        logits_V[list(row.seq.end_token_ids)] = -torch.inf
    if (mask := row.allowed_mask) is not None:
        logits_V.masked_fill_(~_allowed(mask, len(logits_V)).to(logits_V.device), -torch.inf)
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(set(row.token_ids)), device=logits_V.device)
        old, penalty = logits_V[seen], max(params.repetition_penalty, _SMALLEST)
        new = torch.where(old > 0, old / penalty, old * penalty)
        logits_V[seen] = torch.where(old.isfinite(), new.clamp(-_LARGEST, _LARGEST), new)
    if (params.frequency_penalty or params.presence_penalty) and row.num_output_tokens:
        output = torch.tensor(row.output_token_ids, device=logits_V.device)
        ids, counts = torch.unique(output, return_counts=True)
        logits_V[ids] -= params.frequency_penalty * counts + params.presence_penalty
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits_V.device)
        logits_V[ids] += torch.tensor(list(params.logit_bias.values()), device=logits_V.device)


def _allowed(mask: bytes, vocab_size: int) -> Tensor:
    """(V,): which ids are in the set of ``token_mask.py``."""
    octets = torch.zeros((vocab_size + 7) // 8, dtype=torch.uint8)
    octets[: len(mask)] = torch.frombuffer(bytearray(mask), dtype=torch.uint8)[: len(octets)]
    bits = octets[:, None] >> torch.arange(8, dtype=torch.uint8) & 1
    return bits.flatten()[:vocab_size].bool()


def _draw(logits_BV: Tensor, rows: list[SamplingRow]) -> Tensor:
    """Steps 4 to 6 for rows with a temperature; rows that keep few candidates are told from rows that may keep all."""
    temperature_B1 = _column([max(row.params.temperature, _SMALLEST) for row in rows], logits_BV)
    # What is divided is the distance to the largest: so a temperature near 0 leaves that one finite.
    scaled_BV = (logits_BV - logits_BV.amax(-1, keepdim=True)) / temperature_B1
    chosen_B = torch.empty(len(rows), dtype=torch.int64, device=logits_BV.device)
    for num_candidates, group in _groups([row.params for row in rows], logits_BV.shape[1]).items():
        chosen_B[group] = _draw_group(scaled_BV[group], [rows[i] for i in group], num_candidates)
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


def _draw_group(scaled_BV: Tensor, rows: list[SamplingRow], num_candidates: int) -> Tensor:
    """Draw a token for each row from its ``num_candidates`` largest logits, or from all of them (0)."""
    if num_candidates == 0:
        probs_BC = _keep_min_p(scaled_BV.softmax(-1), rows)
        return _pick(probs_BC, rows)
    values_BC, ids_BC = scaled_BV.topk(num_candidates)
    probs_BC = _keep_top(values_BC, rows)
    # Back to the order of ids, in which the running sum is defined.
    ids_BC, order_BC = ids_BC.sort(-1)
    picked_B = _pick(probs_BC.gather(1, order_BC), rows)
    return ids_BC.gather(1, picked_B[:, None])[:, 0]


def _keep_top(values_BC: Tensor, rows: list[SamplingRow]) -> Tensor:
    """Probabilities after top-k, top-p and min-p of logits in falling order; what is cut off is 0."""
    top_k_B1 = _column([row.params.top_k or values_BC.shape[1] for row in rows], values_BC)
    top_p_B1 = _column([row.params.top_p for row in rows], values_BC)
    rank_C = torch.arange(values_BC.shape[1], device=values_BC.device)
    probs_BC = values_BC.masked_fill(rank_C >= top_k_B1, -torch.inf).softmax(-1)
    mass_before_BC = probs_BC.cumsum(-1) - probs_BC
    return _keep_min_p(probs_BC.masked_fill((mass_before_BC >= top_p_B1) & (rank_C > 0), 0.0), rows)


def _keep_min_p(probs_BC: Tensor, rows: list[SamplingRow]) -> Tensor:
    if not any(row.params.min_p for row in rows):
        return probs_BC
    threshold_B1 = probs_BC.amax(-1, keepdim=True) * _column([row.params.min_p for row in rows], probs_BC)
    return probs_BC.masked_fill(probs_BC < threshold_B1, 0.0)


def _pick(probs_BC: Tensor, rows: list[SamplingRow]) -> Tensor:
    """Column of the first running sum above u times the whole."""
    sums_BC = probs_BC.double().cumsum(-1)
    u_B1 = _column([row.uniform for row in rows], sums_BC)
    picked_B1 = torch.searchsorted(sums_BC, u_B1 * sums_BC[:, -1:], right=True)
    return picked_B1[:, 0].clamp_(max=probs_BC.shape[1] - 1)


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a row reports beside one token's log probability: its likeliest ids, or these ids instead; the rank."""

    num_top: int
    token_ids: tuple[int, ...] = ()
    wants_rank: bool = False


def token_logprobs(logits_BV: Tensor, token_ids_B: Tensor, asked_B: list[Asked]) -> list[SampledToken]:
    """Log probability of one token per row, and what else each row asks for."""
    logprobs_BV = logits_BV.float().log_softmax(-1)
    chosen = logprobs_BV.gather(1, token_ids_B[:, None])[:, 0].tolist()
    values, ids = (x.tolist() for x in logprobs_BV.topk(max(asked.num_top for asked in asked_B), dim=-1))
    told = []
    for i, (token_id, asked) in enumerate(zip(token_ids_B.tolist(), asked_B, strict=True)):
        top = list(zip(ids[i][: asked.num_top], values[i][: asked.num_top], strict=True))
        if asked.token_ids:
            top = list(zip(asked.token_ids, logprobs_BV[i, list(asked.token_ids)].tolist(), strict=True))
        rank = _rank(logits_BV[i], token_id) if asked.wants_rank else 0
        told.append(SampledToken(token_id, logprob=chosen[i], top=tuple(top), rank=rank))
    return told


def _rank(logits_V: Tensor, token_id: int) -> int:
    """From 1, the likeliest; ties by id."""
    logit = logits_V[token_id]
    num_before = (logits_V[:token_id] >= logit).sum() + (logits_V[token_id + 1 :] > logit).sum()
    return 1 + int(num_before)
