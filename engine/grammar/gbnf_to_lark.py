"""The rules of a GBNF grammar as Lark in the grammar library's dialect.

Its terminals are expressions: faster to follow than rules of single characters, but each goes as far as it can. So a
grammar that never leads back to itself becomes one expression, which is exact. In any other, what stands side by side
is one, but for white space, which often ends one thing and begins the next. Plain functions: any thread.
"""

from collections.abc import Sequence
from itertools import groupby

from engine.errors import GrammarError
from engine.grammar.gbnf import Group, Node, Reference, Rules, Text, error_at, rules_of


def gbnf_to_lark(text: str) -> str:
    """The same grammar in Lark, beginning at ``root``.

    Raises:
        GrammarError: it is not well formed, names a rule that is not there or a token; says which line.
    """
    rules = rules_of(text)
    if "root" not in rules:
        raise GrammarError('the grammar cannot be used: it has no rule "root".')
    return _Writer(rules).lark()


class _Writer:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._spaces: set[str] = set()
        self._terminals = self._closed(spaces=False)
        if "root" not in self._terminals:
            self._spaces = self._closed(spaces=True)
            self._terminals = self._closed(spaces=False)
        self._names = {name: self._lark_name(name, at) for at, name in enumerate(rules)}
        self._lines = [f"start: {self._names['root']}"]

    def lark(self) -> str:
        for name, group in self._rules.items():
            is_plain = name in self._terminals or name in self._spaces
            body = self._plain(group) if is_plain else self._mixed(group)
            self._lines.append(f"{self._names[name]}: {body}")
        return "\n".join(self._lines) + "\n"

    def _closed(self, *, spaces: bool) -> set[str]:
        """The rules of texts alone, and of references to such rules; ``spaces``: of white space alone."""
        found: set[str] = set()
        num = -1
        while num < len(found):
            num = len(found)
            for name, group in reversed(self._rules.items()):  # the innermost often stand last
                if name not in self._spaces and self._is_of(group, found, spaces=spaces):
                    found.add(name)
        return found

    def _is_of(self, node: Node, names: set[str], *, spaces: bool) -> bool:
        if isinstance(node, Text):
            return node.is_space or not spaces
        if isinstance(node, Reference):
            return node.name in names
        if not spaces and node.count and self._spaces and self._is_of(node, self._spaces, spaces=True):
            return False
        return all(self._is_of(item, names, spaces=spaces) for sequence in node.alternatives for item in sequence)

    def _lark_name(self, name: str, at: int) -> str:
        """Unique, since GBNF tells names apart that Lark does not."""
        plain = f"r{at}_{name.replace('-', '_')}"
        return plain.upper() if name in self._terminals else plain.lower()

    def _plain(self, group: Group) -> str:
        """Alternatives as they stand."""
        return " | ".join(" ".join(map(self._node, sequence)) or '""' for sequence in group.alternatives)

    def _node(self, node: Node) -> str:
        if isinstance(node, Text):
            return node.lark
        if isinstance(node, Reference):
            return self._known(node)
        return f"({self._plain(node)}){node.count}"

    def _mixed(self, group: Group) -> str:
        """Alternatives with neighbours that are terminals made one."""
        return " | ".join(" ".join(self._joined(sequence)) or '""' for sequence in group.alternatives)

    def _joined(self, sequence: Sequence[Node]) -> list[str]:
        found: list[str] = []
        for is_terminal, run in groupby(sequence, lambda node: self._is_of(node, self._terminals, spaces=False)):
            nodes = list(run)
            if is_terminal:
                found.append(self._terminal(nodes))
            else:
                found += [self._rule_node(node) for node in nodes]
        return found

    def _terminal(self, nodes: list[Node]) -> str:
        if len(nodes) == 1 and not isinstance(nodes[0], Group):
            return self._node(nodes[0])
        name = f"T{len(self._lines)}_{len(self._names)}"
        self._names[name] = name
        self._lines.append(f"{name}: {' '.join(map(self._node, nodes))}")
        return name

    def _rule_node(self, node: Node) -> str:
        if isinstance(node, Group) and not self._is_of(node, self._spaces, spaces=True):
            return f"({self._mixed(node)}){node.count}"
        return self._node(node)

    def _known(self, reference: Reference) -> str:
        if reference.name not in self._names:
            raise error_at(reference.line, f"there is no rule {reference.name[:40]!a}")
        return self._names[reference.name]
