"""One engine in one process each, behind the same three words: a program with nothing of ours in it but ``protocol.py``.

Each is run as ``python -m workers.NAME --model PATH --threads N`` by the Python that has the engine installed.
"""
