"""Who sends a request, as far as the engine must know: whose turn it is, and whose cached prefixes it may find.

Knows nothing of keys or addresses, which whoever makes a ``Caller`` turns into its two words. Immutable, so any thread
may read it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Requests with the same ``name`` share one turn in the queue.

    Those with the same ``prefix_salt`` find each other's computed prefixes, and nobody else does.
    """

    name: str = ""
    prefix_salt: str = ""


ANYBODY = Caller()
