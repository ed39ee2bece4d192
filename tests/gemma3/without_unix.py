"""Programs that are started find what Windows and macOS lack to be missing here, too."""

import sys
from pathlib import Path

import pytest

# Windows has none of these modules, and its event loops no handlers of signals.
WITHOUT_UNIX = """
import asyncio.unix_events, functools, os, signal, socket, sys
socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)
for name in ("fcntl", "grp", "pwd", "readline", "resource", "termios", "tty"):
    sys.modules[name] = None
for module, name in ((os, "sched_getaffinity"), (os, "sysconf"), (signal, "SIGHUP"), (socket, "AF_UNIX")):
    delattr(module, name)
def refuse(*_):
    raise NotImplementedError
asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler = refuse
"""


def hide_unix(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From the programs that are started from now on."""
    (folder / "sitecustomize.py").write_text(WITHOUT_UNIX)
    monkeypatch.setenv("PYTHONPATH", ":".join([str(folder), *(path for path in sys.path if path)]))
