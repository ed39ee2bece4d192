"""What turns text into token ids and tokens into bytes: the seam under ``Gemma3Tokenizer``.

``gemma_pipeline.GemmaPipeline`` is Gemma's own and fast; ``library_pipeline.LibraryPipeline`` runs
any other through the ``tokenizers`` library. Nothing visible changes after construction, so any
thread may use either.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Pipeline(Protocol):
    """What ``Gemma3Tokenizer`` asks of a pipeline."""

    @property
    def note(self) -> str:
        """What runs, and why, for the log."""

    @property
    def pieces(self) -> list[str]:
        """``pieces[token_id]``, as the vocabulary writes them."""

    @property
    def ids(self) -> Mapping[str, int]:
        """The id of each piece."""

    @property
    def control_ids(self) -> Mapping[str, int]:
        """The ids of the control tokens that Gemma gives a name: ``<bos>`` and so on."""

    @property
    def special_ids(self) -> frozenset[int]:
        """All control tokens; they are found in a text with ``parse_special`` alone."""

    @property
    def added_ids(self) -> frozenset[int]:
        """All tokens that are cut out of a text before anything else; ``special_ids`` are among them."""

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        """The token ids of a text that has UTF-8, with the control tokens that begin a prompt if ``add_bos``."""

    def token_to_bytes(self, token_id: int) -> bytes:
        """What a token of the vocabulary adds within a text."""

    def text_bytes(self, token_ids: Sequence[int]) -> bytes:
        """What tokens are as a whole text: they may begin otherwise than within one."""

    def min_num_tokens(self, text: str) -> int:
        """``encode`` gives at least so many tokens."""
