"""How ``main.py`` chooses tokens where its flags leave it open.

Owns that order: a flag, what the checkpoint brings, and for a checkpoint that brings nothing a
choice that does not run in circles. Pure; knows no engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.sampling_params import SamplingParams

FLAGS = ("temperature", "top_k", "top_p", "repetition_penalty")
# Greedily, the 270M base model repeats one sentence from its third on. With a penalty of 1.05 or
# 1.1 whole passages came back within 250 tokens, with 1.15 none did.
_NO_CIRCLES: Mapping[str, float] = {"temperature": 0.0, "repetition_penalty": 1.15}
# What a checkpoint that names some values leaves out: as the server and transformers have it.
_SAMPLED: Mapping[str, float] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
_GREEDY: Mapping[str, float] = {**_SAMPLED, "temperature": 0.0}


@dataclass(frozen=True, slots=True)
class ChosenSampling:
    """``params`` and where they come from, in words."""

    params: SamplingParams
    source: str

    def __str__(self) -> str:
        # Rounded, as a top-p of 0 is kept as the smallest number above it.
        values = [f"{name.replace('_', '-')} {round(getattr(self.params, name), 6):g}" for name in FLAGS]
        return f"{', '.join(values)} ({self.source})"


def choose_sampling(
    given: Mapping[str, float], from_checkpoint: Mapping[str, float], *, seed: int | None = None
) -> ChosenSampling:
    """``given`` are the flags that were given, by the names of ``SamplingParams``. With any of them
    nothing is done against circles, but the checkpoint's choice for the others stays.
    """
    if from_checkpoint:
        source = "flags, then the checkpoint's defaults" if given else "the checkpoint's defaults"
        return ChosenSampling(_params({**_SAMPLED, **from_checkpoint, **given}, seed), source)
    if given:
        return ChosenSampling(_params({**_GREEDY, **given}, seed), "flags; the checkpoint has no defaults")
    source = "the checkpoint has no defaults: the likeliest token, but repeating itself less"
    return ChosenSampling(_params({**_GREEDY, **_NO_CIRCLES}, seed), source)


def _params(values: Mapping[str, float], seed: int | None) -> SamplingParams:
    return SamplingParams(
        temperature=values["temperature"],
        top_k=int(values["top_k"]),
        top_p=values["top_p"],
        repetition_penalty=values["repetition_penalty"],
        seed=seed,
    )
