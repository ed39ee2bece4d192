"""Checkpoints from the Hugging Face Hub: the local cache first, the network only when something is missing.

Owns which files are fetched and how each refusal of the Hub is put into words a person can act on.
"""

import hashlib
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gemma3.checkpoints.weight_files import adapter_beside, model_files
from gemma3.errors import CheckpointError, GatedRepoError, Gemma3Error, WeightsNotFoundError
from gemma3.files.safetensors_file import SafetensorsFile

SHORT_NAMES = {"270m": "google/gemma-3-270m", "270m-it": "google/gemma-3-270m-it"}
FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
)
_SUBFOLDERS = "*/*"  # a pattern's * matches slashes, too; trainers' checkpoints and other formats lie there
# Neither part begins or ends with a dot or dash, so ./folder and ../folder are paths.
_REPO_ID = re.compile(r"\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
_SHA256_NAME = re.compile(r"[0-9a-f]{64}")
_ANSWER_S = 5.0  # to connect, and to answer

log = logging.getLogger("gemma3")


def is_repo_id(text: str) -> bool:
    """Whether ``text`` is ``OWNER/NAME`` or a short name, and not a mistyped path."""
    is_file = text.endswith((".gguf", ".safetensors"))
    return text in SHORT_NAMES or (not is_file and bool(_REPO_ID.fullmatch(text)))


def cached_snapshot(repo_id: str) -> Path | None:
    """The repository's folder in the local Hub cache, whole or not; never touches the network.

    The layout of the cache is documented, and reading it costs 0.4 s less than importing the code that downloads.
    """
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE, f"models--{repo_id.replace('/', '--')}")
    try:
        commit = (root / "refs" / "main").read_text(encoding="ascii").strip()
        folder = root / "snapshots" / commit
        return folder if commit and folder.is_dir() else None
    except (OSError, ValueError):  # never downloaded, or a reference that is no text
        return None


def lack_of(folder: Path) -> str | None:
    """What a whole download has and this folder lacks, in words; ``None`` if it lacks nothing.

    Headers of weight files are read: a file that was cut short does not fit its own. A repository of GGUF files or of an
    adapter has files of its own.
    """
    if adapter_beside(folder) is not None or any(folder.glob("*.gguf")):
        return None
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            return f"{name} is missing"
    try:
        files = [SafetensorsFile.open(path) for path in model_files(folder)]
    except Gemma3Error as error:
        return str(error).rstrip(".")
    return None if files else "the weights are missing"


def download_snapshot(repo_id: str) -> Path:
    """Fetch what is missing or damaged and return the folder; a progress bar shows on a terminal.

    Raises:
        GatedRepoError: the licence of the repository has not been accepted by this account.
        WeightsNotFoundError: no such repository, or the Hub cannot be reached.
        CheckpointError: the transfer broke off, or a file does not have the SHA-256 the Hub states.
    """
    from huggingface_hub import snapshot_download

    cached = cached_snapshot(repo_id)
    if cached is not None:
        _remove_damaged(cached.iterdir())
    with asking(repo_id):
        file_names(repo_id)  # the library's own first question may wait for ever
        folder = Path(snapshot_download(repo_id, allow_patterns=list(FILES), ignore_patterns=[_SUBFOLDERS]))
    verify(folder.iterdir(), repo_id)
    return folder


def file_names(repo_id: str) -> list[str]:
    """What a repository holds, asked of the Hub once; called inside ``asking``.

    The library repeats its own listing for 24 s where nobody listens, and sets no limit where packets are lost.

    Raises:
        ConnectionError: the Hub cannot be reached.
        HfHubHTTPError: it refuses.
    """
    from huggingface_hub import HfApi, constants, errors

    try:
        info = HfApi().model_info(repo_id, timeout=_ANSWER_S)
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled):
        raise
    except Exception as error:  # of whichever client the library uses
        raise ConnectionError(f"{constants.ENDPOINT} cannot be reached ({_one_line(error)}).") from error
    return [file.rfilename for file in info.siblings or ()]


@contextmanager
def asking(repo_id: str) -> Iterator[None]:
    """For calls to the Hub: its refusals in words, and progress bars on a terminal alone.

    Raises:
        GatedRepoError, WeightsNotFoundError, CheckpointError: as ``download_snapshot``.
    """
    from huggingface_hub import constants, errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if constants.HF_HUB_CACHE.startswith("~"):  # it would be a folder of that name in the working directory
        raise WeightsNotFoundError(
            f"{repo_id} is to be downloaded, but this user has no home; set HF_HOME to a folder."
        )
    log.info("Downloading %s from the Hub, once", repo_id)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except errors.GatedRepoError:
        raise GatedRepoError(_gated_message(repo_id)) from None
    except errors.RepositoryNotFoundError:
        raise WeightsNotFoundError(_not_found_message(repo_id)) from None
    except PermissionError as error:
        where = f"{error.filename} may not be used ({error.strerror})"
        raise CheckpointError(f"Downloading {repo_id} failed: {where}; set HF_HOME to a folder that may.") from error
    except Exception as error:  # refusals, broken transfers of whichever client the library uses, a full disk
        here = f"There is no folder {repo_id} here. "
        raise CheckpointError(f"{here}Downloading {repo_id} failed: {_one_line(error)}") from error


def verify(paths: Iterable[Path], repo_id: str) -> None:
    """Check what arrived; what is damaged is removed, so that the next try fetches it.

    Raises:
        CheckpointError: a file does not have the SHA-256 the Hub states.
    """
    damaged = _remove_damaged(paths)
    if damaged:
        raise CheckpointError(f"A file of {repo_id} arrived with {damaged[0]}; it was removed, try again.")


def _remove_damaged(paths: Iterable[Path]) -> list[str]:
    """The Hub names large files by their SHA-256, and the cache keeps that name. Says what each damaged one had instead."""
    damaged: list[str] = []
    for blob in _large_blobs(paths):
        with blob.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != blob.name:
            blob.unlink()
            damaged.append(f"SHA-256 {digest}, expected {blob.name}")
    return damaged


def _large_blobs(paths: Iterable[Path]) -> Iterator[Path]:
    for path in sorted(paths):
        blob = path.resolve()
        if _SHA256_NAME.fullmatch(blob.name) and blob.is_file():
            yield blob


def _gated_message(repo_id: str) -> str:
    return (
        f"{repo_id} is gated. To get access: 1. log in at https://huggingface.co and accept the licence on "
        f"https://huggingface.co/{repo_id}; 2. create a read token at https://huggingface.co/settings/tokens; "
        "3. run 'hf auth login' (or set HF_TOKEN) and start again."
    )


def _not_found_message(repo_id: str) -> str:
    return (
        f"{repo_id} was not found on the Hub, or is private, and there is no such folder or file here. Check the name; "
        "for a private repository run "
        "'hf auth login' with an account that may read it."
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
