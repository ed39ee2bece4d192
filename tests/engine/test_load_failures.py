"""What the system refuses while loading is one line of ours; everything else passes."""

import errno

import pytest

from engine.load_failures import in_words
from gemma3.errors import CheckpointError, NoMemoryError


@in_words()
def load(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ],
)
def test_memory(error: Exception) -> None:
    with pytest.raises(NoMemoryError, match="ulimit -v") as raised:
        load(error)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_for_want_of_memory() -> None:
    error = CheckpointError("model.gguf cannot be read")
    error.__cause__ = OSError(errno.ENOMEM, "Cannot allocate memory")
    with pytest.raises(NoMemoryError, match="ulimit -v"):
        load(error)


def test_a_file_that_cannot_be_read() -> None:
    with pytest.raises(CheckpointError, match=r"^/weights/config.json cannot be read: Permission denied\.$"):
        load(PermissionError(errno.EACCES, "Permission denied", "/weights/config.json"))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError(errno.EPIPE, "Broken pipe"), KeyError("x")])
def test_anything_else(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        load(error)
    assert raised.value is error
