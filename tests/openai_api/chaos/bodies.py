"""Request bodies from a seeded generator: ordinary, extreme, malformed and huge ones.

Owns what is asked, not how it is sent (``mix``). Pure.
"""

import functools
import json
import random
from dataclasses import dataclass, field
from typing import Any

from tests.openai_api.chaos.servers import Target

CHAT, COMPLETIONS, TOKENIZE, DETOKENIZE = "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"
WORDS = (
    "The capital of France is Paris . Once upon a time there was \n\n def f(x): return 1,234.56 <end_of_turn> "
    "Donaudampfschiff \u00e9t\u00e9 \u65e5\u672c\u8a9e \u0928\u092e\u0938\u094d\u0924\u0947 \U0001f469\u200d\U0001f4bb "
    "\ufdfa e\u0301 \u200f\u0627\u0644 \t \x00 aaaaaaaaaaaaaaaa"
).split(" ")
BODY_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True)
class Body:
    """A body that the contract allows, and where it goes."""

    path: str
    fields: dict[str, Any] = field(default_factory=dict)

    def encoded(self, **more: Any) -> bytes:
        return json.dumps(self.fields | more).encode()


def text(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choices(WORDS, k=num_words))


def token_ids(rng: random.Random, target: Target, num_tokens: int) -> list[int]:
    """Any ids with a piece, those of control tokens too."""
    return [rng.randrange(target.vocab_size) for _ in range(num_tokens)]


def generation(rng: random.Random, target: Target, settings: dict[str, Any]) -> Body:
    """A chat or a completion of a prompt unlike others."""
    if rng.random() < 0.5:
        prompt = text(rng, rng.randint(1, 24)) if rng.random() < 0.5 else token_ids(rng, target, rng.randint(1, 24))
        return Body(COMPLETIONS, {"model": target.model, "prompt": prompt, **settings})
    messages = [{"role": "user", "content": text(rng, rng.randint(1, 12))}]
    return Body(CHAT, {"model": target.model, "messages": messages, **settings})


def ordinary(rng: random.Random, target: Target) -> Body:
    """Greedy or seeded, and short."""
    settings: dict[str, Any] = {"max_tokens": rng.randint(1, 24), "temperature": 0}
    if rng.random() < 0.5:
        settings |= {"temperature": rng.choice((0.7, 1.0)), "seed": rng.randrange(1 << 31), "top_p": 0.95}
    return generation(rng, target, settings)


def endless(rng: random.Random, target: Target) -> Body:
    """Runs until the client goes: the phases of a request are long enough to leave in."""
    return generation(rng, target, {"max_tokens": 400, "temperature": 1.0, "ignore_eos": True})


def wide(rng: random.Random, target: Target) -> Body:
    """Much more to read than it costs to make."""
    prompt = {"model": target.model, "prompt": token_ids(rng, target, 8), "logprobs": 20, "max_tokens": 200}
    return Body(COMPLETIONS, prompt | {"ignore_eos": True, "return_token_ids": True})


