"""Which ids a sequence has, and how often its output has each: what the penalties of its next token need.

Kept from step to step, since counting a text anew for each token takes a time that grows with its length. Knows nothing of
penalties or rows; the sequence's list of tokens only grows between two steps. Engine thread only.
"""

from collections import Counter, abc


class SeenTokens:
    """The ids of the first tokens of one sequence. Mutable.

    Attributes:
        token_ids: distinct ids of prompt and output, in the order in which they came.
        output_counts: how often each id is in the output.
    """

    __slots__ = ("_num_counted", "output_counts", "token_ids")

    def __init__(self) -> None:
        self.token_ids: dict[int, None] = {}
        self.output_counts: Counter[int] = Counter()
        self._num_counted = 0

    def follow(self, token_ids: abc.Sequence[int], num_prompt_tokens: int) -> None:
        """Take in what ``token_ids`` has gained; drafts are not among them, so nothing is ever taken back."""
        first_new, self._num_counted = self._num_counted, len(token_ids)
        self.token_ids.update(dict.fromkeys(token_ids[first_new:]))
        self.output_counts.update(token_ids[max(first_new, num_prompt_tokens) :])
