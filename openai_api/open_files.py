"""How many files this process may have open, and so how many connections.

Owns the system's limit: it is raised as far as it may be. Knows no socket. Main thread, before the
event loop runs.
"""

import logging
from dataclasses import replace

from openai_api.logs import log_event
from openai_api.settings import ServerSettings

# Files beyond the connections: the model's, and three times ``run.ACCEPT_BATCH``, since a connection
# is accepted three turns of the event loop before another is closed for it.
SPARE_FILES = 256


def within_file_limit(settings: ServerSettings) -> ServerSettings:
    """``settings`` with no more connections than this process may have files for.

    The limit is raised first: many systems start programs with 1,024, which as many connections
    would use up.
    """
    num_files = _allow_open_files(settings.max_connections + SPARE_FILES)
    max_connections = num_files - min(SPARE_FILES, num_files // 2)
    if max_connections >= settings.max_connections:
        return settings
    log_event(logging.WARNING, "few_open_files_allowed", {"files": num_files, "max_connections": max_connections})
    return replace(settings, max_connections=max_connections)


def _allow_open_files(num_files: int) -> int:
    """How many may be open, at most ``num_files``."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return num_files
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        num_files = min(num_files, hard)
    if soft != resource.RLIM_INFINITY and soft < num_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (num_files, hard))
    return num_files
