"""From log likelihoods of options to probabilities.

Owns the rule, chosen by measurement (docs/decisions.md): the log likelihood of an option's full text, less that
of the same text where the question has no input (contextual calibration). So neither the length of an option nor how
common its words are counts. Pure.
"""

import math
from collections.abc import Sequence

DIGITS = 9
"""Clients hold a sum of probabilities against 1, and a score against its probabilities, within what was rounded."""


def log_likelihoods(logprobs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each option, from those of its tokens."""
    return tuple([math.fsum(tokens) for tokens in logprobs])


def probabilities(
    likelihoods: Sequence[float], without_input: Sequence[float], *, temperature: float = 1.0
) -> list[float]:
    """Of each option; they add up to 1. ``temperature`` 0 leaves the likeliest alone, the first of equal ones."""
    gains = [_gain(told, usual) for told, usual in zip(likelihoods, without_input, strict=True)]
    best = max(gains)
    if temperature == 0:
        return [float(index == gains.index(best)) for index in range(len(gains))]
    if best == -math.inf:
        return [1 / len(gains)] * len(gains)
    weights = [math.exp(max((gain - best) / temperature, -700.0)) for gain in gains]
    total = math.fsum(weights)
    return [round(weight / total, DIGITS) for weight in weights]


def _gain(told: float, usual: float) -> float:
    """An impossible text stays so, however rare it is."""
    return told - usual if math.isfinite(told) and math.isfinite(usual) else -math.inf


def expected_level(of_levels: Sequence[float]) -> float:
    """The mean of the levels 0, 1, 2 and so on."""
    total = math.fsum(of_levels)
    return round(math.fsum(level * each for level, each in enumerate(of_levels)) / total, DIGITS)
