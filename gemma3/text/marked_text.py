"""Which control tokens of a rendered text the template wrote, and which a client did.

Before a template is compiled, the names of control tokens in *its* text become stand-ins: single lone
surrogates, which no message may hold. After rendering, a stand-in is that control token and all else
is text, encoded without control tokens. So what a client writes cannot become a control token, whatever
the template does to it: cut, join, trim, replace, change its case. The other way round, marks around
messages, would have to survive every filter.

Knows nothing of jinja. Immutable, so any thread may use it.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from gemma3.errors import ChatTemplateError, TokenizerError
from gemma3.text.role_marks import RoleMarks
from gemma3.text.tokenizer import Gemma3Tokenizer

_FIRST, _MAX_NAMES = 0xD800, 0x3FF
END_OF_CONTENT = "\udbff"
_STAND_INS = re.compile("[\ud800-\udbff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
# Gemma's vocabulary holds the tags of HTML: they open and close no turn.
_HTML = frozenset(
    "table caption thead tbody tfoot tr th td h1 h2 h3 h4 h5 h6 blockquote strong em b i u s sub sup code a html body "
    "img span bbox ul li div iframe footer".split()
)


class MarkedText:
    """The stand-ins of one template, and the token ids of what it renders with them.

    Control tokens are the tokenizer's special ones, and added ones that the template itself names:
    fine-tunes add ``<|im_start|>`` without that flag. The tokenizer finds the latter in any text, so where a
    client wrote such a name it is encoded in two parts.
    """

    def __init__(
        self, template: str, tokenizer: Gemma3Tokenizer, *, variables: Iterable[str], makes_names_of_roles: bool
    ) -> None:
        """``variables`` are names of control tokens that the template is given.

        Raises:
            ChatTemplateError: there are more names than stand-ins.
        """
        known = {tokenizer.id_to_token(i): i for i in sorted(tokenizer.added_ids)}
        self._roles = RoleMarks(filter(_can_close, known) if makes_names_of_roles else ())
        given = set(variables)
        used = {
            name: token_id
            for name, token_id in known.items()
            if (name in template or name in given or self._roles.makes(name))
            and (token_id in tokenizer.special_ids or _can_close(name))
        }
        if len(used) > _MAX_NAMES:
            raise ChatTemplateError(
                f"a chat template that names more than {_MAX_NAMES} control tokens is not followed."
            )
        self._names = {chr(_FIRST + i): name for i, name in enumerate(used)}
        self._stand_ins = {name: stand_in for stand_in, name in self._names.items()}
        self._ids = {stand_in: used[name] for stand_in, name in self._names.items()}
        self._closing_ids = tokenizer.special_ids.union(
            token_id for name, token_id in known.items() if _can_close(name)
        )
        self._any_name = _any_of(used)
        flagless = [name for name, token_id in used.items() if token_id not in tokenizer.special_ids]
        self._flagless = re.compile(f"(?={_any_of(flagless).pattern})") if flagless else None
        self._tokenizer = tokenizer

    def mark(self, text: str) -> str:
        """``text`` that the template can write, with stand-ins for names, the longest first."""
        return self._roles.mark(self._any_name.sub(lambda found: self._stand_ins[found[0]], text))

    def mark_role(self, text: str) -> str:
        """A role of a message, or ``text`` that the template compares with something."""
        return self._roles.mark_role(text)

    def restore(self, text: str) -> str:
        """A rendered text, or the words of an error, with the names again."""
        return _SURROGATES.sub(lambda found: self._names.get(found[0], ""), self._roles.resolve(text, self._stand_ins))

    def split(self, text: str) -> Iterator[str | int]:
        """The stretches of a rendered text and the ids of the control tokens between them, in order."""
        text = self._roles.resolve(text, self._stand_ins)
        done = 0
        for found in _STAND_INS.finditer(text):
            yield text[done : found.start()]
            yield self._ids[found[0]]
            done = found.end()
        yield text[done:]

    def encode(self, text: str) -> list[int]:
        """The token ids of a rendered text; what lies between two control tokens is encoded as one."""
        token_ids: list[int] = []
        for part in self.split(text):
            token_ids += [part] if isinstance(part, int) else self._encode_plain(part)
        return token_ids

    def is_exact(self, text: str) -> bool:
        """Whether a rendered text has the control tokens that it would have if no text were a client's."""
        ours, theirs = self.encode(text), self._tokenizer.encode(self.restore(text), parse_special=True)
        return [i for i in ours if i in self._closing_ids] == [i for i in theirs if i in self._closing_ids]

    def _encode_plain(self, text: str) -> list[int]:
        if self._flagless is None or not (found := [each.start() for each in self._flagless.finditer(text)]):
            return self._tokenizer.encode(text)
        cuts = [0, *(start + 1 for start in found), len(text)]
        return [i for begin, end in pairwise(cuts) for i in self._tokenizer.encode(text[begin:end])]


def check_no_stand_in(text: str) -> None:
    """Raises: TokenizerError, a client's text holds a lone surrogate, which could be a stand-in."""
    if found := _SURROGATES.search(text):
        raise TokenizerError(f"the text has a lone surrogate U+{ord(found[0]):04X} at character {found.start()}.")


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")


def _can_close(name: str) -> bool:
    """Not white space, as the vocabulary writes it, nor a letter, nor HTML."""
    return len(name) > 1 and bool(name.strip("\u2581\n\t ")) and name.strip("</>") not in _HTML
