"""The listening socket: a TCP port or a Unix socket.

Owns how an address is found and bound, and the words of what goes wrong. Knows neither flags nor
HTTP. Runs in the main thread before the event loop does: the socket is bound before the model is
loaded, so that a taken port is known at once.
"""

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from openai_api.settings import OptionError

_Address = tuple[str, int] | tuple[str, int, int, int]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``.

    Raises:
        OptionError: the host has no address here.
    """
    return all(ipaddress.ip_address(info[4][0]).is_loopback for info in _addresses(host, 0))


def listen_on_port(host: str, port: int) -> socket.socket:
    """A bound TCP socket; port 0 takes any free one.

    Raises:
        OptionError: the host has no address here, or the port is taken or not allowed.
    """
    family, kind, _, _, address = _addresses(host, port)[0]
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with _closed_on_error(listener, f"{host} port {port}"):
        listener.bind(address)
    return listener


def listen_on_path(path: str) -> socket.socket:
    """A bound Unix socket to which only this user may connect.

    A socket file that a dead server left behind is replaced, nothing else ever is.

    Raises:
        OptionError: something else has that path, or it cannot be written.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closed_on_error(listener, f"--uds {path}"):
        if os.path.lexists(path) and _is_dead_socket(path):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where clients reach it: ``http://HOST:PORT`` or ``unix:PATH``."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, _Address]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)  # type: ignore[return-value]
    except OSError:
        raise OptionError(f"--host {host} is no address of this machine") from None


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
