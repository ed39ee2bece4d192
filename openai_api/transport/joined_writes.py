"""A transport that sends the head of an answer with what follows it.

Owns when bytes go to the socket and how a connection is closed: head and body are two writes of
uvicorn's and one packet here. Knows no HTTP. One object for each connection, on the event loop.
"""

import asyncio
import select
import socket
from contextlib import suppress
from typing import Any

# More than this is not copied together.
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
        self._holds_next = False
        self._held = b""
        self._is_half_closed = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        _send_at_once(transport)

    def hold_next(self) -> None:
        """The next write waits for the one behind it, but no longer than this turn of the event loop."""
        self._holds_next = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``, behind what is held."""
        if self._is_half_closed:
            return
        if self._holds_next:
            self._holds_next, self._held = False, bytes(data)
            self._loop.call_soon(self.flush)
            return
        if self._held and len(data) <= MAX_JOINED_BYTES:
            data, self._held = self._held + data, b""
        self.flush()
        self._transport.write(data)

    def flush(self) -> None:
        """Send what is held."""
        held, self._held = self._held, b""
        if held:
            self._transport.write(held)

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
        self._held = b""
        self._transport.abort()

    def expect_progress(self) -> None:
        """The client takes nothing: it has ``write_timeout_s`` seconds to go on."""
        self._stall_timer = self._loop.call_later(self._write_timeout_s, self.abort)

    def made_progress(self) -> None:
        """The client takes its answer again."""
        _cancel(self._stall_timer)

    def forget(self) -> None:
        """The connection is lost: nothing is to be done any more."""
        self._held = b""
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
        return len(self._held) + self._transport.get_write_buffer_size()

    def is_idle(self) -> bool:
        """Whether all is sent, and nothing has come from the client that was not read yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return self.get_write_buffer_size() == 0 and not poll.poll(0)

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
