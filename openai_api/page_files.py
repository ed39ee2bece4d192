"""The files of the page at ``/``: which there are, their bytes, their types.

Owns the folder ``page`` and one reading of it; knows nothing of requests. The files hold no secrets, so
``transport.access`` lets everybody read them: the page asks for an API key itself. Pure; any thread.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAGE_PREFIX = "/page/"

_FOLDER = Path(__file__).parent / "page"
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@dataclass(frozen=True, slots=True)
class PageFile:
    """``etag`` changes with ``content``, which is UTF-8."""

    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> Mapping[str, PageFile]:
    """All files by their path below the folder, as ``views/chat.js``; read at the first call."""
    paths = (path for path in sorted(_FOLDER.rglob("*")) if path.suffix in _MEDIA_TYPES)
    return {path.relative_to(_FOLDER).as_posix(): _read(path) for path in paths}


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, _MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
