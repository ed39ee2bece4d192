"""Which weights are found: what the default search passes over, and what is a mistyped path."""

import random
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
from huggingface_hub import constants

from gemma3.checkpoints import embedded_weights, hub
from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.locate import locate_weights
from gemma3.errors import CheckpointError, WeightsNotFoundError
from tests.gemma3 import tiny

MODEL = tiny.oracle_model(tiny.random_shape(random.Random(13)) | {"num_hidden_layers": 1}, 13)
NAMES = ("gemma-3-270m-it", "gemma-3-270m")


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, nothing embedded, and no way to the Hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def nothing() -> NoReturn:
        raise WeightsNotFoundError("not installed")

    monkeypatch.setattr(embedded_weights, "embedded_gguf", nothing)
    return tmp_path / "hub"


def cached(hub_cache: Path, repo_id: str) -> Path:
    """A snapshot in the layout of the Hub's cache; without the links to blobs, as on Windows."""
    repo = hub_cache / f"models--{repo_id.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123abcd")
    return tiny.save_directory(repo / "snapshots" / "0123abcd", MODEL)


def test_the_order_of_the_default_search(tmp_path: Path, hub_cache: Path) -> None:
    for make in (
        lambda: cached(hub_cache, f"google/{NAMES[1]}"),
        lambda: cached(hub_cache, f"google/{NAMES[0]}"),
        lambda: tiny.save_directory(tmp_path / NAMES[1], MODEL),
        lambda: tiny.save_directory(tmp_path / NAMES[0], MODEL),
    ):
        path = make()
        assert locate_weights(None, beside=tmp_path).path == path


DAMAGE = {
    "empty": (lambda folder: shutil.rmtree(folder) or folder.mkdir(), "holds no weights"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    "cut short": (lambda folder: (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{"), "is damaged"),
    "another model": (lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'), "'llama'"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("where", ["beside", "cache"])
def test_the_default_search_goes_on(
    tmp_path: Path, hub_cache: Path, kind: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, words = DAMAGE[kind]
    first, second = (
        tiny.save_directory(tmp_path / name, MODEL) if where == "beside" else cached(hub_cache, f"google/{name}")
        for name in NAMES
    )
    damage(first)
    assert locate_weights(None, beside=tmp_path).path == second
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("Passed over: ")
    assert NAMES[0] in message
    assert words in message
    damage(second)
    with pytest.raises(WeightsNotFoundError, match="No weights were found"):
        locate_weights(None, beside=tmp_path)


@pytest.mark.parametrize("kind", ["no config", "no tokenizer", "no weights", "cut short"])
def test_half_a_download_is_named_offline(hub_cache: Path, kind: str) -> None:
    folder = cached(hub_cache, "owner/name")
    assert locate_weights("owner/name").path == folder
    DAMAGE[kind][0](folder)
    with pytest.raises(CheckpointError) as caught:
        locate_weights("owner/name")
    assert str(caught.value).startswith("The local Hub cache holds half a download of owner/name (")
    assert "\n" not in str(caught.value)


def test_a_shard_that_never_came(hub_cache: Path) -> None:
    folder = cached(hub_cache, "owner/name")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(
        CheckpointError, match=r"half a download .*'model-00002-of-00002\.safetensors', which is not there"
    ):
        locate_weights("owner/name")


def test_what_needs_no_repair(hub_cache: Path) -> None:
    """Another kind of repository is whole without the files of this one."""
    for name in ("adapter_config.json", "model.gguf"):
        folder = cached(hub_cache, f"owner/{name}")
        for path in folder.iterdir():
            path.unlink()
        (folder / name).write_text("{}")
        assert hub.lack_of(folder) is None


def test_a_reference_that_is_damaged(hub_cache: Path) -> None:
    folder = cached(hub_cache, "owner/name")
    reference = folder.parent.parent / "refs" / "main"
    for content in (b"", b"\xff\xfe", b"gone"):
        reference.write_bytes(content)
        assert hub.cached_snapshot("owner/name") is None


MISTYPED = [
    "./typo",
    "../typo",
    "a/b/c",
    "typo",
    "out/typo",
    "gone/model.gguf",
    ".hidden/x",
    "x/",
    "/typo",
    "~nobody-here/x",
    "",
    " ",
    "y" * 5000,
    "a\0b",
]


@pytest.mark.parametrize("model", MISTYPED, ids=lambda model: f"{model:.12}")
def test_a_mistyped_path_asks_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(hub, "download_snapshot", lambda _: pytest.fail("asked the Hub"))
    with pytest.raises(WeightsNotFoundError) as caught:
        locate_weights(model)
    assert str(caught.value).startswith("model=")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [".", "../tiny-it", "./"])
def test_the_current_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    (tmp_path / "tiny-it").mkdir()
    monkeypatch.chdir(tmp_path / "tiny-it")
    located = locate_weights(model)
    assert (located.name, located.path.name) == ("tiny-it", "tiny-it")
    with pytest.raises(WeightsNotFoundError, match=r"^tiny-it/ holds no weights"):
        open_checkpoint(located.path)


@pytest.mark.parametrize("model", ["owner/name", "google/gemma-3-270m-it", "a/b", "A_1/b.c-d", "270m", "270m-it"])
def test_repositories(model: str) -> None:
    assert hub.is_repo_id(model)
