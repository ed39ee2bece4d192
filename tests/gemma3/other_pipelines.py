"""``tokenizer.json`` files of many pipelines, small: Gemma's with one thing changed, and other kinds of model."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.gemma3 import texts
from tests.gemma3.tokenizer_corpus import CONTROL, SENTENCES

Content = dict[str, Any]
Change = Callable[[Content], object]

SPACE = "\u2581"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# Ids as Gemma 3 has them: the turns at 105 and 106.
ADDED = [*CONTROL[:4], "<mask>", *(f"<unused{i}>" for i in range(100)), *CONTROL[4:]]
TEXT_TOKENS = ["\n", "\n\n", SPACE * 2, SPACE * 3]
LATIN = [texts.PROSE, texts.CODE, texts.GERMAN, texts.JSON, texts.FRENCH, texts.SPANISH]


@cache
def _gemma_like() -> str:
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", SPACE)
    learner.train_from_iterator([*SENTENCES, *LATIN], trainers.BpeTrainer(vocab_size=700, show_progress=False))
    learnt = sorted(learner.get_vocab().items(), key=lambda item: (len(item[0]) == 1, item[1]))
    words = [piece for piece, _ in learnt if len(piece) == 1 or piece.strip(SPACE)]
    pieces = list(dict.fromkeys([*ADDED, *TEXT_TOKENS, *BYTES, *words]))
    merges = [(SPACE * 2, SPACE), (SPACE, SPACE * 2), (SPACE, SPACE)]
    for piece in pieces[len(ADDED) + len(TEXT_TOKENS) + len(BYTES) :]:
        splits = ((piece[:k], piece[k:]) for k in range(len(piece) - 1, 0, -1))
        merges += [split for split in splits if set(pieces).issuperset(split)]
    ids = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token=CONTROL[3], fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL])
    others = [*(name for name in ADDED if name not in CONTROL), *TEXT_TOKENS]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in others])
    return tokenizer.to_str()


def gemma_like() -> Content:
    """Gemma's own pipeline over pieces that were learnt from a page, with the merges that follow from them."""
    content: Content = json.loads(_gemma_like())
    return content


def set_key(key: str, value: object) -> Change:
    return lambda content: content.update({key: value})


def set_in_model(**values: object) -> Change:
    return lambda content: content["model"].update(values)


def normalize(*stages: Content) -> Change:
    """These before Gemma's own."""
    own = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    return set_key("normalizer", {"type": "Sequence", "normalizers": [*stages, own]})


def decode(*stages: Content) -> Change:
    return set_key("decoder", {"type": "Sequence", "decoders": list(stages)})


def add(text: str, **flags: bool) -> Change:
    """One more added token, behind all others."""

    def change(content: Content) -> None:
        vocab, added = content["model"]["vocab"], content["added_tokens"]
        next_id = len(vocab) + sum(token["content"] not in vocab for token in added)
        every = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False) | flags
        added.append({"id": next_id, "content": text, **every})

    return change


def permute_merges(content: Content) -> None:
    content["model"]["merges"][10:60] = reversed(content["model"]["merges"][10:60])


def lose_merges(content: Content) -> None:
    del content["model"]["merges"][20:40]


def llama_like(content: Content) -> None:
    normalize({"type": "Prepend", "prepend": SPACE})(content)
    decode(*content["decoder"]["decoders"], {"type": "Strip", "content": " ", "start": 1, "stop": 0})(content)


def metaspace(scheme: str) -> Change:
    stage = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}

    def change(content: Content) -> None:
        content.update(normalizer=None, pre_tokenizer=stage)
        decode(stage, {"type": "ByteFallback"}, {"type": "Fuse"})(content)

    return change


