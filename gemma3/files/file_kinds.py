"""Files that pretend to be weights or a vocabulary: told by their first bytes, in words that help more than a reader's own.

Knows nothing of the formats that are read. Plain values, any thread.
"""

_LFS_POINTER = b"version https://git-lfs"
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def impostor(start: bytes) -> str | None:
    """What a file really is, from its first 32 bytes; ``None`` when it is neither of the two usual impostors."""
    if start.startswith(_LFS_POINTER):
        return "a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"
    if start.startswith(_PICKLE_STARTS):
        return "a pickle, or the zip around one that torch.save writes; loading it can run any code"
    return None
