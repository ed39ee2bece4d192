"""The tree of a chat template before it is compiled: its text marked, its repetitions counted.

Owns which constants a template can write, and where ``TemplateEnvironment.step`` is called. Plain functions
of the tree; runs once for each template, on the thread that loads.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

# What is looked for in a message is no control token: it is compared with a client's text.
_SEARCHING_METHODS = frozenset(
    "split rsplit startswith endswith partition rpartition find rfind index rindex count strip lstrip rstrip "
    "removeprefix removesuffix replace".split()
)


class Instrument(NodeTransformer):
    """Marks the text that a template can write and puts a counter into everything that repeats.

    ``a ~ b`` becomes a call: jinja lets an environment look at other operators, not at this one.
    """

    def __init__(self, mark: Callable[[str], str], mark_compared: Callable[[str], str]) -> None:
        """``mark_compared`` is for what a text is compared with or searched for."""
        self._mark, self._mark_compared = mark, mark_compared
        self._searched: set[int] = set()

    def visit_Template(self, node: nodes.Template) -> nodes.Node:  # noqa: N802  (jinja's names)
        for each in node.find_all((nodes.Compare, nodes.Call, nodes.Filter, nodes.Test)):
            self._searched.update(id(operand) for operand in _searched_constants(each))
        return self.generic_visit(node)

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802  (jinja's names)
        return nodes.TemplateData(self._mark(node.data), lineno=node.lineno)

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802  (jinja's names)
        if not isinstance(node.value, str):
            return node
        mark = self._mark_compared if id(node) in self._searched else self._mark
        return nodes.Const(mark(node.value), lineno=node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802  (jinja's names)
        self.generic_visit(node)
        return _environment_call("concatenated", node.nodes, node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  (jinja's names)
        self._count(node)
        if node.test is not None:
            node.test = nodes.And(nodes.Not(_environment_call("step", [nodes.Const(0)], node.lineno)), node.test)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802  (jinja's names)
        return self._count(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802  (jinja's names)
        return self._count(node)

    def _count(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        num_chars = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        counter = nodes.ExprStmt(_environment_call("step", [nodes.Const(num_chars)], node.lineno), lineno=node.lineno)
        node.body.insert(0, counter)
        counted: nodes.Node = node
        return counted


def _environment_call(name: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None, lineno=line)


def _searched_constants(node: nodes.Node) -> Iterator[nodes.Node]:
    """Constants that are compared with a text or looked for in one."""
    for operand in _operands(node):
        yield from operand.items if isinstance(operand, nodes.List | nodes.Tuple) else [operand]


def _operands(node: nodes.Node) -> Sequence[nodes.Node]:
    if isinstance(node, nodes.Compare):
        return [node.expr, *(operand.expr for operand in node.ops)]
    if isinstance(node, nodes.Call):
        is_search = isinstance(node.node, nodes.Getattr) and node.node.attr in _SEARCHING_METHODS
        return node.args[:1] if is_search else ()
    if isinstance(node, nodes.Test) or (isinstance(node, nodes.Filter) and node.name == "replace"):
        return node.args[:1]
    return ()
