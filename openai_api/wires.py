"""Whose API a path is: OpenAI's, Anthropic's or Ollama's.

Owns the paths by which the three are told apart, as errors have to be written before anything has
read a request. Knows no endpoint. Pure; any thread may call it.
"""

from enum import Enum, auto


class Wire(Enum):
    """An API that this server speaks; each has an error object of its own."""

    OPENAI = auto()
    ANTHROPIC = auto()
    OLLAMA = auto()


def wire_of(path: str) -> Wire:
    """Whose ``path`` is; unknown paths are OpenAI's, like this server's own."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Wire.ANTHROPIC
    return Wire.OLLAMA if path.startswith("/api/") else Wire.OPENAI
