"""Where caches lie without a home, and whose files in them are believed."""

import os
import pwd
import stat
from pathlib import Path

import pytest

from gemma3.files import cache_folders as module
from gemma3.files.cache_folders import NAME, cache_folders, is_trusted, make_folder

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
OTHER = 12_345


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variables nor a passwd entry; the working directory may be written."""

    def unknown(_uid: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_TEMPORARY_FOLDERS", (str(tmp_path / "none"), str(tmp_path)))


def test_the_users_own_comes_first(tmp_path: Path, no_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / f"{NAME}-{os.getuid()}"
    monkeypatch.setenv("HOME", "/home/ann")
    assert cache_folders() == [Path("/home/ann/.cache") / NAME, temporary]
    monkeypatch.setenv("XDG_CACHE_HOME", "/srv/caches")
    assert cache_folders() == [Path("/srv/caches") / NAME, temporary]
    assert cache_folders(tmp_path) == [tmp_path]


@pytest.mark.parametrize("home", [None, "", ".", "~"])
@pytest.mark.parametrize("caches", [None, "", "caches"])
def test_no_relative_folder_is_ever_used(
    tmp_path: Path, no_home: None, monkeypatch: pytest.MonkeyPatch, home: str | None, caches: str | None
) -> None:
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", caches)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_folders() == [tmp_path / f"{NAME}-{os.getuid()}"]


def test_the_passwd_entry_is_a_home(tmp_path: Path, no_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd(("ann", "x", 1, 1, "", "/home/ann", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)
    assert cache_folders()[0] == Path("/home/ann/.cache") / NAME


def test_there_may_be_no_folder_at_all(no_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TEMPORARY_FOLDERS", ())
    assert cache_folders() == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o002, 0o755), (0o000, 0o755), (0o077, 0o700)])
def test_folders_are_for_others_to_read(tmp_path: Path, umask: int, mode: int) -> None:
    root = tmp_path / "root"
    before = os.umask(umask)
    try:
        make_folder(root / "folder", root)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root, root / "folder")] == [mode, mode]


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_to_is_refused(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "root" / "file"
    make_folder(path.parent, path.parent)
    path.touch(0o644)
    assert is_trusted(path, path.parent)
    path.chmod(mode)
    assert not is_trusted(path, path.parent)
    assert not is_trusted(path, path.parent)
    (record,) = caplog.records
    assert str(path) in record.getMessage(), "it is told once"
    assert f"{mode:o}" in record.getMessage()


def test_a_folder_that_others_may_write_to_is_refused_and_then_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    make_folder(root / "folder", root)
    (root / "folder" / "file").touch(0o644)
    root.chmod(0o777)
    assert not is_trusted(root / "folder" / "file", root)
    make_folder(root / "folder", root)
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert is_trusted(root / "folder" / "file", root)
    assert len(caplog.records) == 2


@as_root
@pytest.mark.parametrize("which", ["root", "folder", "file"])
def test_what_belongs_to_another_user_is_refused(tmp_path: Path, which: str, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "root"
    make_folder(root / "folder", root)
    path = root / "folder" / "file"
    path.touch(0o644)
    os.chown({"root": root, "folder": root / "folder", "file": path}[which], OTHER, OTHER)
    assert not is_trusted(path, root)
    assert f"belongs to user {OTHER}" in caplog.text
    if which != "file":
        with pytest.raises(OSError, match=f"belongs to user {OTHER}"):
            make_folder(root / "folder", root)


@as_root
def test_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    """In ``/tmp`` anybody can lay a link under our name, to a folder that is ours."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "ours")
    os.chown(tmp_path / "root", OTHER, OTHER, follow_symlinks=False)
    assert not is_trusted(tmp_path / "root" / "file", tmp_path / "root")
    with pytest.raises(OSError, match="belongs to user"):
        make_folder(tmp_path / "root" / "folder", tmp_path / "root")


@as_root
def test_what_root_made_is_believed_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "root" / "folder", tmp_path / "root")
    (tmp_path / "root" / "folder" / "file").touch(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert is_trusted(tmp_path / "root" / "folder" / "file", tmp_path / "root")