def template(*ids: int) -> Change:
    """``<bos>``, the text, and the tokens of these ids."""
    behind = [{"SpecialToken": {"id": str(i), "type_id": 0}} for i in ids]
    single = [{"SpecialToken": {"id": "2", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, *behind]
    tokens = {str(i): {"id": str(i), "ids": [i], "tokens": [str(i)]} for i in (2, *ids)}
    stage = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}
    return set_key("post_processor", stage)


# Gemma's own file but for one thing each, and some words of the reason that the log gives.
CHANGES: dict[str, tuple[Change, str]] = {
    "NFC": (normalize({"type": "NFC"}), "normalizer is NFC and Replace"),
    "NFKC": (normalize({"type": "NFKC"}), "normalizer is NFKC"),
    "lowercase": (normalize({"type": "Lowercase"}), "normalizer is Lowercase"),
    "strips": (normalize({"type": "Strip", "strip_left": True, "strip_right": True}), "normalizer is Strip"),
    "accents": (normalize({"type": "NFD"}, {"type": "StripAccents"}), "normalizer is NFD and StripAccents"),
    "no normalizer": (set_key("normalizer", None), "normalizer is none"),
    "prepends, as Llama": (llama_like, "normalizer is Prepend"),
    "Metaspace always": (metaspace("always"), "normalizer is none"),
    "Metaspace first": (metaspace("first"), "normalizer is none"),
    "Metaspace never": (metaspace("never"), "normalizer is none"),
    "digits": (set_key("pre_tokenizer", {"type": "Digits", "individual_digits": True}), "pre-tokenizer is Digits"),
    "words": (set_key("pre_tokenizer", {"type": "Whitespace"}), "pre-tokenizer is Whitespace"),
    "other merges": (permute_merges, "merges do not follow"),
    "fewer merges": (lose_merges, "merges do not follow"),
    "ignore_merges": (set_in_model(ignore_merges=True), "model has ignore_merges"),
    "no byte_fallback": (set_in_model(byte_fallback=False), "no byte_fallback"),
    "unknown ones apart": (set_in_model(byte_fallback=False, fuse_unk=False), "no byte_fallback"),
    "ends with <eos>": (template(1), "post-processor, TemplateProcessing"),
    "no <bos>": (
        set_key(
            "post_processor", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        ),
        "post-processor, ByteLevel",
    ),
    "Bert's frame": (
        set_key("post_processor", {"type": "BertProcessing", "sep": ["<eos>", 1], "cls": ["<bos>", 2]}),
        "post-processor, BertProcessing",
    ),
    "no decoder": (set_key("decoder", None), "decoder is none"),
    "strips left": (add("<tool>", lstrip=True), "'<tool>' has flags"),
    "strips right": (add("<tool>", rstrip=True), "'<tool>' has flags"),
    "whole word": (add("lighthouse", single_word=True), "'lighthouse' has flags"),
    "normalized space": (add("the last", normalized=True), "'the last' has flags"),
    "control that strips": (add("<|im_start|>", lstrip=True, rstrip=True, special=True), "has flags"),
}


def _trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Content:
    tokenizer.train_from_iterator(LATIN, trainer)
    bos = [("<bos>", tokenizer.token_to_id("<bos>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=bos)
    tokenizer.add_tokens(["<tool>"])
    content: Content = json.loads(tokenizer.to_str())
    return content


def byte_level(*, add_prefix_space: bool = False) -> Content:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=ADDED, initial_alphabet=alphabet, show_progress=False)
    return _trained(tokenizer, trainer)


def unigram() -> Content:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=ADDED, unk_token="<unk>", show_progress=False)
    return _trained(tokenizer, trainer)


def word_piece() -> Content:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _trained(tokenizer, trainers.WordPieceTrainer(vocab_size=500, special_tokens=ADDED, show_progress=False))


def word_level() -> Content:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _trained(tokenizer, trainers.WordLevelTrainer(vocab_size=400, special_tokens=ADDED, show_progress=False))


MODELS: dict[str, tuple[Callable[[], Content], str]] = {
    "byte-level": (byte_level, "normalizer is none"),
    "byte-level, space": (lambda: byte_level(add_prefix_space=True), "normalizer is none"),
    "Unigram": (unigram, "normalizer is NFKC"),
    "WordPiece": (word_piece, "normalizer is BertNormalizer"),
    "WordLevel": (word_level, "normalizer is none"),
}


def content_of(name: str) -> Content:
    """The file of one entry of ``CHANGES`` or ``MODELS``."""
    if name in MODELS:
        return MODELS[name][0]()
    content = gemma_like()
    CHANGES[name][0](content)
    return content


def all_reasons() -> Iterator[tuple[str, str]]:
    for name, (_, reason) in (*CHANGES.items(), *MODELS.items()):
        yield name, reason


def write(folder: Path, content: Content) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder
