"""A mapped file while others cut it, overwrite it, or replace it: what was mapped stays as it was."""

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gemma3.files import held_file
from gemma3.files.held_file import HeldFile

linux = pytest.mark.skipif(sys.platform != "linux", reason="leases and moving pages are Linux's")
CHUNK = 16_384
CONTENT = os.urandom(5 * CHUNK + 1_234)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(held_file, "_CHUNK_BYTES", CHUNK)
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def take(file: HeldFile, delay_s: float = 0.0) -> bytes:
    return b"".join(map(bytes, file.take(delay_s)))


def is_held(path: Path) -> bool:
    """Whether a writer would have to wait; asking ends a lease, as a writer that waits does."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except BlockingIOError:
        return True
    return False


def cut(path: Path) -> None:
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    path.write_bytes(b"x" * len(CONTENT))


def copy_over(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"y" * 7)
    subprocess.run(["cp", other, path], check=True)


@linux
@pytest.mark.parametrize("beyond", [0, 4_096, (2 << 20) - 4_096])
def test_chunks_begin_where_large_pages_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beyond: int) -> None:
    """Wherever the file is mapped; else each of them would be cut into small pages where it goes."""
    from gemma3.files import page_moves

    address = (64 << 20) + beyond
    monkeypatch.setattr(page_moves, "address_of", lambda _: address)
    (tmp_path / "large").write_bytes(bytes(9 << 20))
    *starts, end = HeldFile(tmp_path / "large")._chunk_ends()
    assert end == 9 << 20
    assert len(starts) in (2, 3)
    assert all((address + start) % page_moves.HUGE_BYTES == 0 for start in starts)


def test_it_is_the_file(path: Path) -> None:
    file = HeldFile(path)
    assert file.view == CONTENT
    assert take(file) == CONTENT
    assert file.view == CONTENT


@linux
@pytest.mark.parametrize("change", [cut, overwrite, copy_over])
def test_nothing_changes_after_it_was_taken(path: Path, change: Callable[[Path], None]) -> None:
    """Views that were made before it was taken see no change either."""
    file = HeldFile(path)
    view = file.view[CHUNK + 5 : 3 * CHUNK]
    take(file)
    assert not is_held(path)
    change(path)
    assert path.read_bytes() != CONTENT
    assert file.view == CONTENT
    assert view == CONTENT[CHUNK + 5 : 3 * CHUNK]


@linux
@pytest.mark.parametrize("change", [cut, overwrite, copy_over])
def test_a_writer_waits_until_it_is_taken_which_is_hurried_then(path: Path, change: Callable[[Path], None]) -> None:
    """The pauses are far longer than the test may last."""
    file = HeldFile(path)
    writer = threading.Thread(target=change, args=(path,))
    writer.start()
    assert take(file, delay_s=3_600.0) == CONTENT
    writer.join(20)
    assert not writer.is_alive()
    assert path.read_bytes() != CONTENT
    assert file.view == CONTENT


@linux
def test_it_is_let_go_with_its_last_reference(path: Path) -> None:
    file = HeldFile(path)
    view = file.view
    assert is_held(path)
    del file
    gc.collect()
    assert not is_held(path)
    assert view == CONTENT


def test_a_process_that_ends_while_a_thread_takes_it_does_not_close_it(path: Path) -> None:
    """Finalizers run at the end of a process before what was registered ahead of the first of them."""
    program = (
        "import atexit, os; atexit.register(lambda: print(os.fstat(file._handle).st_size))\n"
        "import sys; from pathlib import Path; from gemma3.files.held_file import HeldFile\n"
        "file = HeldFile(Path(sys.argv[1]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == str(len(CONTENT)), ended.stderr


@linux
def test_without_a_lease_a_file_that_was_cut_is_no_signal_but_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where leases are refused: taking it reads the file, not the mapping."""
    import fcntl

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", refused)
        file = HeldFile(path)
    cut(path)
    with pytest.raises(OSError, match="shorter"):
        take(file)


@linux
def test_memory_that_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gemma3.files import page_moves

    monkeypatch.setattr(page_moves, "_FAILED", None)
    monkeypatch.setattr(page_moves, "_checked", lambda _address: (_ for _ in ()).throw(OSError(12, "no memory")))
    file = HeldFile(path)
    with pytest.raises(OSError, match="no memory"):
        take(file)
    assert file.view == CONTENT


def test_a_file_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HeldFile(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty"):
        HeldFile(tmp_path / "empty")
    (tmp_path / "empty").write_bytes(b"it was let go")