def long(rng: random.Random, target: Target) -> Body:
    """A prompt of up to all that the context has room for."""
    prompt = token_ids(rng, target, rng.randint(target.long_prompt_tokens // 2, target.long_prompt_tokens))
    return Body(COMPLETIONS, {"model": target.model, "prompt": prompt, "max_tokens": 2, "temperature": 0})


def extreme(rng: random.Random, target: Target) -> Body:
    """Settings at and beyond both ends of their ranges; each is served or refused."""
    ends: dict[str, tuple[Any, ...]] = {
        "temperature": (0, 1e-30, 1e-300, 1, 2, 2.0000001),
        "top_p": (0, 1e-300, 1e-38, 1e-45, 0.5, 1),
        "top_k": (-1, 0, 1, 262_144, 1 << 31, 10**18),
        "min_p": (0, 1e-300, 1e-30, 1),
        "presence_penalty": (-2, 2),
        "frequency_penalty": (-2, 2),
        "repetition_penalty": (1e-38, 1e-30, 0.01, 100, 1e30, 3.4e38),
        "seed": (0, -1, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, -(1 << 63), 1 << 64),
        "n": (1, 8, 64, 65),
        "min_tokens": (0, 8, 1 << 40),
        "stop": ("\n", ["a", "", "e"], ["x" * 256], [" "] * 5),
        "truncate_prompt_tokens": (1, 2, 1 << 40),
        "ignore_eos": (True, False),
        "allowed_token_ids": ([], [0], [1], [7, 7, 9], [target.vocab_size], [-1], list(range(200)), [5] * 1_025),
        "logprob_token_ids": ([], [3, 0, 3], [target.vocab_size], [5] * 129),
        "prompt_logprobs": (-1, 0, 20, 21),
        "return_tokens_as_token_ids": (True, False),
        "parse_special": (True, False),
    }
    chosen = rng.sample(sorted(ends), k=rng.randint(1, 6))
    settings = {name: rng.choice(ends[name]) for name in chosen} | {"max_tokens": rng.choice((1, 8, 16))}
    if rng.random() < 0.3:
        ids = rng.sample(range(target.vocab_size), k=min(target.vocab_size, rng.choice((1, 60, 300, 1_024))))
        settings["logit_bias"] = {str(token_id): rng.choice((-100, 100, 1e-30)) for token_id in ids}
    body = generation(rng, target, settings)
    if rng.random() < 0.3:
        body.fields.update({"logprobs": True, "top_logprobs": 20} if body.path == CHAT else {"logprobs": 20})
    return body


def malformed(rng: random.Random, target: Target) -> bytes:
    """Not JSON, or not of the right types, or an ordinary body with damage."""
    good = ordinary(rng, target).encoded()
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(NOT_JSON)
    if kind == 1:
        return good[: rng.randrange(len(good))]
    if kind == 2:
        at = rng.randrange(len(good))
        return good[:at] + bytes([rng.randrange(256)]) + good[at + 1 :]
    if kind == 3:
        return good[:-1] + b"," + rng.choice(WRONG_MEMBERS) + b"}"
    return rng.randbytes(rng.randint(1, 2_000))


NOT_JSON = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"0",
    b'"text"',
    b"\xff\xfe{\x00}\x00",
    b"{" * 10_000,
    b"[" * 200_000 + b"]" * 200_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"model": "' + b"\\ud800" * 1_000 + b'"}',
    b'{"model": ' + b"9" * 10_000 + b"}",
)
WRONG_MEMBERS = (
    b'"max_tokens": true',
    b'"max_tokens": 1e400',
    b'"max_tokens": ' + b"9" * 5_000,
    b'"temperature": NaN',
    b'"temperature": -Infinity',
    b'"temperature": "1"',
    b'"n": 1.5',
    b'"stop": {"a": 1}',
    b'"stop": "\\ud800"',
    b'"logit_bias": {"\\udfff": 1}',
    b'"logit_bias": {"-1": 1, "99999999999999999999": 1}',
    b'"stop_token_ids": [-1]',
    b'"stop_token_ids": [99999999999]',
    b'"stream": "yes"',
    b'"prompt": {"a": []}',
    b'"prompt": [[]]',
    b'"messages": [{"role": "user", "content": "\\ud83d"}]',
    b'"messages": [{"role": "root", "content": null}]',
    b'"tools": [{"type": "function"}]',
    b'"no_such_field": 1',
    b'"model": "other"',
    b'"model": "\\u0000"',
    b'"prompt": [9999999]',
)
HUGE = ("text", "wide text", "ids", "messages", "bias", "blank", "nested", "detokenize", "tokenize")
HUGE_SIZES = (BODY_LIMIT // 4, BODY_LIMIT - 1, BODY_LIMIT, BODY_LIMIT + 1, 2 * BODY_LIMIT)


@functools.cache
def huge(kind: str, size: int, target: Target) -> tuple[str, bytes]:
    """Path and body of ``size`` bytes or a few less.

    Kept: to make one costs more than to send it.
    """
    model = json.dumps(target.model)
    paths = {"detokenize": DETOKENIZE, "tokenize": TOKENIZE, "messages": CHAT}
    before, unit, after = {
        "text": (f'{{"model":{model},"prompt":"', "a", '"}'),
        "wide text": (f'{{"model":{model},"prompt":"', "\ufdfa ", '"}'),
        "ids": (f'{{"model":{model},"prompt":[', "5,", "5]}"),
        "messages": (f'{{"model":{model},"messages":[', '{"role":"user","content":"a"},', "{}]}"),
        "bias": (f'{{"model":{model},"prompt":"a","logit_bias":{{', '"5":1,', '"6":1}}'),
        "blank": (f'{{"model":{model},"prompt":"Hi","max_tokens":1', " ", "}"),
        "nested": (f'{{"model":{model},"metadata":{{"a":', "[", "]}}"),
        "detokenize": ('{"tokens":[', "5,", "5]}"),
        "tokenize": ('{"prompt":"', "word ", '"}'),
    }[kind]
    start, each, end = before.encode(), unit.encode(), after.encode()
    return paths.get(kind, COMPLETIONS), start + each * ((size - len(start) - len(end)) // len(each)) + end
