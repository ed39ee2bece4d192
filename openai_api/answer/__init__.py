"""From what the engine says to the bytes of an answer, whole or as server-sent events.

Owns the run of a request (``generation``), the shapes of answers (``models``, a writer for each
endpoint) and their sending. Knows no field of a request but those that shape the answer. Runs on
the event loop.
"""
