"""jinja2's sandbox as transformers sets it up, and bounded by a ``Budget``.

Owns what a template may call. No file, no network, no module and no method that changes a value is in
reach. Knows nothing of messages or of token ids. One for each template; any thread may render, each with a
budget of its own.
"""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from gemma3.text.template_budget import (
    ITEM_SIZE,
    Budget,
    call_size,
    check_format,
    concatenated,
    operator_size,
    text_size,
)

# Filters that can grow a text without bound, and that no chat template needs.
_REFUSED_FILTERS = ("urlize", "wordwrap", "xmlattr")
_REFUSED_METHODS = ("encode", "decode", "translate", "maketrans", "expandtabs")


class TemplateRefusalError(Exception):
    """The template calls ``raise_exception``: these messages are not what it is made for."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Counts operators, calls and filters."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self._local = threading.local()
        self.finalize = self._written
        self.filters = {
            name: self._counted(name, f) for name, f in self.filters.items() if name not in _REFUSED_FILTERS
        }
        self.filters["tojson"] = self._counted("tojson", _tojson)
        del self.globals["lipsum"]
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "dict": _Dict(),
            "namespace": _Namespace,
        }

    def begin(self) -> None:
        """A new budget for what this thread renders next."""
        self._local.budget = Budget()

    @property
    def budget(self) -> Budget:
        """Of this thread; what is folded while compiling has one too."""
        if not hasattr(self._local, "budget"):
            self.begin()
        budget: Budget = self._local.budget
        return budget

    def step(self, num_chars: int) -> None:
        """Called by the template at each turn of a loop, with the length of what it writes there."""
        self.budget.step(num_chars)

    def concatenated(self, *values: object) -> str:
        """``a ~ b`` of a template."""
        return concatenated(self.budget, values)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.make(operator_size(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        if owner is self:  # ``step`` or ``concatenated``, which count by themselves
            return obj(*args)
        if isinstance(owner, str):
            self.budget.make(call_size(obj.__name__, (owner, *args), kwargs))
        result = super().call(context, obj, *args, **kwargs)
        self.budget.step(len(result) * ITEM_SIZE if isinstance(result, range) else 0)
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of a text, no method that makes other characters of it, or more than can be told before."""
        is_refused = isinstance(obj, str | bytes) and attr in _REFUSED_METHODS
        return not is_refused and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``text.format``: its widths are looked at before it is called."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            check_format(value.__self__)
        return wrapped

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        skipped = 1 if getattr(function, "jinja_pass_arg", None) else 0

        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            values = [list(each) if name == "join" and isinstance(each, Iterator) else each for each in args]
            if len(values) > skipped:
                self.budget.make(call_size(name, values[skipped:], kwargs))
            return function(*values, **kwargs)

        return counted

    def _written(self, value: Any) -> Any:
        self.budget.write(text_size(value))
        return value


class _Generation(Extension):
    """``{% generation %}`` marks what an assistant said, for training; here it is the text inside."""

    tags = {"generation"}  # noqa: RUF012  (jinja's own form)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Dict:
    """``dict(...)`` without the type's attributes, as in transformers."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """``namespace(...)``; names with an underscore are Python's own and refused, as in transformers."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_is_public(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_is_public(name)
        super().__setitem__(name, value)


def _check_is_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no {name!r:.40}")


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRefusalError(" ".join(str(message).split()))


def _strftime_now(form: str, /) -> str:
    check_format(form)
    return datetime.now().strftime(form)


def _tojson(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  (transformers' signature)
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
