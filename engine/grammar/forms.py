"""Answers told in other words than a grammar's: one of several texts, free text with tagged parts, GBNF or Lark.

Each becomes a ``GrammarSpec``. Plain functions: any thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import GrammarError
from engine.grammar.gbnf import is_gbnf
from engine.grammar.gbnf_to_lark import gbnf_to_lark
from engine.grammar.lark import literal
from engine.grammar.spec import GrammarKind, GrammarSpec


@dataclass(frozen=True, slots=True)
class StructuralTag:
    """Behind ``begin`` in a free text stands JSON of ``schema``, then ``end``. ``schema`` is a JSON text."""

    begin: str
    schema: str
    end: str


def choice_spec(choices: Sequence[str]) -> GrammarSpec:
    """Exactly one of the texts.

    Raises:
        GrammarError: there is none.
    """
    if not choices:
        raise GrammarError("the list of choices is empty.")
    # One terminal: the longer of two that begin alike stays possible where the shorter one may end.
    return GrammarSpec(GrammarKind.LARK, f"start: CHOICE\nCHOICE: {' | '.join(map(literal, dict.fromkeys(choices)))}")


def grammar_spec(text: str) -> GrammarSpec:
    """A grammar in GBNF, known by "::=", or else in Lark.

    Raises:
        GrammarError: GBNF that is not well formed.
    """
    return GrammarSpec(GrammarKind.LARK, gbnf_to_lark(text) if is_gbnf(text) else text)


def structural_tag_spec(tags: Sequence[StructuralTag], triggers: Sequence[str]) -> GrammarSpec:
    """Free text, in which whatever begins with one of ``triggers`` is one of ``tags``.

    Raises:
        GrammarError: there is no tag, or one that no trigger begins.
    """
    if not tags or not triggers or "" in triggers:
        raise GrammarError("a structural tag needs tags and triggers that are not empty.")
    lines = [
        f"start: ({' | '.join(f'tagged_{at}' for at in range(len(triggers)))})* rest",
        "rest: TEXT",
        r"TEXT: /(?s:.*)/",
    ]
    for at, trigger in enumerate(triggers):
        bodies = [
            f"{literal(tag.begin.removeprefix(trigger))} %json {tag.schema} {literal(tag.end)}"
            for tag in tags
            if tag.begin.startswith(trigger)
        ]
        if not bodies:
            raise GrammarError(f"no structural tag begins with the trigger {trigger[:40]!a}.")
        lines += [f"opened_{at}[lazy]: TEXT {literal(trigger)}", f"tagged_{at}: opened_{at} ({' | '.join(bodies)})"]
    _check_all_triggered(tags, triggers)
    return GrammarSpec(GrammarKind.LARK, "\n".join(lines) + "\n")


def _check_all_triggered(tags: Sequence[StructuralTag], triggers: Sequence[str]) -> None:
    for tag in tags:
        if not tag.begin.startswith(tuple(triggers)):
            raise GrammarError(f"no trigger begins the structural tag {tag.begin[:40]!a}.")
