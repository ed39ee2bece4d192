"""One module for each group of endpoints, and ``generate`` for those that generate text.

Owns what becomes of the fields of each; knows nothing of sockets, JSON text or the engine's thread.
Runs on the event loop.
"""
