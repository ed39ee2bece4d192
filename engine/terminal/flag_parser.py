"""The parser of our programs: what their command lines have in common.

Owns the form of errors, ``--help`` and ``--version``; knows no other flag. Main thread, before
anything is loaded.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from engine.flags import is_text
from engine.terminal.guard import say, write_output
from gemma3 import __version__

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class FlagParser(argparse.ArgumentParser):
    """Has ``--version``; a wrong value is one line and exit status 2, and an argument that is no text is wrong."""

    def __init__(self, *, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, add_help=False)
        self.add_argument("-h", "--help", action="help", help="Show this text and end (default: do the work).")
        self.add_argument(
            "--version",
            action="version",
            version=f"gemma3-270m-server {__version__}",
            help="Show the version and end (default: do the work).",
        )

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The flags in ``argv``, or in the process's arguments for ``None``.

        Raises:
            SystemExit: with status 2 and one line on stderr, something is wrong.
        """
        words = sys.argv[1:] if argv is None else argv
        for word in words:
            if not is_text(word):
                self.error(f"the argument {word[:60]!a} holds bytes that are no UTF-8 text")
        return self.parse_args(words)

    def error(self, message: str) -> NoReturn:
        """Write one line to stderr and end with exit status 2."""
        if message.startswith("unrecognized arguments"):
            message += " (--help lists the flags; a text of several words stands in quotes)"
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")

    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        """argparse keeps silent about a disk that is full and a reader who has gone."""
        if file is sys.stdout:
            write_output(message)
        else:
            say(message.rstrip("\n"))
