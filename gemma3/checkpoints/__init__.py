"""Which weights are used, where they come from, and what an opened checkpoint offers; no torch."""
