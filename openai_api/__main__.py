"""``python -m openai_api``: the same as ``gemma3-server``."""

import sys

from openai_api.command import main

if __name__ == "__main__":
    sys.exit(main())
