"""Names of control tokens that a template makes out of a role: ``'<|' + message['role'] + '|>'``.

Such a name stands nowhere in the template, and a client's text between the same brackets must stay a text.
So the brackets get stand-ins, and so do the roles, which are no client's words: only a bracket, a role and
a bracket make a name. Used for templates that need it alone. Immutable, so any thread may use it.
"""

import re
from collections.abc import Iterable, Mapping

_FIRST = 0xDC00  # the low surrogates; the high ones are whole names
_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "model")


class RoleMarks:
    """Stand-ins for the parts of those ``names`` that have one role inside."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        made = {(name, role): name.partition(role) for name in names for role in _ROLES if role in name}
        self._heads = _longest_first(head for head, _, _ in made.values())
        self._tails = _longest_first(tail for _, _, tail in made.values())
        texts = dict.fromkeys([*(_ROLES if made else ()), *self._heads, *self._tails])
        self._marks = {text: chr(_FIRST + i) for i, text in enumerate(texts)}
        self._texts = {mark: text for text, mark in self._marks.items()}
        self._names = {
            self._marks[head] + self._marks[role] + self._marks[tail]: name
            for (name, _), (head, role, tail) in made.items()
            if head and tail
        }
        self._any_name = re.compile("|".join(self._names) or "(?!)")

    def mark(self, text: str) -> str:
        """``text`` that a template can write: a role, or what has brackets at its ends."""
        if text in _ROLES:
            return self.mark_role(text)
        tail = next((part for part in self._tails if text.startswith(part)), "")
        text = text.removeprefix(tail)
        head = next((part for part in self._heads if text.endswith(part)), "")
        return self._marks.get(tail, "") + text.removesuffix(head) + self._marks.get(head, "")

    def mark_role(self, text: str) -> str:
        """``text`` if it is no role: of a message, or one that the template compares it with."""
        return self._marks.get(text, text) if text in _ROLES else text

    def makes(self, name: str) -> bool:
        """Whether ``name`` is one that is made."""
        return name in self._names.values()

    def resolve(self, text: str, stand_ins: Mapping[str, str]) -> str:
        """A rendered text with the ``stand_ins`` of the names that were made, and the text of every other part."""
        text = self._any_name.sub(lambda found: stand_ins[self._names[found[0]]], text)
        return re.sub("[\udc00-\udfff]", lambda found: self._texts.get(found[0], ""), text)


def _longest_first(parts: Iterable[str]) -> list[str]:
    return sorted({part for part in parts if part}, key=len, reverse=True)
