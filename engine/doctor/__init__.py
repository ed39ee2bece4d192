"""``gemma3-server doctor``: whether everything here is as it should be, measured, not assumed.

Each module owns the checks of one kind and yields ``Finding``s; ``examination`` runs them in order.
The embedded default is held against stored ids and float32 logits (``reference.json``); of another
model only what it says of itself can be checked. Main thread.
"""
