"""Which files of a folder hold the model, and what to say of a folder where none does.

Owns the names that trainers, peft and the Hub give to files. Nothing is read but these names, the
index, and the base model that an adapter names. Plain functions, any thread.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from gemma3.errors import CheckpointError, Gemma3Error, WeightsNotFoundError
from gemma3.files.json_file import read_json_object, read_json_object_if_there

MODEL_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_TRAINER_FOLDER = re.compile(r"checkpoint-(\d{1,18})")


def model_files(folder: Path) -> list[Path]:
    """The files to open, as transformers has it: ``model.safetensors``, else the index's shards.

    Without either: every ``*.safetensors`` but adapters. An index beside ``model.safetensors`` is
    of an older save.

    Raises:
        CheckpointError: the index names a file that is not there, or outside of the folder.
        ConfigError: the index is not a JSON object.
    """
    if (folder / MODEL_FILE).is_file():
        return [folder / MODEL_FILE]
    if (folder / INDEX).is_file():
        return _shards(folder)
    return [path for path in sorted(folder.glob("*.safetensors")) if path.name not in _ADAPTER_FILES]


def _shards(folder: Path) -> list[Path]:
    weight_map = read_json_object(folder / INDEX).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise CheckpointError(f"{INDEX} has no 'weight_map' from tensor names to file names.")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{INDEX} names {name!r:.120}, which is not a .safetensors file beside it.")
        if not (folder / name).is_file():
            raise CheckpointError(f"{INDEX} names {name!r:.120}, which is not there.")
    return [folder / name for name in names]


def adapter_beside(folder: Path) -> str | None:
    """The name of a file that says an adapter lies in the folder; the weights come first."""
    names = (name for name in (*_ADAPTER_FILES, _ADAPTER_CONFIG) if (folder / name).is_file())
    return next(names, None)


def adapter_error(folder: Path) -> CheckpointError:
    """The error for a folder that holds an adapter and no model."""
    try:
        base = read_json_object_if_there(folder / _ADAPTER_CONFIG).get("base_model_name_or_path")
    except Gemma3Error:
        base = None
    of = f" of {ascii(base)[1:-1]:.200}" if base and isinstance(base, str) else ""
    return CheckpointError(
        f"{folder.name}/ holds an adapter{of} and not the model: merge it into that model (merge_and_unload() of peft, "
        "then save_pretrained) and give the folder of the result."
    )


def no_weights_error(folder: Path) -> Gemma3Error:
    """The error for a folder that holds no model: it names what is there instead."""
    if adapter_beside(folder) is not None:
        return adapter_error(folder)
    inner = _folder_with_weights(folder)
    if inner is not None:
        is_newest = " (the newest)" if _step(inner) is not None else ""
        return WeightsNotFoundError(f"{folder.name}/ holds no weights itself; {inner}{is_newest} does: give that path.")
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        return CheckpointError(
            f"{folder.name}/ holds only pickles ({pickles[0]}), which can run code when they are read; "
            "convert to safetensors."
        )
    return WeightsNotFoundError(f"{folder.name}/ holds no weights: neither *.safetensors nor *.gguf.")


def _folder_with_weights(folder: Path) -> Path | None:
    """The newest ``checkpoint-STEP/`` of a trainer; else a folder with weights."""
    found = [path for path in _folders(folder.glob("*"), folder.glob("snapshots/*")) if _has_weights(path)]
    return max(found, key=lambda path: (_step(path) or -1, path.stat().st_mtime), default=None)


def _folders(*groups: Iterable[Path]) -> Iterator[Path]:
    return (path for group in groups for path in group if path.is_dir())


def _step(folder: Path) -> int | None:
    match = _TRAINER_FOLDER.fullmatch(folder.name)
    return int(match[1]) if match else None


def _has_weights(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "*.gguf"))
