"""What the system refuses while an engine is loaded, in a line for a person.

Owns the words for files that cannot be read and memory that is not given. Everything else passes
unchanged. Runs on the thread that loads.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from gemma3.errors import CheckpointError, Gemma3Error, NoMemoryError

_NO_MEMORY = (
    "Loading needs more memory than this process may have: raise the limit (ulimit -v, the container's), or lower "
    "--kv-cache-memory, --max-num-seqs or --threads."
)


@contextmanager
def in_words() -> Iterator[None]:
    """As a decorator: what is raised by the function.

    Raises:
        NoMemoryError: memory, or the stack of a thread, was refused.
        CheckpointError: a file cannot be read; the text has its name and the reason.
    """
    try:
        yield
    except MemoryError as error:
        raise NoMemoryError(_NO_MEMORY) from error
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        raise NoMemoryError(_NO_MEMORY) from error
    except Gemma3Error as error:  # a file that could not be read for want of memory
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.ENOMEM:
            raise
        raise NoMemoryError(_NO_MEMORY) from error
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise NoMemoryError(_NO_MEMORY) from error
        if error.filename is None:
            raise
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}.") from error
