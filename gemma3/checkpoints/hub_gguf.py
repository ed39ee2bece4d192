"""GGUF files of repositories on the Hugging Face Hub: ``OWNER/NAME:Q8_0``, as llama.cpp and Ollama
write it.

Owns how such a file is named and chosen: of a repository that holds many, only the wanted one is
fetched, with its other parts if it is split. The local cache comes first, as for folders. One
thread calls it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3.checkpoints import hub
from gemma3.errors import Gemma3Error, WeightsNotFoundError
from gemma3.files.gguf_parts import first_parts, parts_of

# The page of a repository or of a file, as it is copied from a browser, and the short host of
# llama.cpp and Ollama.
_HOST = re.compile(r"(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/")
_PAGE_OF_FILE = re.compile(r"([^/]+/[^/]+)/(?:blob|resolve)/main/([^?]+)(?:\?.*)?")
_LATEST = "latest"  # what Ollama calls no tag at all
# What quantisers call their files: -Q4_K_M, .Q8_0, -UD-IQ2_XXS, -bf16.
_LABEL = re.compile(
    r"(?:^|[-._/])((?:UD[-_])?(?:I?Q\d|TQ\d|BF16|FP?16|FP?32|MXFP4|NVFP4)(?:_[A-Z0-9]+)*)(?=$|[-./])", re.IGNORECASE
)
_MAX_LISTED = 40


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository, and a file in it by its tag or name; without one, its only file."""

    repo_id: str
    wanted: str | None

    def __str__(self) -> str:
        return self.repo_id if self.wanted is None else f"{self.repo_id}:{self.wanted}"


@dataclass(frozen=True, slots=True)
class Found:
    """The file, or its first part, in the Hub's cache, and whether it was fetched just now."""

    path: Path
    is_new: bool


def parse_reference(model: str) -> Reference | None:
    """``OWNER/NAME``, ``OWNER/NAME:TAG`` or ``OWNER/NAME:FILE``, with or without the Hub's host; a
    short name.

    ``None``: it is none of these.
    """
    text = _HOST.sub("", model, count=1) if _HOST.match(model) else model
    page = _PAGE_OF_FILE.fullmatch(text)
    repo_id, _, wanted = (page[1], ":", page[2]) if page else text.partition(":")
    if not hub.is_repo_id(repo_id) or (not wanted and ":" in text):
        return None
    return Reference(hub.SHORT_NAMES.get(repo_id, repo_id), None if wanted in ("", _LATEST) else wanted)


def find_gguf(reference: Reference) -> Found:
    """The file that is named, from the cache or fetched.

    Raises:
        WeightsNotFoundError: no such file or repository; the message lists what is there.
        CheckpointError: the transfer failed.
    """
    cached = _cached(reference.repo_id)
    if cached:
        try:
            return Found(_in_cache(reference, _chosen(reference, cached)), is_new=False)
        except WeightsNotFoundError:
            if reference.wanted is None:
                raise
    return _fetched(reference, _listed(reference.repo_id))


def find_only_gguf(repo_id: str) -> Found | None:
    """The file of a repository that holds GGUF files instead of a folder; ``None`` if it is another
    repository.

    Of half a folder a Hub that does not answer is another one, too: whoever asks next says what is missing.

    Raises:
        GatedRepoError: the licence of the repository has not been accepted by this account.
        WeightsNotFoundError: no such repository, or it holds several files; the message lists them.
        CheckpointError: the Hub cannot be reached, or the transfer failed.
    """
    snapshot, reference = hub.cached_snapshot(repo_id), Reference(repo_id, None)
    if snapshot is not None and any(snapshot.glob("*.safetensors")):
        return None
    if _cached(repo_id):
        return find_gguf(reference)
    try:
        names = _listed(repo_id)
    except Gemma3Error:
        if snapshot is None:
            raise
        return None
    is_folder = any(name.endswith(".safetensors") and "/" not in name for name in names)
    return None if is_folder or not first_parts(names) else _fetched(reference, names)


def _cached(repo_id: str) -> list[str]:
    """The GGUF files of a repository in the local cache, by their names there."""
    folder = hub.cached_snapshot(repo_id)
    files = () if folder is None else (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files if folder is not None]
    return [name for first in first_parts(names) for name in _all_there(parts_of(first), names)]


def _all_there(parts: Sequence[str], names: Iterable[str]) -> Sequence[str]:
    return parts if set(parts) <= set(names) else []


def _in_cache(reference: Reference, name: str) -> Path:
    folder = hub.cached_snapshot(reference.repo_id)
    assert folder is not None
    return folder / name


def _listed(repo_id: str) -> list[str]:
    with hub.asking(repo_id):
        return hub.file_names(repo_id)


def _fetched(reference: Reference, names: Sequence[str]) -> Found:
    from huggingface_hub import hf_hub_download

    first = _chosen(reference, names)
    with hub.asking(reference.repo_id):
        paths = [Path(hf_hub_download(reference.repo_id, name)) for name in parts_of(first)]
    hub.verify(paths, reference.repo_id)
    return Found(paths[0], is_new=True)


def _chosen(reference: Reference, names: Iterable[str]) -> str:
    """The one model that is meant, as the name of its first part."""
    models = first_parts(names)
    if not models:
        raise WeightsNotFoundError(f"{reference.repo_id} holds no GGUF files.")
    found = models if reference.wanted is None else _matching(models, reference.wanted)
    if len(found) == 1:
        return found[0]
    tags = _tags(found or models)
    listed = ", ".join(tags[:_MAX_LISTED]) + (", ..." if len(tags) > _MAX_LISTED else "")
    if not found:
        raise WeightsNotFoundError(
            f"{reference.repo_id} holds no GGUF file {reference.wanted!r:.120}; there are: {listed}."
        )
    raise WeightsNotFoundError(
        f"{reference} may be any of {len(found)} GGUF files; name one as {reference.repo_id}:TAG, TAG being one of: {listed}."
    )


def _matching(models: Sequence[str], wanted: str) -> list[str]:
    """A file by its name or that of any of its parts, else by its label, else by a part of its
    name."""
    for first in models:
        if wanted in parts_of(first) or wanted in (name.rpartition("/")[2] for name in parts_of(first)):
            return [first]
    labelled = [name for name in models if _label(name).lower() == wanted.lower()]
    within = re.compile(rf"(?<![a-z0-9_]){re.escape(wanted)}(?![a-z0-9_])", re.IGNORECASE)
    return labelled or [name for name in models if within.search(name)]


def _label(name: str) -> str:
    """``Q4_K_M`` of ``gemma-3-270m-it-Q4_K_M.gguf``; a name without such a label stands for itself."""
    found = _LABEL.findall(name.removesuffix(".gguf"))
    return found[-1] if found else name


def _tags(models: Sequence[str]) -> list[str]:
    """What tells the models apart: their labels where they have one each, else their names."""
    labels = [_label(name) for name in models]
    return [label if labels.count(label) == 1 else name for label, name in zip(labels, models, strict=True)]
