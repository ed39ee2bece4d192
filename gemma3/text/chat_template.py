"""A chat template, compiled once and rendered for each conversation.

The text of the template is marked before it is compiled (``gemma3.text.marked_text``). Owns how its errors
are told, by line. Knows nothing of token ids or of messages. Any thread may render.
"""

from collections.abc import Callable, Mapping
from types import TracebackType

import jinja2

from gemma3.errors import ChatTemplateError
from gemma3.text.template_budget import TemplateLimitError
from gemma3.text.template_environment import TemplateEnvironment, TemplateRefusalError
from gemma3.text.template_instrument import Instrument

_FILE = "<chat template>"


class TemplateFailureError(Exception):
    """The template cannot go on; the text says why, and on which line of it."""


class ChatTemplate:
    """A compiled template."""

    def __init__(
        self,
        text: str,
        *,
        source: str,
        mark: Callable[[str], str] = str,
        mark_compared: Callable[[str], str] = str,
    ) -> None:
        """``mark`` is applied to the text that the template can write, the other to what it compares texts with.

        Raises:
            ChatTemplateError: ``text`` is no template; the line is named.
        """
        self._environment = TemplateEnvironment()
        try:
            tree = Instrument(mark, mark_compared).visit(self._environment.parse(text))
            tree.set_environment(self._environment)
            code = self._environment.compile(tree, filename=_FILE)
            self._template = jinja2.Template.from_code(self._environment, code, self._environment.make_globals(None))
        except jinja2.TemplateSyntaxError as error:
            raise ChatTemplateError(f"{source}, line {error.lineno}: {_one_line(error)}.") from None
        except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
            raise ChatTemplateError(f"{source} is no chat template: {_one_line(error)}.") from None

    def render(self, variables: Mapping[str, object]) -> str:
        """The text, with stand-ins.

        Raises:
            TemplateRefusalError: in the words of the template.
            TemplateFailureError: it failed, or went beyond a bound.
        """
        self._environment.begin()
        try:
            return self._template.render(variables)
        except TemplateRefusalError:
            raise
        except Exception as error:  # a template can raise whatever Python's operators raise
            line = _line_of(error.__traceback__)
            raise TemplateFailureError(f"line {line}: {_one_line(error)}" if line else _one_line(error)) from None


def _line_of(traceback: TracebackType | None) -> int | None:
    """The line of the template in which an error arose: jinja puts the template's lines into the traceback."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == _FILE:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _one_line(error: BaseException) -> str:
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deeply"
    if isinstance(error, TemplateLimitError):
        return f"it {error}"
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
