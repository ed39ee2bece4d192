"""Lark grammars of the library's dialect, as far as they must be understood before it reads them.

Owns the schemas embedded by ``%json``, which get the same options as any other, and the names of tokens (``<eos>``,
``<[2]>``), which no grammar may use: what they stand for is no text. Plain functions: any thread.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from engine.errors import GrammarError
from engine.grammar.schema import check_schema, rewritten

# A string, an expression or a comment, as the library tells them: nothing within it is syntax.
_STRING = r'"(?:\\(?:["\\/bfnrt]|u[a-fA-F0-9]{4})|[^"\\\x00-\x1f\x7f])*"'
_OPAQUE = rf"{_STRING}|(?://|\#)[^\n]*|/(?:\\.|[^/\\])+/"
_PIECE = re.compile(rf"(?P<opaque>{_OPAQUE})|(?P<json>%json\b\s*)|(?P<token><[^<>\s]*>)")


def with_library_schemas(lark: str) -> str:
    """``lark`` with each embedded schema as the library takes it.

    Raises:
        GrammarError: it names a token, or a schema within it is not supported.
    """
    return "".join(part if isinstance(part, str) else json.dumps(part) for part in _parts(lark))


def literal(text: str) -> str:
    """The Lark of exactly ``text``."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # which the library takes only so


def embedded_schemas(lark: str) -> list[dict[str, Any]]:
    """The schemas alone. Raises: GrammarError as ``with_library_schemas``."""
    return [part for part in _parts(lark) if not isinstance(part, str)]


def _parts(lark: str) -> Iterator[str | dict[str, Any]]:
    at = 0
    while found := _PIECE.search(lark, at):
        yield lark[at : found.end()]
        at = found.end()
        if found["token"] is not None:
            raise _error(lark, at, f"names a token, {found['token'][:40]!a}; only text is allowed")
        if found["json"] is not None:
            schema, at = _schema_at(lark, at)
            yield schema
    yield lark[at:]


def _schema_at(lark: str, at: int) -> tuple[dict[str, Any], int]:
    """The schema that begins there, as the library takes it, and where it ends."""
    try:
        schema, end = json.JSONDecoder().raw_decode(lark, at)
    except (ValueError, RecursionError):
        raise _error(lark, at, "has no JSON after %json") from None
    return rewritten(check_schema(schema)), end


def _error(lark: str, at: int, words: str) -> GrammarError:
    line = lark.count("\n", 0, at) + 1
    return GrammarError(f"the grammar cannot be used: line {line} {words}.")
