"""A transport that sends the writes of one turn of the event loop together.

Owns when bytes go to the socket and how a connection is closed: the head and the body of an answer
are two writes of uvicorn's and one packet here. Knows no HTTP. One object for each connection, on
the event loop.
"""

import asyncio
import select
import socket
from contextlib import suppress
from typing import Any

# More than this is not copied together; it is also where asyncio begins to hold writers back.
MAX_JOINED_BYTES = 64 * 1024
# How long a client that is still sending is listened to after the last answer.
LINGER_S = 1.0


class JoinedWrites(asyncio.Transport):
    """Stands in front of the transport of a connection; mutable.

    Attributes:
        is_sent_to: the client may still be sending. Closing then waits for it: with unread bytes
            the system resets a connection, and the reset takes the answer with it.
    """

    def __init__(
        self, transport: asyncio.Transport, *, loop: asyncio.AbstractEventLoop, write_timeout_s: float
    ) -> None:
        super().__init__()
        self.is_sent_to = False
        self._transport = transport
        self._loop = loop
        self._write_timeout_s = write_timeout_s
        self._pending: list[bytes | bytearray | memoryview] = []
        self._num_pending_bytes = 0
        self._is_half_closed = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        _send_at_once(transport)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` at the end of this turn of the event loop, or now if there is much of it."""
        if self._is_half_closed:
            return
        if not self._pending:
            self._loop.call_soon(self.flush)
        if self._num_pending_bytes + len(data) > MAX_JOINED_BYTES:
            self.flush()
        self._pending.append(data)
        self._num_pending_bytes += len(data)

    def flush(self) -> None:
        """Hand everything that is pending to the socket."""
        pending, self._pending, self._num_pending_bytes = self._pending, [], 0
        if pending:
            self._transport.write(b"".join(pending))

    def close(self) -> None:
        """Close behind the last byte; a client that does not take it has ``write_timeout_s`` seconds."""
        if self.is_closing():
            return
        self.flush()
        allowed_s = self._write_timeout_s if self._transport.get_write_buffer_size() else LINGER_S
        self._close_timer = self._loop.call_later(allowed_s, self._transport.abort)
        if self.is_sent_to:
            self._is_half_closed = True
            with suppress(OSError):  # the client has reset the connection
                self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close now; what is not sent yet is lost."""
        self._pending.clear()
        self._transport.abort()

    def expect_progress(self) -> None:
        """The client takes nothing: it has ``write_timeout_s`` seconds to go on."""
        self._stall_timer = self._loop.call_later(self._write_timeout_s, self.abort)

    def made_progress(self) -> None:
        """The client takes its answer again."""
        _cancel(self._stall_timer)

    def forget(self) -> None:
        """The connection is lost: nothing is pending any more."""
        self._pending.clear()
        _cancel(self._stall_timer)
        _cancel(self._close_timer)

    def is_closing(self) -> bool:
        """Whether ``close`` or ``abort`` was called, or the client is gone."""
        return self._is_half_closed or self._transport.is_closing()

    def pause_reading(self) -> None:
        """As of the transport."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """As of the transport."""
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._num_pending_bytes + self._transport.get_write_buffer_size()

    def has_unread(self) -> bool:
        """Whether the client has sent something, or hung up, that was not read yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of the transport."""
        return self._transport.get_extra_info(name, default)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _send_at_once(transport: asyncio.Transport) -> None:
    """Without this option the system holds a small packet back until the one before it has been
    acknowledged, which costs 40 ms. asyncio sets it only where the listener names its protocol.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
