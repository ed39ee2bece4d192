"""The computing itself: tokens, logits of every precision and instruction set, and batches.

Owns the limits that a sound machine keeps by far and a wrong kernel, a changed weight or another
tokenizer does not. Needs numpy, as no start does; the core is imported where it computes, since it may be missing.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from engine.doctor.finding import Finding, State
from engine.doctor.reference import Reference
from gemma3.text.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gemma3.cpu.model import CpuModel

# Measured: 0.0012 and 96 to 100 % in int8, 0.032 and 89 % in int4, on every instruction set.
MAX_KL = {"int8": 0.01, "int4": 0.12}
MIN_SAME = {"int8": 0.90, "int4": 0.75}
REINSTALL = "install the package anew; if that does not help, this processor needs --quantization none"


def check_tokenizer(tokenizer: Gemma3Tokenizer, reference: Reference) -> Iterator[Finding]:
    """The ids of a text in several scripts, and the way back."""
    ids = tokenizer.encode(reference.text, add_bos=True)
    if ids != reference.token_ids:
        first = next((i for i, pair in enumerate(zip(ids, reference.token_ids)) if pair[0] != pair[1]), len(ids))  # noqa: B905
        says = f"token {first} of the stored text is another"
        yield Finding("tokenizer", State.WRONG, says, "the weights carry another tokenizer: use the original ones")
    elif tokenizer.decode(ids[1:]) != reference.text:
        yield Finding("tokenizer", State.WRONG, "ids do not lead back to their text", REINSTALL)
    else:
        yield Finding("tokenizer", State.OK, f"the {len(ids)} stored ids, and back")


def check_logits(model: "CpuModel", reference: Reference) -> Iterator[Finding]:
    """Against float32: the divergence over the stored tokens and all others together, and the likeliest token."""
    logits = _logits(model, [reference.token_ids], reference.rows)
    divergence, num_same = compare(logits, reference)
    share = num_same / len(logits)
    is_sound = divergence <= MAX_KL[model.scheme] and share >= MIN_SAME[model.scheme]
    says = (
        f"KL {divergence:.4f} from float32 (at most {MAX_KL[model.scheme]}), the likeliest token {share:.0%} the same"
    )
    yield Finding(
        f"{model.scheme} on {model.isa}", State.OK if is_sound else State.WRONG, says, "" if is_sound else REINSTALL
    )


def check_batches(model: "CpuModel", reference: Reference) -> Iterator[Finding]:
    """A text's logits are the same bits alone and beside others."""
    ids = reference.token_ids
    texts = [ids, ids[:7], ids[:1], ids[:33]]
    lasts = [end - 1 for end in accumulate(len(text) for text in texts)]
    together = _logits(model, texts, lasts)
    for num, text in enumerate(texts):
        if (_logits(model, [text], [len(text) - 1]) != together[num]).any():
            yield Finding("batches", State.WRONG, "a text beside others gets other logits than alone", REINSTALL)
            return
    yield Finding("batches", State.OK, f"{len(texts)} texts together: the bits of each alone")


def compare(logits: "NDArray[np.float32]", reference: Reference) -> tuple[float, int]:
    """The mean divergence of the rows from the reference in nats, and how many rows have the same likeliest token."""
    import numpy as np

    total, num_same = 0.0, 0
    for row, stored in zip(logits, reference.likeliest, strict=True):
        ids = [token_id for token_id, _ in stored]
        mass = np.exp(row - row.max()).sum(dtype=np.float64)
        p = np.exp([logprob for _, logprob in stored])
        q = np.exp(row[ids].astype(np.float64) - row.max()) / mass
        rest_p, rest_q = max(1 - p.sum(), 1e-9), max(1 - q.sum(), 1e-9)
        total += float((p * np.log(p / q)).sum() + rest_p * np.log(rest_p / rest_q))
        num_same += int(row.argmax()) == ids[0]
    divergence = total / len(logits)
    return (divergence if np.isfinite(divergence) else float("inf")), num_same


def _logits(model: "CpuModel", texts: Sequence[Sequence[int]], rows: Sequence[int]) -> "NDArray[np.float32]":
    """Of some rows of all texts together, one step."""
    from gemma3.cpu.model import BLOCK_SIZE, Segment

    segments, block = [], 0
    for text in texts:
        blocks = list(range(block, block + -(-len(text) // BLOCK_SIZE)))
        segments.append(Segment(0, len(text), blocks, blocks, 0))
        block += len(blocks)
    model.allocate_kv(block, block)
    token_ids = [token_id for text in texts for token_id in text]
    return model.logits(token_ids, segments, rows)
