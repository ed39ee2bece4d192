"""Ask a running server one question: ``python query_fastapi.py --stream --prompt "Hello"``.

The same as ``gemma3-server ask``; the client is ``openai_api/ask.py``.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # While the rest is imported, Ctrl-C ends the process at once; then it is an exception again.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys

from openai_api.ask import main

if __name__ == "__main__":
    sys.exit(main(program="query_fastapi.py"))
