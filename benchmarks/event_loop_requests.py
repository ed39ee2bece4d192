"""Requests that are as large, as slow or as wrong as a body of 4 MiB can make them, for ``bench_event_loop.py``."""

import random
from collections.abc import Callable, Mapping

MIB = 1024 * 1024
RANDOM = random.Random(1)
MODEL = "gemma"


def text_of(num_chars: int, letters: str = "abcdefghijklmnopqrstuvwxyz") -> str:
    return "".join(RANDOM.choices(letters, k=num_chars))


def chat(**fields: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, **fields}


def completion(**fields: object) -> dict[str, object]:
    return {"model": MODEL, "prompt": "Hi", "max_tokens": 1, **fields}


def requests() -> Mapping[str, tuple[str, Callable[[], object]]]:
    """By name: path, and what makes the body, ``None`` for a GET."""
    rare = "".join(map(chr, range(0x4E00, 0x9FFF)))
    ids = [RANDOM.randrange(1000, 200_000) for _ in range(262_144)]
    part = {"type": "text", "text": "a"}
    return {
        "GET /openapi.json": ("/openapi.json", lambda: None),
        "GET /v1/capabilities": ("/v1/capabilities", lambda: None),
        "GET /metrics": ("/metrics", lambda: None),
        "tokenize 4 MB a": ("/tokenize", lambda: {"prompt": "a" * 4_190_000}),
        "tokenize 1 MB a": ("/tokenize", lambda: {"prompt": "a" * MIB}),
        "tokenize 1 MB letters": ("/tokenize", lambda: {"prompt": text_of(MIB)}),
        "tokenize 1 MB rare CJK": ("/tokenize", lambda: {"prompt": text_of(349_000, rare)}),
        "tokenize 4 MB rare CJK": (
            "/tokenize",
            lambda: {"prompt": text_of(1_040_000, rare), "return_token_strs": True},
        ),
        "tokenize 1 MB ' a', strings": ("/tokenize", lambda: {"prompt": " a" * (MIB // 2), "return_token_strs": True}),
        "tokenize 4 MB ' a', strings": ("/tokenize", lambda: {"prompt": " a" * 2_090_000, "return_token_strs": True}),
        "detokenize 262,144 ids": ("/detokenize", lambda: {"tokens": ids}),
        "detokenize 2 M ids": ("/detokenize", lambda: {"tokens": [7] * 1_390_000}),
        "completion 4 MB a": ("/v1/completions", lambda: completion(prompt="a" * 4_190_000)),
        "completion 520 KB letters": ("/v1/completions", lambda: completion(prompt=text_of(520_000))),
        "completion 4 MB letters, cut": (
            "/v1/completions",
            lambda: completion(prompt=text_of(4_190_000), truncate_prompt_tokens=9),
        ),
        "completion 2 M ids": ("/v1/completions", lambda: completion(prompt=[7] * 1_390_000)),
        "completion 128 x 2,048 ids": (
            "/v1/completions",
            lambda: completion(prompt=[ids[i : i + 2048] for i in range(0, 262_144, 2048)]),
        ),
        "completion 600,000 prompts": ("/v1/completions", lambda: completion(prompt=["ab"] * 600_000)),
        "chat 4 MB a": ("/v1/chat/completions", lambda: chat(messages=[{"role": "user", "content": "a" * 4_190_000}])),
        "chat 150,000 parts": (
            "/v1/chat/completions",
            lambda: chat(messages=[{"role": "user", "content": [part] * 150_000}]),
        ),
        "chat 90,000 parts": (
            "/v1/chat/completions",
            lambda: chat(messages=[{"role": "user", "content": [part] * 90_000}]),
        ),
        "chat prediction 4 MB": (
            "/v1/chat/completions",
            lambda: chat(prediction={"type": "content", "content": "a b" * 1_390_000}),
        ),
        "chat 250,000 wrong stops": ("/v1/chat/completions", lambda: chat(stop=[1] * 250_000)),
        "chat 250,000 wrong biases": (
            "/v1/chat/completions",
            lambda: chat(logit_bias={str(i): "x" for i in range(250_000)}),
        ),
        "chat 250,000 unknown fields": ("/v1/chat/completions", lambda: chat(**{f"f{i}": 1 for i in range(250_000)})),
        "chat a field's name of 4 MB": ("/v1/chat/completions", lambda: chat(**{"x" * 4_190_000: 1})),
        "JSON: arrays": ("/tokenize", lambda: b"[" + b"[]," * 1_390_000 + b"1]"),
        "JSON: objects": ("/tokenize", lambda: b"[" + b'{"a":1},' * 140_000 + b"1]"),
        "JSON: nested": ("/tokenize", lambda: b'{"a":' * 800_000),
        "JSON: escapes": ("/tokenize", lambda: b'{"prompt":"' + b"a\\n" * 1_390_000 + b'"}'),
        "JSON: long numbers": ("/tokenize", lambda: b"[" + (b"9" * 4300 + b",") * 970 + b"1]"),
        "JSON: spaces": ("/tokenize", lambda: b" " * 4_190_000),
        "answer n=8 x 512": ("/v1/chat/completions", lambda: chat(n=8, max_tokens=512)),
        "answer 1,000 x 20 logprobs": (
            "/v1/chat/completions",
            lambda: chat(max_tokens=1000, logprobs=True, top_logprobs=20),
        ),
        "answer echo 6,000 x 20": ("/v1/completions", lambda: completion(prompt=ids[:6000], echo=True, logprobs=20)),
        "stream echo 6,000 x 20": (
            "/v1/completions",
            lambda: completion(prompt=ids[:6000], echo=True, logprobs=20, stream=True),
        ),
        "answer echo 30,000 x 20": ("/v1/completions", lambda: completion(prompt=ids[:30_000], echo=True, logprobs=20)),
        "stream echo 30,000 x 20": (
            "/v1/completions",
            lambda: completion(prompt=ids[:30_000], echo=True, logprobs=20, stream=True),
        ),
    }
