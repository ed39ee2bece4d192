"""What is attacked: a server process of its own, with the real weights or with a small padded
checkpoint.

Owns the processes, their logs and what ``/proc`` says of them. Linux only.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.openai_api.chaos.wire import Address
from tests.openai_api.real_server import start_server

MODEL = "m"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Model:
    """Which weights, and how much of the context and of the KV cache the server gets.

    Attributes:
        flags: of the server.
        kv_cache_bytes: what ``--kv-cache-memory`` says in ``flags``.
        long_prompt_tokens: of the longest prompts; the real model computes some hundred tokens a
            second.
    """

    flags: Sequence[str]
    vocab_size: int
    max_model_len: int
    kv_cache_bytes: int
    long_prompt_tokens: int


@dataclass(frozen=True)
class Target:
    """A running server as the attackers see it, and its process as the observer does."""

    address: Address
    pid: int
    log: Path
    vocab_size: int
    max_model_len: int
    long_prompt_tokens: int
    model: str = MODEL

    def is_alive(self) -> bool:
        """False for a zombie too."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    def anonymous_mib(self) -> float:
        """Memory that only this process has: the heap and the KV cache, not the mapped weights."""
        return self._status_mib("RssAnon")

    def peak_mib(self) -> float:
        """The most that was resident at once, since the start."""
        return self._status_mib("VmHWM")

    def _status_mib(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) / 1024

    def num_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def num_threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))


def real_model(*, kv_cache_mib: int = 24, max_model_len: int = 1_024) -> Model:
    """The embedded default weights in int8."""
    return Model((), 262_144, max_model_len, kv_cache_mib * MIB, min(max_model_len - 8, 2_000))


def padded_model(folder: Path) -> Model:
    """A random checkpoint whose embedding has more rows than the tokenizer has pieces, the surplus
    tempting.
    """
    from tests.gemma3 import tiny

    shape = tiny.random_shape(random.Random(3)) | {
        "vocab_size": tiny.VOCAB + 64,
        "num_hidden_layers": 6,
        "sliding_window": 16,
        "max_position_embeddings": 4_096,
    }
    model = tiny.oracle_model(shape, 3)
    model.model.embed_tokens.weight[tiny.VOCAB :] *= 5
    path = tiny.save_directory(folder / "padded", model)
    return Model(("--model", str(path)), tiny.VOCAB, 4_096, 16 * MIB, 4_000)


@contextmanager
def serving(model: Model, log: Path, *, program: Sequence[str] = ("main.py", "serve")) -> Iterator[Target]:
    """A server of ``model`` until the block ends.

    ``program`` starts it and takes the server's flags.
    """
    flags = ("--served-model-name", MODEL, "--quantization", "int8", "--max-model-len", str(model.max_model_len))
    memory = ("--kv-cache-memory", f"{model.kv_cache_bytes // MIB}MiB")
    server = start_server(*model.flags, *flags, *memory, program=program, log=log)
    try:
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        address = Address(host, int(port))
        yield Target(address, server.process.pid, log, model.vocab_size, model.max_model_len, model.long_prompt_tokens)
    finally:
        server.kill()
