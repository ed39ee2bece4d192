"""Where a JSON schema fails that the grammar library refuses: the smallest part and the keyword that do.

Finds it by trial, not by the library's words, which name no place: the part that makes the whole fail is looked for
from the root inwards, then the keyword without which it would do. Bounded in trials. Any thread.
"""

import copy
import re
import time
from collections.abc import Callable
from typing import Any

from engine.errors import GrammarError
from engine.grammar.schema import refusal
from engine.grammar.schema_walk import DEFINITIONS, Subschema, children, refs_of, resolve

# The library's words about a schema, or None if it takes it.
Trial = Callable[[dict[str, Any]], str | None]

MAX_TRIALS = 60
MAX_SEARCH_S = 0.5
_WORDS = (
    (r"unsatisfiable|no answer", "no value can satisfy it"),
    (r"circular", "it refers to itself beside other keywords"),
    (r"oneof", "it is supported only where a type or a required constant tells its options apart"),
    (r"minproperties|maxproperties|min/max", "it is supported only where all named properties are required"),
    (r"disjoint", "two patterns fit one name"),
    (r"regex|look-around", "it is no supported regular expression"),
    (r"pointer|resource|retriev|anchor|uri", "it refers to nothing in the schema"),
    (r"too large|too complex|too big|limit|exceeded|fuel|too many states", "it is too complex"),
    (r"expected|must be|invalid|out of range|digits", "its value is not allowed"),
)


def located(schema: dict[str, Any], message: str, trial: Trial) -> GrammarError:
    """The refusal of ``schema``, which is the library's ``message`` and was tried, with its place."""
    search = _Search(schema, message, trial)
    node = search.smallest(Subschema((), schema))
    word = search.keyword(node)
    place = node.place if word is None else (*node.place, word)
    return refusal(place, _words(search.message))


def _words(message: str) -> str:
    for pattern, words in _WORDS:
        if re.search(pattern, message, re.IGNORECASE):
            return words
    return "it is not supported"


class _Search:
    def __init__(self, root: dict[str, Any], message: str, trial: Trial) -> None:
        self._root = root
        self._trial = trial
        self._left = MAX_TRIALS
        self._until_s = time.monotonic() + MAX_SEARCH_S
        self.message = message

    def smallest(self, node: Subschema) -> Subschema:
        """The innermost schema that fails by itself and makes ``node`` fail."""
        seen = {id(node.schema)}
        while True:
            inner = next(
                (child for child in self._within(node) if id(child.schema) not in seen and self._is_to_blame(child)),
                None,
            )
            if inner is None:
                return node
            seen.add(id(inner.schema))
            node = inner

    def keyword(self, node: Subschema) -> str | None:
        """The first keyword without which ``node`` would do."""
        words = [word for word in node.schema if word not in (*DEFINITIONS, "x-guidance", "$schema", "$id")]
        words.sort(key=lambda word: word == "type")  # which is seldom the reason
        for word in words if len(words) > 1 else ():
            rest = {key: value for key, value in node.schema.items() if key != word}
            if self._left and self._refusal(rest) is None:
                return word
        return words[0] if len(words) == 1 else None

    def _within(self, node: Subschema) -> list[Subschema]:
        ref = node.schema.get("$ref")
        target = resolve(ref, self._root) if isinstance(ref, str) else None
        referred = (
            [Subschema(tuple(ref.split("/")[1:]), target)] if isinstance(target, dict) and isinstance(ref, str) else []
        )
        return [*children(node), *referred]

    def _is_to_blame(self, node: Subschema) -> bool:
        message = self._refusal(node.schema)
        if message is None:
            return False
        if re.search("unsatisfiable", message, re.IGNORECASE) and self._whole_without(node) is not None:
            return False  # it may stay empty: an optional property, another alternative
        self.message = message
        return True

    def _whole_without(self, node: Subschema) -> str | None:
        whole = copy.deepcopy(self._root)
        outer: Any = whole
        for step in node.place[:-1]:
            outer = outer[step]
        outer[node.place[-1]] = True
        return self._tried(whole)

    def _refusal(self, schema: dict[str, Any]) -> str | None:
        """Of ``schema`` alone, with the definitions of the whole."""
        if not all(ref.startswith(("#/$defs/", "#/definitions/")) for ref in refs_of(schema)):
            return None
        return self._tried({word: self._root[word] for word in DEFINITIONS if word in self._root} | schema)

    def _tried(self, schema: dict[str, Any]) -> str | None:
        if time.monotonic() > self._until_s:
            self._left = 0
        if self._left == 0:
            return None
        self._left -= 1
        return self._trial(schema)
