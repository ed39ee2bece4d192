"""Where this program keeps what it can make again, and whose files there it believes.

Owns the choice of the folders, how they are made, and the check of owner and mode. A cache decides
what the model computes, so only this user and root may have written it. Knows nothing of what the
files hold. Any thread, and any number of processes at once.
"""

import logging
import os
import stat
import sys
from functools import cache
from pathlib import Path

NAME = "gemma3-270m"
ADVICE = "set XDG_CACHE_HOME to a folder that can be written"
_FOLDER_MODE = 0o755  # less the umask
_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp")  # noqa: S108  only a folder of this user's own in it is used
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

log = logging.getLogger("gemma3")


def cache_folders(only: Path | None = None) -> list[Path]:
    """The user's own cache folder, then one of this user's below the system's temporary folder.

    They are read and written in this order. None of them needs to exist; the list may be empty. No
    relative path is ever used: without a home it would begin with a folder named ``~``. ``only``
    stands in the place of them all.
    """
    if only is not None:
        return [only]
    return [folder for folder in (_user_folder(), _temporary_folder()) if folder is not None]


def _user_folder() -> Path | None:
    if sys.platform in ("win32", "darwin"):
        from platformdirs import user_cache_path  # importing it costs 5 ms

        return user_cache_path(NAME)
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():  # the specification has relative paths ignored
        return given / NAME
    home = _home()
    return None if home is None else home / ".cache" / NAME


def _home() -> Path | None:
    """``HOME``, else what the list of users says. A container's user often has neither."""
    if sys.platform == "win32":
        return None
    home = Path(os.environ.get("HOME", ""))
    if home.is_absolute():
        return home
    try:
        import pwd

        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (KeyError, ImportError):
        return None
    return home if home.is_absolute() else None


def _temporary_folder() -> Path | None:
    """``tempfile`` would fall back to the working directory, in which nothing of ours belongs."""
    if sys.platform == "win32":
        return None
    for text in (os.environ.get("TMPDIR", ""), *_TEMPORARY_FOLDERS):
        base = Path(text)
        if base.is_absolute() and os.access(base, os.W_OK | os.X_OK):
            return base / f"{NAME}-{os.getuid()}"
    return None


def is_trusted(path: Path, root: Path) -> bool:
    """Whether nobody but this user and root may have written ``path``, which lies in ``root``.

    A refusal is logged, once. What does not exist, or cannot be looked at, is nothing to refuse:
    opening it will say so.
    """
    for each in (root, path.parent, path):
        try:
            reason = _why_refused(each)
        except OSError:
            continue
        if reason is not None:
            _say(f"{each} {reason}: it is not used.")
            return False
    return True


def make_folder(folder: Path, root: Path) -> None:
    """Make ``folder``, which lies in ``root``: others may read in it, this user alone may write.

    One of this user's own that others may write to is closed to them.

    Raises:
        OSError: it cannot be made, or belongs to others; ``strerror`` says which.
    """
    for each in (root, folder):
        each.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        _close_to_others(each)
        reason = _why_refused(each)
        if reason is not None:
            raise OSError(0, f"it {reason}", str(each))


def _why_refused(path: Path) -> str | None:
    """In words that follow the name of the file; ``None`` if it may be believed."""
    if sys.platform == "win32":
        return None
    status = path.stat()
    for owner in (path.lstat().st_uid, status.st_uid):  # a link, and what it leads to
        if owner not in (0, os.geteuid()):
            return f"belongs to user {owner}"
    if status.st_mode & _OTHERS_WRITE:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None


def _close_to_others(folder: Path) -> None:
    """Files in it stay what they are: each has an owner and a mode of its own to be judged by."""
    status = folder.stat()
    if sys.platform == "win32" or status.st_uid != os.geteuid() or not status.st_mode & _OTHERS_WRITE:
        return
    mode = stat.S_IMODE(status.st_mode)
    folder.chmod(mode & ~_OTHERS_WRITE)
    _say(f"{folder} could be written by others (mode {mode:o}): now only its owner may.")


@cache
def _say(text: str) -> None:
    """Once: a start looks at the same folder for several files."""
    log.warning(text)
