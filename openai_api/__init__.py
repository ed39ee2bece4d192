"""The HTTP side: OpenAI's API on FastAPI.

Owns everything between a socket and the engine: ``transport`` before a request is read, ``request``
from bytes to what the engine is asked, ``endpoints``, ``answer`` from the engine's words to bytes.
Knows the engine only through ``engine_api``, but for the program (``run``, ``command_line``) that
makes one; never imports torch. Runs on one event loop, long texts and bodies in worker threads.
"""
