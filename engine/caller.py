"""Who sends a request, as far as the engine must know: whose turn it is, and whose cached prefixes it may find.

Knows nothing of keys or addresses, which whoever makes a ``Caller`` turns into its two words. Immutable, so any thread
may read it.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Requests with the same ``name`` share one turn in the queue.

    Those with the same ``prefix_salt`` find each other's computed prefixes, and nobody else does.
    Those that give way are computed only while there is nobody else.
    """

    name: str = ""
    prefix_salt: str = ""
    gives_way: bool = False

    def giving_way(self) -> "Caller":
        """The same one's work that can wait: it has a turn of its own, and finds the same prefixes."""
        return replace(self, name=f"{self.name} gives way", gives_way=True)


ANYBODY = Caller()
