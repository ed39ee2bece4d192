"""From the bytes of a body to what the engine is asked.

Owns strict JSON, checked fields, prompts and sampling parameters. Knows nothing of the answer and
never asks the engine to compute. Runs on the event loop, for large bodies and long texts in a
worker thread.
"""
