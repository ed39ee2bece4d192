"""End tokens: which file's word counts, what odd values mean, and what is refused."""

from typing import Any

import pytest

from gemma3.checkpoints.end_tokens import EndTokens, end_token_ids, end_tokens_of_folder, end_tokens_of_gguf
from gemma3.errors import ConfigError
from gemma3.text.tokenizer import Gemma3Tokenizer

EOS, OTHER = 1, 42
TOKENIZER = Gemma3Tokenizer()
GENERATION, CONFIG = "generation_config.json", "config.json"
KEYS = [f"tokenizer.ggml.{name}" for name in ("eos_token_id", "eot_token_id", "eom_token_id")]


def of_folder(
    generation: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
) -> EndTokens:
    return end_tokens_of_folder(generation or {}, config or {}, tokenizer or {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (OTHER, (OTHER,)),
        ([EOS, OTHER], (EOS, OTHER)),
        ([], ()),
        (None, ()),
        (-1, ()),
        ([EOS, -1], (EOS,)),
        (9_999_999, (9_999_999,)),
    ],
    ids=str,
)
def test_what_a_file_may_say(value: object, expected: tuple[int, ...]) -> None:
    assert of_folder({"eos_token_id": value}).token_ids == expected
    assert of_folder(config={"eos_token_id": value}).token_ids == expected


@pytest.mark.parametrize("value", ["106", {}, True, [None], [1.5], 1.0, [[1]], [EOS, "2"]], ids=str)
@pytest.mark.parametrize("source", [GENERATION, CONFIG])
def test_other_types_are_refused_by_file_and_value(value: object, source: str) -> None:
    given = {"eos_token_id": value}
    with pytest.raises(ConfigError) as caught:
        of_folder(given if source == GENERATION else None, given if source == CONFIG else None)
    assert str(caught.value).startswith(f"{source}: eos_token_id={value!r} is not allowed")


@pytest.mark.parametrize("nothing", [{}, {"eos_token_id": None}, {"eos_token_id": []}], ids=str)
def test_config_is_asked_where_generation_config_gives_none(nothing: dict[str, Any]) -> None:
    assert of_folder(nothing, {"eos_token_id": OTHER}).token_ids == (OTHER,)
    assert of_folder({"eos_token_id": EOS}, {"eos_token_id": OTHER}).token_ids == (EOS,)
    inner = {"text_config": {"eos_token_id": OTHER}}
    assert of_folder(nothing, inner).token_ids == (OTHER,)
    assert of_folder(nothing, {**inner, "eos_token_id": EOS}).token_ids == (EOS,)
    assert of_folder(nothing, {"text_config": [OTHER]}).token_ids == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("<|im_end|>", "<|im_end|>"), ({"content": "<end>", "lstrip": False}, "<end>"), (None, None), ("", None)],
    ids=str,
)
def test_the_eos_token_of_the_tokenizer_is_added(value: object, expected: str | None) -> None:
    named = of_folder({"eos_token_id": OTHER}, None, {"eos_token": value})
    assert named == EndTokens((OTHER,), expected)


@pytest.mark.parametrize("value", [1, True, ["<eos>"], {}, {"content": 1}], ids=str)
def test_an_eos_token_is_text(value: object) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json: eos_token=.* is not allowed"):
        of_folder(None, None, {"eos_token": value})


def ids_of(named: EndTokens, *, ends_turns: bool = False) -> set[int]:
    return set(end_token_ids(named, TOKENIZER, vocab_size=TOKENIZER.vocab_size, ends_turns=ends_turns))


def test_the_rule() -> None:
    turn = TOKENIZER.end_of_turn_id
    assert ids_of(EndTokens()) == {EOS}
    assert ids_of(EndTokens(), ends_turns=True) == {EOS, turn}
    assert ids_of(EndTokens((OTHER, 7))) == {EOS, OTHER, 7}
    assert ids_of(EndTokens((), "<end_of_turn>")) == {EOS, turn}


@pytest.mark.parametrize(
    ("named", "shown"), [(EndTokens((OTHER, 9_999_999)), "9999999"), (EndTokens((OTHER,), "<|gone|>"), "'<|gone|>'")]
)
def test_what_is_not_in_the_vocabulary_is_told(named: EndTokens, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    assert ids_of(named) == {EOS, OTHER}
    assert [record.getMessage() for record in caplog.records] == [
        f"An end token that the checkpoint names is passed over: {shown} (not in its vocabulary)."
    ]


def test_nothing_is_told_of_what_is_there(caplog: pytest.LogCaptureFixture) -> None:
    ids_of(EndTokens((OTHER,), "<eos>"), ends_turns=True)
    assert not caplog.records


@pytest.mark.parametrize("key", KEYS)
def test_each_key_of_a_gguf(key: str) -> None:
    assert end_tokens_of_gguf({key: OTHER}).token_ids == (OTHER,)
    assert end_tokens_of_gguf({key: 2**32 - 1}).token_ids == ()
    for value in ("<eos>", 1.0, True):
        with pytest.raises(ConfigError) as caught:
            end_tokens_of_gguf({key: value})
        assert str(caught.value).startswith(f"{key}={value!r} is not allowed")


def test_keys_of_a_gguf_together() -> None:
    keys = dict(zip(KEYS, (EOS, OTHER, 7), strict=True)) | {f"{KEYS[0]}s": memoryview(b"\x09\x0a")}
    assert end_tokens_of_gguf(keys).token_ids == (EOS, OTHER, 7, 9, 10)
    assert end_tokens_of_gguf({}) == EndTokens()
