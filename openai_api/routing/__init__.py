"""Which function serves which path, API by API, and what is said of paths that are none.

Owns the table of endpoints. Knows nothing of how they are served.
"""
