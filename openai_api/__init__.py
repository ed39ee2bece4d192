"""The HTTP side: OpenAI's API on FastAPI. Knows the engine only through ``engine_api``; never imports torch."""
