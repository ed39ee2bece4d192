"""A bounded reader of the small JSON files beside weights: an object, or a line that says why not.

Owns what every such file has in common: a limit of size, and words for what is no JSON object. A
byte order mark, which some editors leave, is skipped. Knows nothing of what a key means. Plain
functions, any thread.
"""

import json
from pathlib import Path
from typing import Any

from gemma3.errors import ConfigError

MAX_JSON_BYTES = 16 << 20


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a file holds; its values are not checked.

    Raises:
        ConfigError: the file cannot be read, is too large, or holds something else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_JSON_BYTES:
        raise ConfigError(f"{path.name} has more than {MAX_JSON_BYTES:,} bytes.")
    try:
        content = json.loads(data)  # bytes: this way the byte order mark and UTF-16 are understood
    except (ValueError, RecursionError):
        raise ConfigError(f"{path.name} is not valid JSON.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name} is not a JSON object.")
    return content


def read_json_object_if_there(path: Path) -> dict[str, Any]:
    """The same; nothing where there is no such file.

    Raises:
        ConfigError: as above.
    """
    return read_json_object(path) if path.is_file() else {}
