"""The answers of ``/v1/decisions`` and ``/v1/systemone``, with the names of their clients.

Owns names and types, and how probabilities become an answer. Knows nothing of how they come about. Event loop.
"""

from collections.abc import Sequence
from typing import Literal

from openai_api.answer.models import Answer
from openai_api.answer.option_probabilities import expected_level
from openai_api.request.decision_fields import DecisionQuestion, json_text
from openai_api.request.system_one_fields import SystemOneQuestion


class PredicateAnswer(Answer):
    """How likely the statement is true."""

    type: Literal["predicate"] = "predicate"
    name: str | None
    probability: float


class ChoiceProbability(Answer):
    """Of one choice."""

    value: str | bool
    probability: float


class ChoiceAnswer(Answer):
    """The likeliest choice; ``confidence`` is its probability."""

    type: Literal["choice"] = "choice"
    name: str | None
    choice: str | bool
    confidence: float
    probabilities: list[ChoiceProbability]


class LevelProbability(Answer):
    """Of one level; ``value`` counts from 0."""

    value: int
    label: str
    probability: float


class ScoreAnswer(Answer):
    """``score`` is the mean of the levels; ``confidence`` the probability of the likeliest one."""

    type: Literal["score"] = "score"
    name: str | None
    score: float
    confidence: float
    probabilities: list[LevelProbability]


class InputTokensDetails(Answer):
    """``cached_tokens`` were found in the prefix cache, which costs nothing to write."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Answer):
    """Nothing is generated."""

    reasoning_tokens: int = 0


class DecisionUsage(Answer):
    """Tokens of prompts and options; an input that several questions ask about counts for each."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Decision(Answer):
    """OpenAI's body; answers in the order of the questions."""

    model: str
    answers: list[PredicateAnswer | ChoiceAnswer | ScoreAnswer]
    usage: DecisionUsage


class NoulAnswer(Answer):
    """``noul`` is the probability of yes; ``confidence`` that of the likelier answer."""

    type: Literal["noul"] = "noul"
    noul: float
    confidence: float
    probabilities: dict[str, float]


class SystemOneChoiceAnswer(Answer):
    """The likeliest choice; ``confidence`` is its probability."""

    type: Literal["choice"] = "choice"
    choice: str
    confidence: float
    probabilities: dict[str, float]


class SystemOneScoreAnswer(Answer):
    """By level, from "0"."""

    type: Literal["score"] = "score"
    score: float
    confidence: float
    probabilities: dict[str, float]


class SystemOneLegendAnswer(SystemOneScoreAnswer):
    """``legend`` repeats the criteria, if the request names a model."""

    legend: dict[str, str]


SystemOneResult = NoulAnswer | SystemOneChoiceAnswer | SystemOneLegendAnswer | SystemOneScoreAnswer


class SystemOneUsage(Answer):
    """As OpenAI's."""

    input_tokens: int
    output_tokens: int = 0
    total_tokens: int


class SystemOneAnswer(Answer):
    """TypeSafe's body; answers by the names of the questions."""

    model: str
    answers: dict[str, SystemOneResult]
    usage: SystemOneUsage


def decision_answer(question: DecisionQuestion, found: Sequence[float]) -> PredicateAnswer | ChoiceAnswer | ScoreAnswer:
    """``found``: the probabilities of the question's options; of a predicate, of yes and no."""
    confidence = max(found)
    if question.choices is not None:
        values = [choice.value for choice in question.choices]
        told = [ChoiceProbability(value=value, probability=each) for value, each in zip(values, found, strict=True)]
        choice = values[found.index(confidence)]
        return ChoiceAnswer(name=question.name, choice=choice, confidence=confidence, probabilities=told)
    if question.levels is not None:
        levels = [
            LevelProbability(value=value, label=level.label, probability=each)
            for value, (level, each) in enumerate(zip(question.levels, found, strict=True))
        ]
        score = expected_level(found)
        return ScoreAnswer(name=question.name, score=score, confidence=confidence, probabilities=levels)
    return PredicateAnswer(name=question.name, probability=found[0])


def system_one_answer(question: SystemOneQuestion, found: Sequence[float], *, has_legend: bool) -> SystemOneResult:
    """As ``decision_answer``."""
    criteria, confidence = question.criteria, max(found)
    if question.type == "choice":
        assert isinstance(criteria, dict)
        of_choices = dict(zip(criteria, found, strict=True))
        choice = list(criteria)[found.index(confidence)]
        return SystemOneChoiceAnswer(choice=choice, confidence=confidence, probabilities=of_choices)
    if question.type == "score":
        assert isinstance(criteria, list)
        of_levels = {str(level): each for level, each in enumerate(found)}
        score = expected_level(found)
        if not has_legend:
            return SystemOneScoreAnswer(score=score, confidence=confidence, probabilities=of_levels)
        legend = {str(level): json_text(told) for level, told in enumerate(criteria)}
        return SystemOneLegendAnswer(score=score, confidence=confidence, probabilities=of_levels, legend=legend)
    return NoulAnswer(noul=found[0], confidence=confidence, probabilities={"false": found[1], "true": found[0]})


def decision_usage(input_tokens: int, cached_tokens: int) -> DecisionUsage:
    """Nothing is generated, so all tokens are of the input."""
    return DecisionUsage(
        input_tokens=input_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=cached_tokens),
        output_tokens_details=OutputTokensDetails(),
        total_tokens=input_tokens,
    )
