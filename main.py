"""Gemma 3 270M on the command line, without an installed command.

    python main.py "Once upon a time"     continue a text
    python main.py -                      continue the standard input; without an argument too, or an example
    python main.py chat                   talk (/help lists the commands)
    python main.py serve                  serve it with OpenAI's API
    python main.py ask                    ask a running server one question
    python main.py doctor                 check the machine, the weights and the arithmetic

The same as ``gemma3-server``; ``openai_api/command.py`` has the commands. Weights beside this file are
found first. Every failure is one line and exit status 2.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # While the rest is imported, Ctrl-C ends the process at once; then it is an exception again.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from pathlib import Path

from openai_api.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], program="main.py", beside=Path(__file__).resolve().parent))
