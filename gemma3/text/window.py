"""Which part of a long prompt the model sees. Plain values, any thread."""

from collections.abc import Sequence


def window(token_ids: Sequence[int], *, context_length: int, max_new_tokens: int) -> Sequence[int]:
    """The last tokens of a prompt that leave room for the answer, but at least half a context of them."""
    return token_ids[-max(context_length - max_new_tokens, context_length // 2, 1) :]
