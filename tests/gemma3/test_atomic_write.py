"""Temporary files: gone after an error, after a kill at the next start, and never while they are written."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gemma3.files.atomic_write import atomic_write, remove_leftovers

WRITER = """
import sys, time
from pathlib import Path
from gemma3.files.atomic_write import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_others_may_read_as_the_umask_allows_and_never_write(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"whole")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644 & ~umask


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1, "its process still writes"
        writer.kill()
        writer.wait()
        assert len(list(tmp_path.iterdir())) == 1
        remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_files_and_folders_stay(tmp_path: Path) -> None:
    (tmp_path / "folder.tmp").mkdir()
    (tmp_path / "file.gguf").touch()
    (tmp_path / "link.tmp").symlink_to(tmp_path / "file.gguf")
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nothing")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_removed_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making the file and locking it, another process takes it for abandoned."""
    import fcntl

    lock, calls = fcntl.flock, iter(range(2))

    def late(handle: int, operation: int) -> None:
        if next(calls) == 0:
            (path,) = tmp_path.iterdir()
            path.unlink()
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_write(tmp_path / "file") as file:
        file.write(b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_writers_and_cleaners_at_once(tmp_path: Path) -> None:
    is_over = threading.Event()

    def clean() -> None:
        while not is_over.is_set():
            remove_leftovers(tmp_path)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for i in range(100):
            with atomic_write(tmp_path / "file") as file:
                file.write(b"%d" % i)
            assert (tmp_path / "file").read_bytes() == b"%d" % i
    finally:
        is_over.set()
        cleaner.join()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
