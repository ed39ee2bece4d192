"""Checkpoints from the Hugging Face Hub: the local cache first, the network only when something is missing.

Owns which files are fetched and how each refusal of the Hub is put into words a person can act on.
"""

import hashlib
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from gemma3.errors import CheckpointError, GatedRepoError, WeightsNotFoundError

SHORT_NAMES = {"270m": "google/gemma-3-270m", "270m-it": "google/gemma-3-270m-it"}
FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "*.safetensors",
    "*.safetensors.index.json",
)
_REPO_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_SHA256_NAME = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger("gemma3")


def is_repo_id(text: str) -> bool:
    """Whether ``text`` is ``OWNER/NAME`` or one of the short names, and not a path (``./folder``, ``folder/model.gguf``)."""
    is_path = text.startswith(".") or text.endswith((".gguf", ".safetensors"))
    return text in SHORT_NAMES or (not is_path and bool(_REPO_ID.fullmatch(text)))


def cached_snapshot(repo_id: str) -> Path | None:
    """The repository's folder in the local Hub cache if everything needed is there; never touches the network."""
    from huggingface_hub import constants

    # Importing the download code costs 0.4 s; an empty cache is told without it.
    if not Path(constants.HF_HUB_CACHE, f"models--{repo_id.replace('/', '--')}").is_dir():
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = snapshot_download(repo_id, allow_patterns=list(FILES), local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    folder = Path(path)
    return folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None


def download_snapshot(repo_id: str) -> Path:
    """Fetch what is missing and return the folder; a progress bar shows on a terminal.

    Raises:
        GatedRepoError: the licence of the repository has not been accepted by this account.
        WeightsNotFoundError: no such repository, or the Hub cannot be reached.
        CheckpointError: the transfer broke off, or a file does not have the SHA-256 the Hub states.
    """
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    log.info("Downloading %s from the Hub, once", repo_id)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=list(FILES)))
    except errors.GatedRepoError:
        raise GatedRepoError(_gated_message(repo_id)) from None
    except errors.RepositoryNotFoundError:
        raise WeightsNotFoundError(_not_found_message(repo_id)) from None
    except Exception as error:  # refusals, broken transfers of whichever client the library uses, a full disk
        here = f"There is no folder {repo_id} here. "
        raise CheckpointError(f"{here}Downloading {repo_id} failed: {_one_line(error)}") from error
    _verify(folder, repo_id)
    return folder


def _verify(folder: Path, repo_id: str) -> None:
    """The Hub names large files by their SHA-256, and the cache keeps that name: check what arrived against it."""
    for blob in _large_blobs(folder):
        with blob.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != blob.name:
            blob.unlink()
            raise CheckpointError(
                f"A file of {repo_id} arrived with SHA-256 {digest}, expected {blob.name}; it was removed, try again."
            )


def _large_blobs(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        blob = path.resolve()
        if _SHA256_NAME.fullmatch(blob.name):
            yield blob


def _gated_message(repo_id: str) -> str:
    return (
        f"{repo_id} is gated. To get access: 1. log in at https://huggingface.co and accept the licence on "
        f"https://huggingface.co/{repo_id}; 2. create a read token at https://huggingface.co/settings/tokens; "
        "3. run 'hf auth login' (or set HF_TOKEN) and start again."
    )


def _not_found_message(repo_id: str) -> str:
    return (
        f"There is no folder {repo_id} here, and {repo_id} was not found on the Hub, or is private. Check the name; "
        "for a private repository run "
        "'hf auth login' with an account that may read it."
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
