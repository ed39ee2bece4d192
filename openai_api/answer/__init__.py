"""From what the engine says to the bytes of an answer, whole or as server-sent events."""
