"""All checks of the model and the machine, in order; what cannot be checked for want of another is said once.

Owns the order and the loading between the checks. A check that breaks is itself a finding.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.doctor import arithmetic, files, machine
from engine.doctor.finding import Finding, State
from engine.doctor.reference import Reference, read_reference
from gemma3 import cpu
from gemma3.checkpoints import embedded_weights as embedded
from gemma3.checkpoints.checkpoint import Checkpoint, open_checkpoint
from gemma3.checkpoints.kept_vocabulary import load_tokenizer
from gemma3.checkpoints.locate import locate_weights
from gemma3.cpu.packed_file import PackedFile
from gemma3.cpu.packed_layout import SCHEMES, PackedLayout, PackedWeights


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined: the weights' path, and whether they are those of the stored reference."""

    path: Path
    checkpoint: Checkpoint
    reference: Reference | None


def examine(model: str | None, memory_bytes: int | None) -> Iterator[Finding]:
    """Findings as they are made; some seconds in all, and a minute where weights are packed for the first time."""
    yield from _guarded("memory", lambda: machine.check_memory(memory_bytes))
    yield from _guarded("cache folder", files.check_cache_folders)
    if model is None:
        found = list(_guarded("weights", files.check_joined_weights))
        yield from found
        if any(each.state is State.WRONG for each in found):
            return  # a start would join and pack anew, and what was wrong would be gone
    try:
        subject = _open(model)
    except (ValueError, OSError) as error:
        yield Finding(
            "model", State.WRONG, " ".join(str(error).split()), "give --model, or install the default weights"
        )
        return
    yield Finding("model", State.OK, f"{subject.path.name}, {subject.checkpoint.quantization}")
    yield from _examine_model(subject)


def _open(model: str | None) -> Subject:
    located = locate_weights(model, beside=Path.cwd())
    is_default = embedded.is_joined_gguf(located.path)
    return Subject(located.path, open_checkpoint(located.path), read_reference() if is_default else None)


def _examine_model(subject: Subject) -> Iterator[Finding]:
    reference = subject.reference
    if reference is not None:
        tokenizer = partial(load_tokenizer, subject.checkpoint)
        yield from _guarded("tokenizer", lambda: arithmetic.check_tokenizer(tokenizer(), reference))
    reason = cpu.why_unavailable()
    if reason is not None:
        yield Finding(
            "native core", State.WRONG, reason, "install a C++ compiler and Python's headers, then the package anew"
        )
        return
    yield from _guarded("cores", machine.check_cores)
    found = list(_guarded("packed weights", lambda: files.check_packed(subject.checkpoint)))
    yield from found
    if any(each.state is State.WRONG for each in found):
        return
    if reference is None:
        yield Finding("logits", State.NOTE, "not compared: float32 ones are stored for the default weights alone")
        return
    for scheme in SCHEMES:
        if scheme == SCHEMES[0] or _is_packed(subject.checkpoint, scheme):
            yield from _guarded(scheme, partial(_examine_scheme, subject.checkpoint, scheme, reference))


def _examine_scheme(checkpoint: Checkpoint, scheme: str, reference: Reference) -> Iterator[Finding]:
    from gemma3.cpu import _native
    from gemma3.cpu.load import load_packed
    from gemma3.cpu.model import CpuModel

    weights = load_packed(checkpoint, scheme)
    for isa in _native.supported_isas():
        model = CpuModel(checkpoint.config, weights, isa=isa)
        yield from arithmetic.check_logits(model, reference)
    if scheme == SCHEMES[0]:
        yield from arithmetic.check_batches(model, reference)
        yield from machine.check_speed(model, reference.token_ids, _step_bytes(weights))


def _step_bytes(weights: PackedWeights) -> int:
    """What a greedy step reads: everything but the low plane of the embedding, of which it wants single rows."""
    return sum(len(view) for name, view in weights.tensors.items() if name != "embedding.low")


def _is_packed(checkpoint: Checkpoint, scheme: str) -> bool:
    return PackedFile(checkpoint, PackedLayout.of(checkpoint.config, scheme)).open() is not None


def _guarded(subject: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # whatever it is: a doctor that dies tells nothing
        yield Finding(subject, State.WRONG, f"the check failed: {' '.join(str(error).split()) or type(error).__name__}")
