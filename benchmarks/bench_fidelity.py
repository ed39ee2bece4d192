"""How far int8 and int4 are from float32 of the same checkpoint, over the whole vocabulary, on a text not seen in calibration.

    python benchmarks/bench_fidelity.py [--tokens 20000] [--precision int8 int4] [--model PATH]

The text is Python's own manual and some of its modules, as they come with the interpreter that runs this: two documents of
prose and tables, one of source code, and so on, of 1,024 tokens each, from all over the text. Another Python has a slightly
other text, and slightly other figures: the JSON line names the text by a digest. About 20 ms of processor time a token.
"""

import argparse
import difflib
import hashlib
import heapq
import json
import platform
import shlex
import statistics
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data import topics

import torch
from common import ROOT

from gemma3.checkpoints.checkpoint import Checkpoint, open_checkpoint
from gemma3.checkpoints.locate import locate_weights
from gemma3.cpu.load import load_packed
from gemma3.cpu.model import BLOCK_SIZE, CpuModel, Segment
from gemma3.torch_model.kv_cache import ContiguousKVCache
from gemma3.torch_model.load import load_model
from gemma3.torch_model.model import Gemma3ForCausalLM

DOCUMENT_TOKENS = 1_024
CHUNK_TOKENS = 128  # their logits are 134 MB in float32, of each model
NUM_BLOCKS = DOCUMENT_TOKENS // BLOCK_SIZE

MANUAL = "".join(topics.topics[name] for name in sorted(topics.topics))
CODE = "".join(
    Path(module.__file__).read_text(encoding="utf-8")
    for module in (argparse, difflib, heapq, json.decoder, shlex, statistics, textwrap)
)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Beside float32: the divergence, the share of equal likeliest tokens, the perplexity as a multiple."""

    num_tokens: int
    mean_kl: float
    same_likeliest: float
    perplexity: float

    def __str__(self) -> str:
        return (
            f"KL {self.mean_kl:.5f}, same likeliest token {self.same_likeliest:.2%}, perplexity x{self.perplexity:.4f}"
            f" on {self.num_tokens} tokens"
        )


@dataclass(slots=True)
class _Sums:
    """Of one precision, by token, as they are found."""

    kls: list[float] = field(default_factory=list)
    agree: list[bool] = field(default_factory=list)
    excess: list[float] = field(default_factory=list)  # of its negative log likelihood of the next token over float32's

    def add(self, expected_RV: torch.Tensor, found_RV: torch.Tensor, following: torch.Tensor) -> None:
        """Logits of some rows, and the tokens that follow them: one less than rows at the end of a document."""
        shift_R = torch.logsumexp(expected_RV, -1) - torch.logsumexp(found_RV, -1)
        further_RV = expected_RV - found_RV
        kl_R = torch.linalg.vecdot(expected_RV.softmax(-1), further_RV) - shift_R
        at_next = further_RV[: len(following)].gather(1, following[:, None])[:, 0] - shift_R[: len(following)]
        self.kls += kl_R.tolist()
        self.agree += (expected_RV.argmax(-1) == found_RV.argmax(-1)).tolist()
        self.excess += at_next.tolist()

    def result(self) -> Fidelity:
        ratio = torch.tensor(self.excess, dtype=torch.float64).mean().exp().item()
        return Fidelity(len(self.kls), statistics.fmean(self.kls), statistics.fmean(self.agree), ratio)


def documents(checkpoint: Checkpoint, num_tokens: int) -> Iterator[list[int]]:
    """At least so many tokens, each document from a BOS on."""
    tokenizer = checkpoint.load_tokenizer()
    manual, code = tokenizer.encode(MANUAL), tokenizer.encode(CODE)
    num = -(-num_tokens // DOCUMENT_TOKENS)
    for i in range(num):
        ids = code if i % 3 == 2 else manual
        start = (len(ids) - DOCUMENT_TOKENS) * i // num
        yield [tokenizer.bos_token_id, *ids[start : start + DOCUMENT_TOKENS - 1]]


def core_of(checkpoint: Checkpoint, precision: str) -> CpuModel:
    core = CpuModel(checkpoint.config, load_packed(checkpoint, precision))
    core.allocate_kv(NUM_BLOCKS, NUM_BLOCKS)
    return core


@torch.inference_mode()
def measure(checkpoint: Checkpoint, cores: Mapping[str, CpuModel], num_tokens: int) -> dict[str, Fidelity]:
    """Float32's logits are computed once for all precisions."""
    reference = load_model(checkpoint, dtype="float32")
    sums = {precision: _Sums() for precision in cores}
    for ids in documents(checkpoint, num_tokens):
        _add_document(reference, cores, ids, sums)
    return {precision: found.result() for precision, found in sums.items()}


def _add_document(
    reference: Gemma3ForCausalLM, cores: Mapping[str, CpuModel], ids: list[int], sums: Mapping[str, _Sums]
) -> None:
    table, cache = list(range(NUM_BLOCKS)), ContiguousKVCache(reference.config)
    for start in range(0, len(ids), CHUNK_TOKENS):
        chunk, following = ids[start : start + CHUNK_TOKENS], torch.tensor(ids[start + 1 : start + 1 + CHUNK_TOKENS])
        expected_RV = reference.compute_logits(reference.step(torch.tensor(chunk), cache))
        segment, rows = Segment(start, len(chunk), table, table, 0), list(range(len(chunk)))
        for precision, core in cores.items():
            sums[precision].add(expected_RV, torch.from_numpy(core.logits(chunk, [segment], rows)), following)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tokens", type=int, default=20_000)
    made.add_argument("--precision", nargs="+", choices=("int8", "int4"), default=["int8", "int4"])
    made.add_argument("--model", help="a checkpoint; by default the one that the server would take")
    args = made.parse_args()
    path = Path(args.model) if args.model else locate_weights(None, beside=ROOT).path
    checkpoint = open_checkpoint(path)
    found = measure(checkpoint, {name: core_of(checkpoint, name) for name in args.precision}, args.tokens)
    for precision, fidelity in found.items():
        print(f"{precision}: {fidelity}")
    digest = hashlib.sha256((MANUAL + CODE).encode()).hexdigest()[:16]
    figures = {
        name: {"kl": each.mean_kl, "same_likeliest": each.same_likeliest, "perplexity": each.perplexity}
        for name, each in found.items()
    }
    head = {"benchmark": "fidelity", "python": platform.python_version(), "text": digest, "tokens": args.tokens}
    print(json.dumps(head | {"figures": figures}))


if __name__ == "__main__":
    main()
