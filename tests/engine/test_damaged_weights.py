"""Packed weights with one other bit: found beside the running engine, which ends loudly and is built from a healed file."""

import asyncio
import shutil
from pathlib import Path

import pytest

from engine import engine_thread, llm_engine
from engine.async_engine import AsyncLLMEngine
from engine.engine_info import EngineStatus
from engine.engine_options import EngineOptions
from engine.errors import StepError
from engine.llm_engine import LLMEngine
from engine.loading import LoadedEngine, load_engine
from engine.sampling_params import SamplingParams
from gemma3.checkpoints import checkpoint
from gemma3.cpu import packed_file
from tests.engine.engines import GREEDY, run, tiny_checkpoint
from tests.engine.test_async_engine import collect

pytest.importorskip("gemma3.cpu._native", reason="the native core was not compiled")

PROMPT = [2, 150, 151, 152]
LONG = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packed_file, "SHARED_FOLDER", str(tmp_path / "packed"))
    return tmp_path / "packed"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("damaged") / "model")


def load(path: Path) -> LoadedEngine:
    return load_engine(EngineOptions(model=str(path), quantization="int8", kv_cache_memory=64 << 20, threads=1))


@pytest.fixture
def packed(made: Path, cache: Path) -> Path:
    """A packed file with one other bit, which no sample of a start sees: in the rows of the embedding."""
    load(made)
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) - 20_000] ^= 1
    (cache / "whole").write_bytes(path.read_bytes())
    path.write_bytes(content)
    return path


async def ask_until_it_fails(engine: AsyncLLMEngine) -> None:
    while True:
        await collect(engine, "doomed", PROMPT, LONG)


def stream_until_it_fails(engine: LLMEngine) -> None:
    for _ in range(40):
        for _ in engine.stream(PROMPT, LONG):
            pass


def test_the_server_builds_its_engine_anew(
    made: Path, packed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_thread, "CHECK_DELAY_S", 0.3)

    async def main() -> list[int]:
        engine = AsyncLLMEngine(lambda: load(made))
        await engine.start()
        fingerprint = engine.info.system_fingerprint
        with pytest.raises(StepError):
            await ask_until_it_fails(engine)
        while engine.status is EngineStatus.LOADING:
            await asyncio.sleep(0.005)
        assert engine.info.system_fingerprint == fingerprint
        answer = await collect(engine, "after", PROMPT, GREEDY)
        await engine.shutdown()
        return answer

    answer = asyncio.run(asyncio.wait_for(main(), 30))
    assert f"{packed} is damaged; it was removed" in caplog.text
    assert packed.read_bytes() == (packed.parent / "whole").read_bytes()
    assert answer == run(load(made), {"a": PROMPT})["a"][0].token_ids


def test_an_offline_engine_says_so_at_its_next_step(made: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_engine, "CHECK_DELAY_S", 0.0)
    engine = LLMEngine(str(made), quantization="int8", kv_cache_memory=64 << 20, threads=1)
    with pytest.raises(ValueError, match=f"{packed} is damaged"):
        stream_until_it_fails(engine)


def test_the_fingerprint_tells_weights_apart_that_the_samples_do_not(
    made: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two fine-tunes of one size, which differ in one value in the middle."""
    other = Path(shutil.copytree(made, tmp_path / "other"))
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-30_001] ^= 0x80  # a sign
    (other / "model.safetensors").write_bytes(content)
    monkeypatch.setattr(checkpoint, "_NUM_SAMPLES", 2)  # so many that they do not cover such a small file
    hashes = {checkpoint.content_hash([folder / "model.safetensors"]) for folder in (made, other)}
    assert len(hashes) == 1
    first, second = load(made), load(other)
    assert first.info.system_fingerprint != second.info.system_fingerprint
    assert first.info.system_fingerprint == load(made).info.system_fingerprint
