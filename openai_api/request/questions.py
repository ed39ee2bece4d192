"""A question with its options, whichever protocol asked it.

Owns what goes together in a question, and the text of an option that the model reads. Knows no prompt and no
engine. Pure; large bodies are read in a worker thread.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from openai_api.errors import ApiError, invalid_value
from openai_api.request.decision_fields import DecisionQuestion, json_text
from openai_api.request.decision_notes import MAX_OPTIONS, MAX_OPTIONS_OF_QUESTION
from openai_api.request.messages import joined
from openai_api.request.system_one_fields import SystemOneQuestion

YES, NO = "Yes", "No"


class QuestionKind(StrEnum):
    """Is it so, which of these, how much."""

    PREDICATE = "predicate"
    CHOICE = "choice"
    SCORE = "score"


@dataclass(frozen=True, slots=True)
class Question:
    """``options`` are the texts of which the model finds one the likeliest; yes and no of a predicate."""

    kind: QuestionKind
    instructions: str
    options: tuple[str, ...]


def option_text(label: str, description: object = None) -> str:
    """What the model reads: a name's underscores are spaces, and a number says nothing beside a description."""
    words = label.replace("_", " ").strip() if not any(map(str.isspace, label)) else label.strip()
    told = "" if description is None else json_text(description).strip()
    if not told:
        return words or label.strip()
    return told if not words or words.isdecimal() else f"{words}: {told}"


def of_decisions(questions: Sequence[DecisionQuestion]) -> list[Question]:
    """Raises: ApiError 400, the options of a question are not what its type needs, or too many in all."""
    found = [_of_decision(f"questions[{index}]", question) for index, question in enumerate(questions)]
    _check(found, [f"questions[{index}]" for index in range(len(found))])
    return found


def _of_decision(place: str, question: DecisionQuestion) -> Question:
    instructions = joined(question.instructions)
    for name, kind in (("choices", "choice"), ("levels", "score")):
        given = getattr(question, name) is not None
        if given and question.type != kind:
            raise invalid_value(f"{place}.{name}", f"'{place}.{name}' is only for a question of type '{kind}'.")
        if not given and question.type == kind:
            message = f"Missing required parameter: '{place}.{name}'."
            raise ApiError(400, message, code="missing_required_parameter", param=f"{place}.{name}")
    if question.type == "predicate":
        return Question(QuestionKind.PREDICATE, instructions, (YES, NO))
    if question.choices is not None:
        _check_distinct(f"{place}.choices", "value", [(type(each.value), each.value) for each in question.choices])
        options = [option_text(_word(each.value), each.description) for each in question.choices]
        return Question(QuestionKind.CHOICE, instructions, tuple(options))
    levels = question.levels or []
    _check_distinct(f"{place}.levels", "label", [each.label for each in levels])
    return Question(
        QuestionKind.SCORE, instructions, tuple([option_text(each.label, each.description) for each in levels])
    )


def _word(value: str | bool) -> str:  # noqa: FBT001 (it is the value)
    return value if isinstance(value, str) else str(value).lower()


def _check_distinct(place: str, name: str, values: Sequence[object]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            where = f"{place}[{index}].{name}"
            raise invalid_value(
                where, f"'{where}' is the same as that of entry {values.index(value)}; all must differ."
            )


def of_system_one(questions: Mapping[str, SystemOneQuestion]) -> list[Question]:
    """Raises: ApiError 400, the criteria of a question are not what its type needs, or too many in all."""
    found = [_of_system_one(f"questions.{name}", question) for name, question in questions.items()]
    _check(found, [f"questions.{name}" for name in questions])
    return found


def _of_system_one(place: str, question: SystemOneQuestion) -> Question:
    instructions = "" if question.instructions is None else json_text(question.instructions)
    criteria, param = question.criteria, f"{place}.criteria"
    if question.type == "noul":
        given = {} if criteria is None else criteria
        if not isinstance(given, dict) or not given.keys() <= {"true", "false"}:
            raise invalid_value(param, f"Invalid value for '{param}': expected an object of 'true' and 'false'.")
        options = (option_text(YES, given.get("true")), option_text(NO, given.get("false")))
        return Question(QuestionKind.PREDICATE, instructions, options)
    kind, shape = (dict, "an object") if question.type == "choice" else (list, "an array")
    if not isinstance(criteria, kind) or not 2 <= len(criteria) <= MAX_OPTIONS_OF_QUESTION:
        allowed = f"{shape} of 2 to {MAX_OPTIONS_OF_QUESTION} entries for a question of type '{question.type}'"
        raise invalid_value(param, f"Invalid value for '{param}': expected {allowed}.")
    texts = tuple(_texts_of(criteria))
    return Question(QuestionKind.CHOICE if kind is dict else QuestionKind.SCORE, instructions, texts)


def _texts_of(criteria: object) -> Iterator[str]:
    if isinstance(criteria, dict):
        yield from (option_text(label, description) for label, description in criteria.items())
    if isinstance(criteria, list):
        yield from (option_text(str(level), description) for level, description in enumerate(criteria))


def _check(questions: Sequence[Question], places: Sequence[str]) -> None:
    num_options = sum(len(question.options) for question in questions)
    if num_options > MAX_OPTIONS:
        message = f"Invalid value for 'questions': they have {num_options} options; at most {MAX_OPTIONS} are allowed."
        raise invalid_value("questions", message)
    for place, question in zip(places, questions, strict=True):
        if not all(question.options):
            raise invalid_value(place, f"Invalid value for '{place}': an option is empty; each must have a text.")
