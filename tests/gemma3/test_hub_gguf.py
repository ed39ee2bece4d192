"""Repositories of GGUF files on a fake Hub: which file is meant, that it alone is fetched, and the
cache without a Hub."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.hub_gguf import Reference, parse_reference
from gemma3.checkpoints.locate import locate_weights
from gemma3.errors import CheckpointError, GatedRepoError, WeightsNotFoundError
from tests.gemma3 import tiny
from tests.gemma3.fake_hub import FakeHub, serve
from tests.gemma3.gguf_files import gguf_bytes
from tests.gemma3.program import run_main

MODEL = tiny.oracle_model(tiny.random_shape(random.Random(13)) | {"num_hidden_layers": 1}, 13)
METADATA = tiny.gguf_metadata(tiny.config_of(MODEL))
ENTRIES = tiny.gguf_entries(tiny.weights_of(MODEL))
REPO = "owner/name-GGUF"


def model(name: str) -> bytes:
    return gguf_bytes(METADATA | {"general.name": name}, ENTRIES)


def parts() -> dict[str, bytes]:
    names, split = list(ENTRIES), {"split.count": np.uint16(2), "split.tensors.count": np.int32(len(ENTRIES))}
    one = gguf_bytes(METADATA | split | {"split.no": np.uint16(0)}, {name: ENTRIES[name] for name in names[:5]})
    two = gguf_bytes(split | {"split.no": np.uint16(1)}, {name: ENTRIES[name] for name in names[5:]})
    return {"BF16/m-BF16-00001-of-00002.gguf": one, "BF16/m-BF16-00002-of-00002.gguf": two}


FILES = {
    "README.md": b"# words",
    "config.json": b"{}",
    "gemma-3-270m-it-Q4_K_M.gguf": model("Q4_K_M"),
    "gemma-3-270m-it-Q4_K_S.gguf": model("Q4_K_S"),
    "gemma-3-270m-it-UD-Q4_K_XL.gguf": model("XL"),
    "gemma-3-270m-it.q8_0.gguf": model("q8_0"),
    "mmproj-F16.gguf": b"GGUF of images",
    "tuned.gguf": model("tuned"),
    **parts(),
}
TAGS = "Q4_K_M, Q4_K_S, UD-Q4_K_XL, q8_0, tuned.gguf"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeHub]:
    with serve(FakeHub({})) as hub:
        yield hub


@pytest.fixture
def hub(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """An empty cache and a Hub with ``FILES``; ``files`` and the ways to fail may be changed."""
    server.files, server.requests = dict(FILES), []
    server.fail, server.error_code, server.corrupt = 0, "", False
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return server


def fetched(hub: FakeHub) -> list[str]:
    """The files whose bytes were asked for."""
    return [path.partition("/resolve/")[2].partition("/")[2] for path in hub.requests if path.startswith("GET /owner")]


def general_name(path: Path) -> object:
    checkpoint = open_checkpoint(path)
    assert checkpoint.load_tokenizer().encode("ab")
    return checkpoint.file.metadata.get("general.name")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("owner/name", Reference("owner/name", None)),
        ("owner/name:Q8_0", Reference("owner/name", "Q8_0")),
        ("owner/name:latest", Reference("owner/name", None)),
        ("owner/name:sub/x.gguf", Reference("owner/name", "sub/x.gguf")),
        ("hf.co/owner/name:Q4_K_M", Reference("owner/name", "Q4_K_M")),
        ("huggingface.co/owner/name", Reference("owner/name", None)),
        ("https://huggingface.co/owner/name", Reference("owner/name", None)),
        ("https://huggingface.co/owner/name/blob/main/x-Q8_0.gguf", Reference("owner/name", "x-Q8_0.gguf")),
        ("https://hf.co/owner/name/resolve/main/a/x.gguf?download=true", Reference("owner/name", "a/x.gguf")),
        ("270m-it", Reference("google/gemma-3-270m-it", None)),
        ("owner/name:", None),
        ("owner", None),
        ("owner:Q8_0", None),
        ("C:/models/x.gguf", None),
        ("./owner/name:Q8_0", None),
        ("https://example.com/owner/name", None),
        ("hf.co/", None),
    ],
)
def test_how_a_file_is_named(model: str, expected: Reference | None) -> None:
    assert parse_reference(model) == expected


@pytest.mark.parametrize(
    ("wanted", "file", "name"),
    [
        ("Q4_K_M", "gemma-3-270m-it-Q4_K_M.gguf", "Q4_K_M"),
        ("q4_k_m", "gemma-3-270m-it-Q4_K_M.gguf", "Q4_K_M"),
        ("Q4_K_XL", "gemma-3-270m-it-UD-Q4_K_XL.gguf", "XL"),
        ("UD-Q4_K_XL", "gemma-3-270m-it-UD-Q4_K_XL.gguf", "XL"),
        ("Q8_0", "gemma-3-270m-it.q8_0.gguf", "q8_0"),
        ("tuned", "tuned.gguf", "tuned"),
        ("tuned.gguf", "tuned.gguf", "tuned"),
    ],
)
def test_the_wanted_file_alone_is_fetched(hub: FakeHub, wanted: str, file: str, name: str) -> None:
    found = locate_weights(f"hf.co/{REPO}:{wanted}")
    assert general_name(found.path) == name
    assert fetched(hub) == [file]
    assert found.name == f"{REPO}:{wanted}"
    assert found.reason == f"{REPO}:{wanted} downloaded from the Hub"
    assert found.is_first_use
    hub.requests.clear()
    again = locate_weights(f"{REPO}:{wanted}")
    assert again.path == found.path
    assert again.reason == f"{REPO}:{wanted} from the local Hub cache"
    assert not again.is_first_use
    assert not hub.requests, "the cache needs no Hub"


@pytest.mark.parametrize("wanted", ["BF16", "BF16/m-BF16-00002-of-00002.gguf", "m-BF16-00001-of-00002.gguf"])
def test_all_parts_of_a_split_file_are_fetched(hub: FakeHub, wanted: str) -> None:
    found = locate_weights(f"{REPO}:{wanted}")
    assert fetched(hub) == list(parts())
    assert len(open_checkpoint(found.path).weight_files) == 2
    hub.requests.clear()
    assert locate_weights(f"{REPO}:{wanted}").path == found.path
    assert not hub.requests
    for link in found.path.parent.glob("*00002-of*"):
        link.unlink()
    assert locate_weights(f"{REPO}:{wanted}").is_first_use, "half of it in the cache is fetched again"


def test_without_a_tag_the_files_are_listed(hub: FakeHub) -> None:
    with pytest.raises(WeightsNotFoundError) as caught:
        locate_weights(REPO)
    assert str(caught.value) == (
        f"{REPO} may be any of 6 GGUF files; name one as {REPO}:TAG, TAG being one of: BF16, {TAGS}."
    )
    assert fetched(hub) == []


@pytest.mark.parametrize("model", [REPO, f"{REPO}:latest", f"https://huggingface.co/{REPO}"])
def test_the_only_file_needs_no_tag(hub: FakeHub, model: str) -> None:
    hub.files = {name: FILES[name] for name in ("README.md", "config.json", "mmproj-F16.gguf", "tuned.gguf")}
    found = locate_weights(model)
    assert general_name(found.path) == "tuned"
    assert fetched(hub) == ["tuned.gguf"]
    hub.requests.clear()
    assert locate_weights(REPO).path == found.path
    assert not hub.requests


def test_what_the_cache_has_needs_no_tag(hub: FakeHub) -> None:
    locate_weights(f"{REPO}:Q8_0")
    hub.requests.clear()
    assert general_name(locate_weights(REPO).path) == "q8_0"
    locate_weights(f"{REPO}:tuned")
    with pytest.raises(WeightsNotFoundError, match="may be any of 2 GGUF files"):
        locate_weights(REPO)


@pytest.mark.parametrize("wanted", ["Q9_9", "Q4_K", "x.gguf", "mmproj-F16.gguf", ".*", "m-BF16-00003-of-00002.gguf"])
def test_what_is_not_there_is_answered_with_what_is(hub: FakeHub, wanted: str) -> None:
    with pytest.raises(WeightsNotFoundError) as caught:
        locate_weights(f"{REPO}:{wanted}")
    assert str(caught.value) == f"{REPO} holds no GGUF file {wanted!r}; there are: BF16, {TAGS}."
    assert fetched(hub) == []


def test_two_files_of_one_label_are_told_apart_by_name(hub: FakeHub) -> None:
    hub.files |= {"imatrix/gemma-3-270m-it-Q4_K_M.gguf": model("im")}
    with pytest.raises(WeightsNotFoundError) as caught:
        locate_weights(f"{REPO}:Q4_K_M")
    names = "gemma-3-270m-it-Q4_K_M.gguf, imatrix/gemma-3-270m-it-Q4_K_M.gguf"
    assert str(caught.value).endswith(f"TAG being one of: {names}.")
    assert general_name(locate_weights(f"{REPO}:imatrix/gemma-3-270m-it-Q4_K_M.gguf").path) == "im"


def test_a_repository_without_gguf_files(hub: FakeHub) -> None:
    hub.files = {"README.md": b""}
    with pytest.raises(WeightsNotFoundError, match=rf"^{REPO} holds no GGUF files\.$"):
        locate_weights(f"{REPO}:Q8_0")


def test_a_folder_comes_before_gguf_files(hub: FakeHub, tmp_path: Path) -> None:
    folder = tiny.save_directory(tmp_path / "folder", MODEL)
    hub.files |= {path.name: path.read_bytes() for path in folder.iterdir()}
    assert locate_weights(REPO).path.is_dir()
    assert not [name for name in fetched(hub) if name.endswith(".gguf")]
    hub.requests.clear()
    assert locate_weights(REPO).path.is_dir()
    assert not hub.requests


REFUSALS = {
    "gated": ({"fail": 403, "error_code": "GatedRepo"}, GatedRepoError, "accept the licence"),
    "no such repository": (
        {"fail": 404, "error_code": "RepoNotFound"},
        WeightsNotFoundError,
        "was not found on the Hub",
    ),
    "down": ({"fail": 403}, CheckpointError, f"Downloading {REPO} failed"),
    "flipped": ({"corrupt": True}, CheckpointError, "arrived with SHA-256"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_refusals(hub: FakeHub, kind: str) -> None:
    failure, error, words = REFUSALS[kind]
    for name, value in failure.items():
        setattr(hub, name, value)
    with pytest.raises(error, match=words) as caught:
        locate_weights(f"{REPO}:Q8_0")
    assert "\n" not in str(caught.value)
    hub.fail, hub.corrupt = 0, False
    assert general_name(locate_weights(f"{REPO}:Q8_0").path) == "q8_0", "what was damaged is fetched again"


@pytest.mark.parametrize("model", [REPO, f"{REPO}:Q8_0"])
def test_a_hub_that_never_answers(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """It takes connections and says nothing; what the cache holds needs no answer."""
    monkeypatch.setattr("gemma3.checkpoints.hub._ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", url)
            with pytest.raises(CheckpointError, match=rf"failed: {url} cannot be reached \(.*timed out.*\)\.$"):
                locate_weights(model)
        locate_weights(f"{REPO}:Q8_0")
        monkeypatch.setattr(constants, "ENDPOINT", url)
        assert general_name(locate_weights(f"{REPO}:Q8_0").path) == "q8_0"


def test_the_program_takes_a_tag(tmp_path: Path) -> None:
    with serve(FakeHub(dict(FILES))) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        run = run_main("hi", "--model", f"hf.co/{REPO}:q8_0", "--max-new-tokens", "2", env=env)
    assert run.status == 0, run.err
    assert f"{REPO}:q8_0 downloaded from the Hub" in run.err
