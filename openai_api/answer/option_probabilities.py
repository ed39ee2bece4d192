"""From log likelihoods of options to probabilities.

Owns the rule, chosen by measurement (docs/decisions.md): how much likelier an option's full text is than where the
question has no input (contextual calibration), measured by the root of how surprising it is there. So neither the length
of an option nor how common its words are counts. Pure.
"""

import math
from collections.abc import Sequence

LEAST_SURPRISE = 1.0
"""Nats: of what is expected anyway the root would be near zero."""

DIGITS = 9
"""Clients hold a sum of probabilities against 1, and a score against its probabilities, within what was rounded."""


def log_likelihoods(logprobs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each option, from those of its tokens."""
    return tuple([math.fsum(tokens) for tokens in logprobs])


def probabilities(
    likelihoods: Sequence[float], without_input: Sequence[float], *, temperature: float = 1.0
) -> list[float]:
    """Of each option; they add up to 1. ``temperature`` 0 leaves the likeliest alone, the first of equal ones."""
    gains = _gains(likelihoods, without_input)
    best = max(gains)
    if temperature == 0:
        return [float(index == gains.index(best)) for index in range(len(gains))]
    if best == -math.inf:
        return [1 / len(gains)] * len(gains)
    weights = [math.exp(max((gain - best) / temperature, -700.0)) for gain in gains]
    total = math.fsum(weights)
    return [round(weight / total, DIGITS) for weight in weights]


def _gains(likelihoods: Sequence[float], without_input: Sequence[float]) -> list[float]:
    """Of each option, in nats. An impossible text stays so, however rare it is.

    A text of many unlikely tokens gains and loses more by any input than a likely word does: like the spread of a sum,
    by about the root of its surprise. In these units the options are compared, and brought back to nats by their mean.
    """
    surprises = [max(LEAST_SURPRISE, -usual) if math.isfinite(usual) else LEAST_SURPRISE for usual in without_input]
    mean = math.fsum(surprises) / len(surprises)
    return [
        (told - usual) * math.sqrt(mean / surprise) if math.isfinite(told) and math.isfinite(usual) else -math.inf
        for told, usual, surprise in zip(likelihoods, without_input, surprises, strict=True)
    ]


def expected_level(of_levels: Sequence[float]) -> float:
    """The mean of the levels 0, 1, 2 and so on."""
    total = math.fsum(of_levels)
    return round(math.fsum(level * each for level, each in enumerate(of_levels)) / total, DIGITS)
