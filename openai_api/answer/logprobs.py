"""Log probabilities in OpenAI's two shapes: that of chat and the older one of text completions.

Owns the text of a token that is not whole characters: chat gives its bytes beside a replacement
character, the older shape writes it as ``bytes:\\xe2\\x80``, as OpenAI did. For clients that want to
tell any two tokens apart both write ``token_id:818``, as vLLM does. Knows nothing of requests. Runs
on the event loop, for a whole answer with many of them in a worker thread.
"""

from codecs import getincrementaldecoder
from collections.abc import Sequence
from dataclasses import dataclass

from engine.outputs import TokenLogprob
from openai_api.answer.chunks import Chunk
from openai_api.answer.models import ChatLogprobs, LegacyLogprobs, TokenLogprobAnswer, TopLogprob
from openai_api.engine_api import Tokenizer

_MAX_VALIDATED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatLogprobsWriter:
    """Writes log probabilities in chat's shape; logarithms are natural.

    Attributes:
        lists_chosen: the chosen token is the first of its own alternatives, unless it is among them.
        as_token_ids: a token's name is its id; ``bytes`` are its own all the same.
    """

    tokenizer: Tokenizer
    lists_chosen: bool = False
    as_token_ids: bool = False

    def write(self, chunk: Chunk) -> ChatLogprobs | None:
        """One entry for each token of ``chunk``, ``None`` if none were asked for."""
        if chunk.logprobs is None:
            return None
        return ChatLogprobs(content=[self._entry(entry) for entry in chunk.logprobs if entry is not None])

    def _entry(self, entry: TokenLogprob) -> TokenLogprobAnswer:
        token, as_bytes = self._token(entry.token_id)
        top = [self._top(token_id, logprob) for token_id, logprob in entry.top]
        if self.lists_chosen and all(token_id != entry.token_id for token_id, _ in entry.top):
            top.insert(0, self._top(entry.token_id, entry.logprob))
        return TokenLogprobAnswer(token=token, logprob=entry.logprob, bytes=as_bytes, top_logprobs=top)

    def _top(self, token_id: int, logprob: float) -> TopLogprob:
        token, as_bytes = self._token(token_id)
        return TopLogprob(token=token, logprob=logprob, bytes=as_bytes)

    def _token(self, token_id: int) -> tuple[str, list[int]]:
        as_bytes = self.tokenizer.token_to_bytes(token_id)
        text = id_name(token_id) if self.as_token_ids else as_bytes.decode("utf-8", "replace")
        return text, list(as_bytes)


def id_name(token_id: int) -> str:
    """vLLM's way to write a token as its id."""
    return f"token_id:{token_id}"


def legacy_token(token_id: int, tokenizer: Tokenizer) -> str:
    """The text of a token, or ``bytes:\\xe2\\x80`` for one that is not whole UTF-8 characters."""
    as_bytes = tokenizer.token_to_bytes(token_id)
    try:
        return as_bytes.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in as_bytes)


class LegacyLogprobsWriter:
    """Writes one choice's log probabilities, chunk by chunk or all at once, with offsets into its
    text. Mutable.

    ``skip_first``: the first token (a ``<bos>`` that the server put there) has no place in the
    text.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, num_alternatives: int, skip_first: bool, as_token_ids: bool = False
    ) -> None:
        self.tokenizer = tokenizer
        self.as_token_ids = as_token_ids
        self.num_alternatives = num_alternatives
        self._skip_next = skip_first
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def write(self, chunk: Chunk) -> LegacyLogprobs | None:
        """Lists as long as the tokens of ``chunk``; ``text_offset`` counts characters of the
        choice's text.

        ``None`` if no log probabilities were asked for.
        """
        if chunk.logprobs is None:
            return None
        # Validation would take 60 ns for each of perhaps 600,000 numbers at once.
        new = LegacyLogprobs if len(chunk.token_ids) <= _MAX_VALIDATED else LegacyLogprobs.model_construct
        return new(
            tokens=[self._token(token_id) for token_id in chunk.token_ids],
            token_logprobs=[None if entry is None else entry.logprob for entry in chunk.logprobs],
            top_logprobs=[self._top(entry) for entry in chunk.logprobs] if self.num_alternatives else None,
            text_offset=self._offsets(chunk.token_ids),
        )

    def _top(self, entry: TokenLogprob | None) -> dict[str, float] | None:
        """The alternatives and the chosen token; of two tokens with one text, the likelier."""
        if entry is None:
            return None
        top: dict[str, float] = {}
        for token_id, logprob in (*entry.top, (entry.token_id, entry.logprob)):
            top.setdefault(self._token(token_id), logprob)
        return top

    def _token(self, token_id: int) -> str:
        return id_name(token_id) if self.as_token_ids else legacy_token(token_id, self.tokenizer)

    def _offsets(self, token_ids: Sequence[int]) -> list[int]:
        offsets = []
        for token_id in token_ids:
            offsets.append(self._offset)
            if not self._skip_next:
                self._offset += len(self._decoder.decode(self.tokenizer.token_to_bytes(token_id)))
            self._skip_next = False
        return offsets
