"""The reference model in plain torch, its cache, its loading and the small teaching loop: the only place with torch."""
