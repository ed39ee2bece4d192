"""How many connections are open, and which one goes when there are too many.

Owns the count and the order in which connections became idle: without a whole request. Knows no
HTTP. One object for a server, on the event loop.
"""

from collections import OrderedDict

from openai_api.transport.joined_writes import JoinedWrites

MAX_PASSED_OVER = 16


class ConnectionLimit:
    """The open connections, each known by its transport; mutable.

    Idle ones that never had a request go first: clients are not to pay for connections that say
    nothing. No operation takes longer the more connections there are.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._open: set[JoinedWrites] = set()
        self._silent: OrderedDict[JoinedWrites, None] = OrderedDict()
        self._served: OrderedDict[JoinedWrites, None] = OrderedDict()

    def opened(self, transport: JoinedWrites) -> None:
        """There is one more, which is busy until it is said to be idle."""
        self._open.add(transport)

    def closed(self, transport: JoinedWrites) -> None:
        """It is gone."""
        self._open.discard(transport)
        self.set_busy(transport)

    def set_idle(self, transport: JoinedWrites, *, is_served: bool) -> None:
        """It is idle from now on; ``is_served``: it has had an answer and may want another."""
        self.set_busy(transport)
        (self._served if is_served else self._silent)[transport] = None

    def set_busy(self, transport: JoinedWrites) -> None:
        """It has a request."""
        self._silent.pop(transport, None)
        self._served.pop(transport, None)

    def has_room(self) -> bool:
        """Whether there are no more connections than allowed, once the longest idle ones are closed."""
        while len(self._open) > self._max_connections:
            transport = self._longest_idle()
            if transport is None:
                return False
            self.closed(transport)
            transport.abort()
        return True

    def _longest_idle(self) -> JoinedWrites | None:
        """One that is still at work on its last answer or its next request takes its turn again."""
        order = self._silent or self._served
        for _ in range(min(len(order), MAX_PASSED_OVER)):
            transport = next(iter(order))
            if transport.is_idle():
                return transport
            order.move_to_end(transport)
        return None
