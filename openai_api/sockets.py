"""The listening sockets: a TCP port, on every address of its host, or a Unix socket.

Owns how addresses are found and bound, and the words of what goes wrong. Knows neither flags nor
HTTP. Runs in the main thread before the event loop does: the sockets are bound before the model is
loaded, so that a taken port is known at once.
"""

import errno
import ipaddress
import os
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from openai_api.settings import OptionError
from openai_api.web_addresses import normal_host

# "localhost" is both, whatever a file of hosts says: clients try either first.
LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")
# Port 0: a port that is free on one address may be taken on the next.
MAX_FREE_PORT_TRIES = 16
# Bytes of a Unix socket's path, by the structure that the system keeps it in, less a zero at its end.
MAX_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})

# On Windows SO_REUSEADDR would take the port from a server that runs.
_SOLE_USE: int = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)

_SocketAddress = tuple[str, int] | tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class _Address:
    family: socket.AddressFamily
    socket_address: _SocketAddress

    def bind(self, port: int, *, is_alone: bool) -> socket.socket:
        """A TCP socket at this address and ``port``; alone, ``::`` takes IPv4 too. Raises: OSError."""
        # The protocol is named: asyncio switches Nagle's delay off only where it reads TCP.
        listener = socket.socket(self.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, _SOLE_USE, 1)
            if self.family == socket.AF_INET6 and not is_alone:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((self.socket_address[0], port, *self.socket_address[2:]))
        except OSError:
            listener.close()
            raise
        return listener


@dataclass(frozen=True, slots=True)
class Listeners:
    """Bound sockets, and where clients reach them: ``http://HOST:PORT`` or ``unix:PATH``."""

    sockets: Sequence[socket.socket]
    url: str

    def close(self) -> None:
        """Those that a server has closed stay so."""
        for listener in self.sockets:
            listener.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``.

    Raises:
        OptionError: the host has no address here.
    """
    return all(ipaddress.ip_address(address.socket_address[0]).is_loopback for address in _addresses(host))


def listen_on_port(host: str, port: int) -> Listeners:
    """TCP sockets on all addresses of ``host``, with one port; 0 takes any free one.

    An address that this machine does not have, IPv6 perhaps, is left out if there is another.

    Raises:
        OptionError: the host has no address here, or the port is taken or not allowed.
    """
    sockets = _bind_all(host, port)
    bound_host, bound_port, *_ = sockets[0].getsockname()
    shown = bound_host if len(sockets) == 1 else normal_host(host) or bound_host
    return Listeners(sockets, f"http://[{shown}]:{bound_port}" if ":" in shown else f"http://{shown}:{bound_port}")


def listen_on_path(path: str) -> Listeners:
    """A bound Unix socket to which only this user may connect.

    A socket file that a dead server left behind is replaced, nothing else ever is.

    Raises:
        OptionError: something else has that path, it is too long or cannot be written, or this
            system has no such sockets.
    """
    if getattr(socket, "AF_UNIX", None) is None:
        raise OptionError("--uds is not to be had here: this system has no Unix sockets; use --host and --port")
    num_bytes = len(os.fsencode(path))
    if num_bytes > MAX_SOCKET_PATH_BYTES:
        raise OptionError(
            f"--uds has {num_bytes} bytes; a socket's path may have {MAX_SOCKET_PATH_BYTES} at most: {path}"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closed_on_error(listener, f"--uds {path}"):
        if os.path.lexists(path) and _is_dead_socket(path):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
    return Listeners((listener,), f"unix:{path}")


def _addresses(host: str) -> Sequence[_Address]:
    names = LOOPBACK_ADDRESSES if normal_host(host) == "localhost" else (host,)
    try:
        infos = [
            info
            for name in names
            for info in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        ]
    except (OSError, UnicodeError):
        raise OptionError(f"--host {host!r} is no address of this machine") from None
    return list(dict.fromkeys(_Address(info[0], info[4]) for info in infos))  # type: ignore[arg-type]


def _bind_all(host: str, port: int) -> Sequence[socket.socket]:
    addresses = _addresses(host)
    for tries_left in reversed(range(1 if port else MAX_FREE_PORT_TRIES)):
        try:
            return _bind_each(addresses, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not tries_left:
                raise OptionError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}") from None
    raise AssertionError("the last try returns or raises")


def _bind_each(addresses: Sequence[_Address], port: int) -> Sequence[socket.socket]:
    """One socket each, all with the port of the first, or none at all. Raises: OSError."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for address in addresses:
        try:
            common_port = sockets[0].getsockname()[1] if sockets else port
            sockets.append(address.bind(common_port, is_alone=len(addresses) == 1))
        except OSError as error:
            if error.errno not in _NOT_HERE:
                for listener in sockets:
                    listener.close()
                raise
            missing = error
    if missing is not None and not sockets:
        raise missing
    return sockets


@contextmanager
def _closed_on_error(listener: socket.socket, where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        listener.close()
        raise OptionError(f"cannot listen on {where}: {os.strerror(error.errno or 0)}") from None


def _is_dead_socket(path: str) -> bool:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False
