"""Which tokens end an answer: what a checkpoint's files name, and the rule that makes ids of it.

The rule: ``<eos>``; ``<end_of_turn>`` where the model was trained on turns; and what the checkpoint
names. A folder names the ``eos_token_id`` of ``generation_config.json`` or, where that gives none,
of ``config.json`` (as transformers' ``generate``), and the ``eos_token`` of
``tokenizer_config.json`` besides (as vLLM). A GGUF file has keys. ``null``, an empty list and -1
give none; what is not in the vocabulary is passed over with a warning; other types are refused.

Plain functions on values that were read already, any thread.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gemma3.errors import ConfigError
from gemma3.text.tokenizer import Gemma3Tokenizer

log = logging.getLogger("gemma3")

# The end of the text, of a turn and of a message that goes on (llama.cpp); Ollama writes the list.
_GGUF_KEYS = tuple(
    f"tokenizer.ggml.{name}" for name in ("eos_token_id", "eot_token_id", "eom_token_id", "eos_token_ids")
)
# "None" of tools that store an integer whatever happens: -1, and the same 32 bits without a sign.
_NONE_GIVEN = (-1, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class EndTokens:
    """What a checkpoint names: ids, compared with no vocabulary yet, and maybe a token's text."""

    token_ids: tuple[int, ...] = ()
    piece: str | None = None


def end_token_ids(named: EndTokens, tokenizer: Gemma3Tokenizer, *, vocab_size: int, ends_turns: bool) -> frozenset[int]:
    """The rule above; all ids are below ``vocab_size``."""
    token_ids = {tokenizer.eos_token_id, *named.token_ids}
    if ends_turns:
        token_ids.add(tokenizer.end_of_turn_id)
    if named.piece is not None:
        token_id = tokenizer.token_to_id(named.piece)
        token_ids.add(-1 if token_id is None else token_id)
    known = frozenset(token_id for token_id in token_ids if 0 <= token_id < vocab_size)
    if known != token_ids:
        log.warning("An end token that the checkpoint names is passed over: %s", _unknown(named, token_ids - known))
    return known


def _unknown(named: EndTokens, token_ids: Iterable[int]) -> str:
    """The ids, and the text of the one without."""
    shown = (repr(named.piece) if token_id == -1 else str(token_id) for token_id in sorted(token_ids))
    return f"{', '.join(shown):.200} (not in its vocabulary)."


def end_tokens_of_folder(
    generation_config: Mapping[str, Any], config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]
) -> EndTokens:
    """What the three files of a folder name; a file that is not there is an empty mapping.

    Raises:
        ConfigError: a value is neither an integer, a list of integers nor null; or ``eos_token``
            is no text.
    """
    text_config = config.get("text_config")
    for part, source in (
        (generation_config, "generation_config.json"),
        (config, "config.json"),
        (text_config if isinstance(text_config, dict) else {}, "config.json"),
    ):
        token_ids = _integers(part.get("eos_token_id"), f"{source}: eos_token_id")
        if token_ids:
            break
    return EndTokens(token_ids, _piece(tokenizer_config.get("eos_token")))


def end_tokens_of_gguf(metadata: Mapping[str, Any]) -> EndTokens:
    """What the metadata of a GGUF file names.

    Raises:
        ConfigError: a key holds neither an integer nor an array of them.
    """
    values = {key: metadata[key] for key in _GGUF_KEYS if key in metadata}
    return EndTokens(tuple(i for key, value in values.items() for i in _integers(_listed(value), key)))


def _integers(value: object, name: str) -> tuple[int, ...]:
    items: Iterable[object] = value if isinstance(value, list) else () if value is None else (value,)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int):
            raise ConfigError(f"{name}={value!r:.60} is not allowed: an integer or a list of integers is.")
    return tuple(item for item in items if isinstance(item, int) and item not in _NONE_GIVEN)


def _piece(value: object) -> str | None:
    """``eos_token``: the text itself, or the object of an added token, its text in ``content``."""
    text: object = value.get("content") if isinstance(value, dict) else value
    if text is None and value is None:
        return None
    if isinstance(text, str):
        return text or None
    raise ConfigError(f"tokenizer_config.json: eos_token={value!r:.60} is not allowed: the text of a token is.")


def _listed(value: object) -> object:
    """An array of numbers of a GGUF file as a list."""
    return value.tolist() if isinstance(value, memoryview) else value
