"""The messages of a person: from a terminal with line editing, history and pasting, or from a pipe.

Owns where a message begins and ends. Knows no command and no chat. Main thread.

Pasted lines are one message. Readline gives them as one line, breaks and all, where terminal and
library mark what is pasted; elsewhere (libedit, no readline) the lines that wait already when the
first has been read belong to it. Windows can tell neither; three double quotes do it everywhere.
"""

import select
import sys
from contextlib import suppress

from engine.flags import is_text

QUOTES = '"""'
# Long enough for a slow connection to bring the rest of a paste, too short to type a line.
_PASTE_WAIT_S = 0.05


class MessageReader:
    """Reads standard input; on a terminal it loads ``readline``, which edits lines from then on."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdin.isatty()
        if self.is_terminal:
            with suppress(ImportError):  # Windows has none
                import readline

                # Python switches it off, since its own prompt runs each line.
                readline.parse_and_bind("set enable-bracketed-paste on")

    def read(self) -> str | None:
        """The next message, without the line break at its end; ``None`` at the end of the input.

        From a line that begins with three double quotes to one that ends with them it is one message.

        Raises:
            KeyboardInterrupt: Ctrl-C; what was typed of the message is forgotten.
            ValueError: standard input is closed.
        """
        message = self._read_together()
        if message is None or not message.startswith(QUOTES):
            return message
        while not message.endswith(QUOTES) or len(message) < 2 * len(QUOTES):
            more = self._read_line("... ")
            if more is None:
                break
            message += f"\n{more}"
        return message.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")

    def _read_together(self) -> str | None:
        line = self._read_line("> ")
        if line is None or not self.is_terminal:
            return line
        lines = [line]
        while _is_more_waiting():
            more = self._read_line("")
            if more is None:
                break
            lines.append(more)
        return "\n".join(lines)

    def _read_line(self, prompt: str) -> str | None:
        try:
            return input(prompt if self.is_terminal else "")
        except EOFError:
            return None
        except OSError as error:
            raise _unreadable(error) from None


def read_all() -> str:
    """Standard input to its end.

    Raises:
        ValueError: it is closed, or no text.
    """
    try:
        text = sys.stdin.read()
    except OSError as error:
        raise _unreadable(error) from None
    if not is_text(text):
        raise ValueError("the standard input holds bytes that are no UTF-8 text")
    return text


def _unreadable(error: OSError) -> ValueError:
    return ValueError(f"the standard input cannot be read: {error.strerror}")


def _is_more_waiting() -> bool:
    try:
        return bool(select.select([sys.stdin], [], [], _PASTE_WAIT_S)[0])
    except (OSError, ValueError):  # Windows asks sockets alone
        return False
