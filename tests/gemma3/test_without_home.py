"""The search for weights where there is no home, or one that this user may not look into."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from gemma3.checkpoints import embedded_weights as embedded
from gemma3.checkpoints.hub import cached_snapshot, download_snapshot
from gemma3.checkpoints.locate import locate_weights
from gemma3.errors import CheckpointError, WeightsNotFoundError


def refused(path: object, *_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_hub_cache_that_may_not_be_looked_into_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_dir", refused)
    assert cached_snapshot("owner/name") is None


def test_the_search_goes_on_to_the_embedded_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "embedded_gguf", lambda: (tmp_path / "7", True))
    monkeypatch.setattr(Path, "is_dir", refused)
    located = locate_weights(None)
    assert located.path == tmp_path / "7"
    assert located.name == Path(embedded.FILE_NAME).stem, "also where it is a file in memory"
    assert located.is_first_use


def test_without_the_package_the_ways_to_get_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "is_installed", lambda: False)
    monkeypatch.setattr(embedded, "cache_folders", lambda _only: [tmp_path])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsNotFoundError, match="No weights were found"):
        locate_weights(None)


def test_nothing_named_after_a_home_that_nobody_has_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(WeightsNotFoundError, match="set HF_HOME"):
        download_snapshot("owner/name")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_may_not_be_written_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma3.checkpoints.hub.file_names", lambda _: [])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: refused("/home/ann/.cache"))
    with pytest.raises(CheckpointError, match=r"/home/ann/.cache may not be used.*set HF_HOME"):
        download_snapshot("owner/name")


@pytest.mark.parametrize("model", ["~nobody-of-this-name/model", "~nobody-of-this-name"])
def test_the_home_of_nobody_is_a_path_that_is_not_there(model: str) -> None:
    with pytest.raises(WeightsNotFoundError, match="no such file or directory"):
        locate_weights(model)
