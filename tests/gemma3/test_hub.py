"""Downloads from a fake Hub on loopback: success, the offline cache, and every refusal in words."""

from pathlib import Path

import pytest

from tests.gemma3 import tiny
from tests.gemma3.fake_hub import FakeHub, hub_of, serve
from tests.gemma3.program import Run, run_main

SHAPE = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "sliding_window": 8,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_directory(tmp_path_factory.mktemp("hub") / "model", tiny.oracle_model(SHAPE, 0))


def fetch(hub: FakeHub, home: Path, *args: str) -> Run:
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {"HF_HUB_DOWNLOAD_TIMEOUT": "2", "HF_HUB_ETAG_TIMEOUT": "2"}
    return run_main("hi", "--model", "owner/name", "--max-new-tokens", "2", *args, env=env)


def test_download_then_offline(checkpoint: Path, tmp_path: Path) -> None:
    with serve(hub_of(checkpoint)) as hub:
        first = fetch(hub, tmp_path)
        assert first.status == 0, first.err
        assert "downloaded from the Hub" in first.err
        assert first.err.count("Gemma Terms of Use") == 1
        num_requests = len(hub.requests)
        second = fetch(hub, tmp_path)
        assert second.status == 0, second.err
        assert "from the local Hub cache" in second.err
        assert "Terms" not in second.err
        assert len(hub.requests) == num_requests
    assert fetch(hub, tmp_path).status == 0, "the Hub is gone, the cache is not"


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ({"fail": 403, "error_code": "GatedRepo"}, "hf auth login"),
        ({"fail": 401, "error_code": "GatedRepo"}, "accept the licence"),
        ({"fail": 401, "error_code": "RepoNotFound"}, "was not found on the Hub, or is private"),
        ({"fail": 404, "error_code": "RepoNotFound"}, "was not found on the Hub"),
        ({"fail": 403}, "Downloading owner/name failed"),
        ({"fail": 404}, "Downloading owner/name failed"),
        # The library tries again and again.
        pytest.param({"cut_short": True}, "Downloading owner/name failed", marks=pytest.mark.slow),
        ({"corrupt": True}, "arrived with SHA-256"),
    ],
    ids=str,
)
def test_refusals(checkpoint: Path, tmp_path: Path, failure: dict[str, object], words: str) -> None:
    with serve(hub_of(checkpoint, **failure)) as hub:
        run = fetch(hub, tmp_path)
    assert run.status == 2, run.err
    last = run.err.strip().splitlines()[-1]
    assert last.startswith("main.py: error: ")
    assert words in last
    assert "Traceback" not in run.err


def test_a_corrupt_file_is_fetched_again(checkpoint: Path, tmp_path: Path) -> None:
    hub = hub_of(checkpoint, corrupt=True)
    with serve(hub):
        assert fetch(hub, tmp_path).status == 2
        hub.corrupt = False
        assert fetch(hub, tmp_path).status == 0


def test_no_hub_at_all(tmp_path: Path) -> None:
    """Asked once: the library's own listing would be repeated for 24 s."""
    run = fetch(FakeHub({}, url="http://127.0.0.1:9"), tmp_path)
    assert run.status == 2
    assert "Downloading owner/name failed: http://127.0.0.1:9 cannot be reached" in run.err


def test_subfolders_are_not_fetched(checkpoint: Path, tmp_path: Path) -> None:
    hub = hub_of(checkpoint)
    hub.files |= {"checkpoint-5/model.safetensors": b"of an older step", "onnx/config.json": b"{}"}
    with serve(hub):
        run = fetch(hub, tmp_path)
    assert run.status == 0, run.err
    asked = [line for line in hub.requests if "/resolve/" in line]
    assert asked
    assert not any("checkpoint-5" in line or "onnx" in line for line in asked)


def test_half_a_download(checkpoint: Path, tmp_path: Path) -> None:
    """Named while the Hub is away, repaired when it is back: a file that never came, and one that was cut short."""
    hub = hub_of(checkpoint)
    with serve(hub):
        assert fetch(hub, tmp_path).status == 0
    (snapshot,) = tmp_path.glob("hub/models--owner--name/snapshots/*")
    (snapshot / "tokenizer.json").resolve().unlink()
    alone = fetch(hub, tmp_path)
    assert alone.status == 2
    last = alone.err.strip().splitlines()[-1]
    assert "holds half a download of owner/name (tokenizer.json is missing)" in last
    weights = (snapshot / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:-9])
    with serve(hub):
        again = fetch(hub, tmp_path)
        assert again.status == 0, again.err
    assert "completed from the Hub" in again.err
    assert fetch(hub, tmp_path).status == 0, "now it is whole"
