"""From the bytes of a body to what the engine is asked: strict JSON, checked fields, prompts, sampling parameters."""
