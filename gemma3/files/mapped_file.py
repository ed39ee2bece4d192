"""Files mapped into memory: what their readers share."""

import mmap
import sys


def drop_pages(mapping: mmap.mmap) -> None:
    """Take the pages read so far out of this process's memory, where the system can; reading brings them back."""
    if sys.platform == "linux":
        mapping.madvise(mmap.MADV_DONTNEED)
