"""Which control tokens of a rendered text the template wrote, and which a client did.

Before a template is compiled, the names of control tokens in *its* text become stand-ins: single lone
surrogates, which no message may hold. After rendering, a stand-in is that control token and all else
is text, encoded without control tokens. So what a client writes cannot become a control token, whatever
the template does to it: cut, join, trim, replace, change its case. The other way round, marks around
messages, would have to survive every filter.

Knows nothing of jinja. Immutable, so any thread may use it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from gemma3.errors import ChatTemplateError, TokenizerError
from gemma3.text.tokenizer import Gemma3Tokenizer

_FIRST, _NUM = 0xD800, 0x400
# The last ones are for other uses than names.
END_OF_CONTENT = "\udbff"
_NUM_NAMES = _NUM - 1
_SURROGATES = re.compile("[\ud800-\udfff]")
# Gemma's vocabulary holds the tags of HTML: they open and close no turn.
_HTML = frozenset(
    "table caption thead tbody tfoot tr th td h1 h2 h3 h4 h5 h6 blockquote strong em b i u s sub sup code a html body "
    "img span bbox ul li div iframe footer".split()
)


class ControlMarks:
    """Stand-ins for the control tokens ``names``, by their text."""

    def __init__(self, names: Mapping[str, int]) -> None:
        self._ids = {chr(_FIRST + i): token_id for i, token_id in enumerate(names.values())}
        self._names = {chr(_FIRST + i): name for i, name in enumerate(names)}
        self._marks = {name: mark for mark, name in self._names.items()}
        self._any_name = _any_of(names)

    def mark(self, text: str) -> str:
        """``text`` of a template with stand-ins for names, the longest first."""
        return self._any_name.sub(lambda found: self._marks[found[0]], text)

    def restore(self, text: str) -> str:
        """``text`` with the names again."""
        return _SURROGATES.sub(lambda found: self._names.get(found[0], ""), text)

    def split(self, text: str) -> Iterator[str | int]:
        """The stretches of a rendered text and the ids of the control tokens between them, in order."""
        done = 0
        for found in _SURROGATES.finditer(text):
            yield text[done : found.start()]
            yield self._ids[found[0]]
            done = found.end()
        yield text[done:]


class MarkedEncoder:
    """Encodes what a template rendered from marked text.

    Control tokens are the tokenizer's special ones, and added ones that the template itself names:
    fine-tunes add ``<|im_start|>`` without that flag. The tokenizer finds the latter in any text, so where a
    client wrote such a name it is encoded in two parts.
    """

    def __init__(self, template: str, tokenizer: Gemma3Tokenizer, also: Iterable[str] = ()) -> None:
        special = {tokenizer.id_to_token(i): i for i in sorted(tokenizer.special_ids)}
        added = {tokenizer.id_to_token(i): i for i in sorted(tokenizer.added_ids - tokenizer.special_ids)}
        named = {name: i for name, i in added.items() if name in template or name in also}
        flagless = {name: i for name, i in named.items() if len(name) > 1 and not _is_plain(name)}
        used = {name: i for name, i in special.items() if name in template or name in also}
        if len(used) + len(flagless) > _NUM_NAMES:
            raise ChatTemplateError(
                f"a chat template that names more than {_NUM_NAMES} control tokens is not followed."
            )
        self.marks = ControlMarks(used | flagless)
        self.control_ids = tokenizer.special_ids | frozenset(flagless.values())
        self._flagless = _any_of(flagless, overlapping=True) if flagless else None
        self._tokenizer = tokenizer

    def parts(self, text: str) -> Iterator[list[int]]:
        """Token ids of a rendered text: those of each stretch, then the control token behind it, and so on."""
        for part in self.marks.split(text):
            yield [part] if isinstance(part, int) else self._encode_plain(part)

    def _encode_plain(self, text: str) -> list[int]:
        if self._flagless is None or not (found := [each.start() for each in self._flagless.finditer(text)]):
            return self._tokenizer.encode(text)
        cuts = [0, *(start + 1 for start in found), len(text)]
        return [i for begin, end in pairwise(cuts) for i in self._tokenizer.encode(text[begin:end])]


def check_no_stand_in(text: str) -> None:
    """Raises: TokenizerError, a client's text holds a lone surrogate, which could be a stand-in."""
    if found := _SURROGATES.search(text):
        raise TokenizerError(f"the text has a lone surrogate U+{ord(found[0]):04X} at character {found.start()}.")


def _any_of(names: Iterable[str], *, overlapping: bool = False) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first)) or "(?!)"
    return re.compile(f"(?={pattern})" if overlapping else pattern)


def _is_plain(name: str) -> bool:
    """White space, as the vocabulary writes it, or HTML."""
    return not name.strip("\u2581\n\t ") or name.strip("</>") in _HTML
